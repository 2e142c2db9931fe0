import assert from 'node:assert/strict'
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import {
  channelName,
  Lease,
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

/** What an upper bound on a time may be missed by on a busy machine, ms. */
export const E = 500

/** A lease, and so a slow tick, that does not end within a test: what happens is not due to its end. */
export const LONG = 30_000

export const onSubscription = ({ sawSubscribe }: ProxyConnection): boolean => sawSubscribe
export const onCommands = ({ sawSubscribe }: ProxyConnection): boolean => !sawSubscribe

/** Gives the server all scripts, so that each call of a locker is one command from the first on. */
export async function loadScripts({ server }: Setup): Promise<void> {
  for (const { source } of Object.values(lockerScripts)) await server.call('SCRIPT', 'LOAD', source)
}

/** A server that has all scripts, and two lockers. */
export interface Scene extends AsyncDisposable {
  t: Setup & { proxy: TcpProxy }
  /** Its wire can fail. */
  locker: Locker
  /** Another process, as far as Redis can tell, on a sound wire. */
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

/** Ends the wire of `locker`, until `refuse(false)`. What it sends from here on does not go out: it knows of the end. */
export async function cutOff({ t }: Scene): Promise<void> {
  let gone = false
  const notice = (message: unknown) => {
    const { link, up } = message as TelemetryEvents['connection']
    gone ||= link === 'commands' && !up
  }
  subscribe(channelName('connection'), notice)
  await t.proxy.refuse(true)
  t.proxy.cut()
  await until(() => gone, { what: 'the end to be noticed' })
  unsubscribe(channelName('connection'), notice)
}

/** The lease of a key that is free. */
export async function leaseOf(locker: Locker, key = 'k'): Promise<Lease> {
  const ticket = await locker.request(key)
  assert.ok(ticket instanceof Lease)
  return ticket
}

/** Resolves when so many processes are parked on the key, as the observer sees it. */
export async function parked(observer: Locker, key = 'k', count = 1): Promise<void> {
  const isParked = async () => ((await observer.peek(key)).lock?.parked ?? 0) === count
  await until(isParked, { what: `${count} processes to be parked on ${key}` })
}

/** How long it takes, ms. */
export async function took(act: () => unknown): Promise<number> {
  const start = performance.now()
  await act()
  return performance.now() - start
}

/** What became of a waiter, and when it was settled, ms after it began to wait. */
export async function settledBy(waiting: Promise<unknown>): Promise<{ outcome: string; ms: number }> {
  const start = performance.now()
  const outcome = await waiting.then(
    () => 'result',
    (error: unknown) => (error instanceof SoloflightError ? error.code : String(error)),
  )
  return { outcome, ms: performance.now() - start }
}
