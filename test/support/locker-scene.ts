import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import {
  channelName,
  Locker,
  type LockerOptions,
  SoloflightError,
  type TelemetryEvents,
} from '../../src/index.ts'
import { lockerScripts } from '../../src/locker/store/redis/scripts/index.ts'
import type { TcpProxy } from './proxy.ts'
import type { ProxyConnection } from './proxy-connection.ts'
import { type Setup, setup } from './setup.ts'
import { until } from './wait.ts'

/** A lease, and so a poll interval, that does not end within a test: its end explains nothing. */
export const LONG = 30_000

export const onSubscription = ({ sawSubscribe }: ProxyConnection): boolean => sawSubscribe
export const onCommands = ({ sawSubscribe }: ProxyConnection): boolean => !sawSubscribe

/** Loads all scripts into the server, so that each call of a locker is one command. */
export async function loadScripts({ server }: Setup): Promise<void> {
  for (const { source } of Object.values(lockerScripts)) await server.call('SCRIPT', 'LOAD', source)
}

/** A server that has all scripts, and two lockers. */
export interface Scene extends AsyncDisposable {
  t: Setup & { proxy: TcpProxy }
  /** Connected through the proxy. */
  locker: Locker
  /** Connected directly. It stands for another process. */
  other: Locker
}

export async function scene(options: LockerOptions = {}): Promise<Scene> {
  const t = await setup({ proxy: true })
  await loadScripts(t)
  const common = { lease: LONG, cache: false, timeout: 10_000, ...options } as const
  const locker = new Locker({ redis: t.redis, ...common })
  const other = new Locker({ redis: t.server.options, ...common })
  const scene: Scene = {
    t,
    locker,
    other,
    async [Symbol.asyncDispose]() {
      await t.proxy.clear()
      await Promise.all([locker.close({ grace: 0 }), other.close({ grace: 0 })])
      await t[Symbol.asyncDispose]()
    },
  }
  try {
    await Promise.all([locker.ready(), other.ready()])
    await Promise.all([locker.peek('warm'), other.peek('warm')])
  } catch (error) {
    await scene[Symbol.asyncDispose]()
    throw error
  }
  return scene
}

/** Cuts `locker` off, until `refuse(false)`. Resolves when it knows: what it sends from here on does not go out. */
export async function cutOff({ t }: Scene): Promise<void> {
  let gone = false
  const notice = (message: unknown) => {
    const { link, up } = message as TelemetryEvents['connection']
    gone ||= link === 'commands' && !up
  }
  subscribe(channelName('connection'), notice)
  await t.proxy.refuse(true)
  t.proxy.cut()
  await until(() => gone, { what: 'the cut to be noticed' })
  unsubscribe(channelName('connection'), notice)
}

/** Resolves to the outcome of a waiter and the time until then, ms. */
export async function settledBy(waiting: Promise<unknown>): Promise<{ outcome: string; ms: number }> {
  const start = performance.now()
  const outcome = await waiting.then(
    () => 'result',
    (error: unknown) => (error instanceof SoloflightError ? error.code : String(error)),
  )
  return { outcome, ms: performance.now() - start }
}
