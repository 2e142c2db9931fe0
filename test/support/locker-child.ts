// A process that has a Locker on a given Redis and does with it as it is told.

import { subscribe } from 'node:diagnostics_channel'
import { setTimeout as sleep } from 'node:timers/promises'
import pDefer, { type DeferredPromise } from 'p-defer'
import {
  channelName,
  type Done,
  Lease,
  Locker,
  type LockerOptions,
  type LockerStats,
  SoloflightError,
  type TelemetryEvents,
  type WorkContext,
} from '../../src/index.ts'
import type { Address } from './daemon.ts'
import { emit, serve } from './process-child.ts'

/** What of the locker's options can be sent to another process. */
export type ChildLockerOptions = Omit<
  LockerOptions,
  'redis' | 'store' | 'codec' | 'trace' | 'exposeError'
> & { redis: Address }

export interface ChildRun {
  /** The work takes so long, ms. Without it, it goes on until `finish`. */
  ms?: number
  timeout?: number
  refresh?: boolean
}

export type ChildTicket =
  | { status: 'locked'; fence: number; shared: boolean }
  | { status: 'done'; result: unknown }

/** What happened, and when by the clock that all processes of a machine share (ms). */
export interface Entry {
  at: number
  what: 'grant' | 'lost' | 'accepted' | 'refused' | 'unknown' | 'asked' | 'delivered' | 'failed'
  key: string
  pid: number
  fence?: number
  value?: unknown
  /** Of what was delivered or failed: when it was asked for. */
  since?: number
  code?: string
}

const history: Entry[] = []
const leases = new Map<number, Lease>()
/** Works that wait for `finish`, by key. */
const works = new Map<string, Set<DeferredPromise<unknown>>>()
let opened: Locker | undefined

/** Monotonic, and the same in every process of this machine. */
function now(): number {
  return Number(process.hrtime.bigint()) / 1e6
}

function note(
  what: Entry['what'],
  key: string,
  more: Omit<Entry, 'at' | 'what' | 'key' | 'pid'> = {},
): Entry {
  const entry = { at: now(), what, key, pid: process.pid, ...more }
  history.push(entry)
  emit(what, entry)
  return entry
}

function locker(): Locker {
  if (!opened) throw new Error('Expected `open` before other calls')
  return opened
}

function codeOf(error: unknown): string {
  return error instanceof SoloflightError ? error.code : String(error)
}

/** Notes a grant, and its loss in the very moment in which its signal fires. */
function granted(key: string, fence: number, signal: AbortSignal): void {
  note('grant', key, { fence })
  signal.addEventListener('abort', () => note('lost', key, { fence, code: codeOf(signal.reason) }))
}

async function work({ key, fence, signal }: WorkContext, ms: number | undefined): Promise<unknown> {
  granted(key, fence, signal)
  const value = `${process.pid}/${fence}`
  if (ms !== undefined) return sleep(ms, value)
  const deferred = pDefer<unknown>()
  const waiting = works.get(key) ?? new Set()
  works.set(key, waiting.add(deferred))
  return (await deferred.promise) ?? value
}

async function settle(fence: number, value: unknown, act: (lease: Lease) => Promise<void>): Promise<void> {
  const lease = leases.get(fence)
  if (!lease) throw new Error(`Expected the fence of a lease, got ${fence}`)
  try {
    await act(lease)
  } catch (error) {
    const code = codeOf(error)
    note(code === 'E_LEASE_LOST' ? 'refused' : 'unknown', lease.key, { fence, value, code })
    throw error
  }
}

/** Asks, and notes what came of it. */
async function asked(key: string, ask: () => Promise<unknown>): Promise<unknown> {
  const since = note('asked', key).at
  try {
    const value = await ask()
    note('delivered', key, { since, value })
    return value
  } catch (error) {
    note('failed', key, { since, code: codeOf(error) })
    throw error
  }
}

const handlers = {
  open: (options: ChildLockerOptions): void => {
    opened = new Locker(options)
  },
  /** The result. The work's own, unless `finish` names another, is `<pid>/<fence>`. */
  run: (key: string, { ms, ...options }: ChildRun = {}): Promise<unknown> =>
    asked(key, () => locker().run(key, (context) => work(context, ms), options)),
  /** Ends the works of a key, with a value or with an error. */
  finish: (key: string, end: { value?: unknown; error?: string } = {}): void => {
    for (const deferred of works.get(key) ?? []) {
      if (end.error !== undefined) deferred.reject(Object.assign(new Error(end.error), { code: 'E_CHILD' }))
      else deferred.resolve(end.value)
    }
    works.delete(key)
  },
  request: async (key: string, options: { timeout?: number } = {}): Promise<ChildTicket> => {
    const ticket: Lease | Done<unknown> = await locker().request(key, options)
    if (!(ticket instanceof Lease)) return ticket
    const { fence, shared, signal } = ticket
    leases.set(fence, ticket)
    granted(key, fence, signal)
    return { status: 'locked', fence, shared }
  },
  /** The token of a lease that this process does not renew. */
  requestToken: async (key: string, lease: number): Promise<string> => {
    const ticket = await locker().request(key, { renew: false, lease })
    if (ticket.status === 'done') throw new Error(`Expected a lease of ${key}`)
    return ticket.token
  },
  publishByToken: (token: string, value: unknown): Promise<void> => locker().held(token).publish(value),
  wait: (key: string, options: { timeout?: number } = {}): Promise<unknown> =>
    asked(key, () => locker().wait(key, options)),
  publish: (fence: number, value: unknown): Promise<void> =>
    settle(fence, value, (lease) => lease.publish(value)),
  fail: (fence: number, message: string): Promise<void> =>
    settle(fence, message, (lease) => lease.fail(new Error(message))),
  release: (fence: number): Promise<void> => settle(fence, undefined, (lease) => lease.release()),
  invalidate: (...keys: string[]): Promise<void> => locker().invalidate(...keys),
  /** Keeps the event loop from turning. */
  block: (ms: number): void => {
    for (const end = now() + ms; now() < end; );
  },
  isLost: (fence: number): boolean | undefined => leases.get(fence)?.signal.aborted,
  stats: (): LockerStats => locker().stats(),
  history: (): Entry[] => history,
  close: async (grace: number): Promise<void> => {
    await opened?.close({ grace })
  },
}

export type LockerHandlers = typeof handlers

subscribe(channelName('settle'), (message) => {
  const { key, fence } = message as TelemetryEvents['settle']
  note('accepted', key, { fence })
})

process.once('SIGTERM', async () => {
  await opened?.close({ grace: 0 })
  // What was told of the end is on its way to the parent, and goes with the process unless it is let through.
  process.disconnect()
})

serve(handlers)
