// What the types allow and what they refuse. Most of it is not run but compiled, by the type check of the whole and by
// the test at the end.

import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { Cluster, Redis } from 'ioredis'
import { Cluster as Cluster5, Redis as Redis5 } from 'ioredis5'
import {
  type Codec,
  Connection,
  type Done,
  type Lease,
  LeaseLostError,
  Locker,
  type LockerOptions,
  MemoryStore,
  type Peek,
  RemoteError,
  type RequestOptions,
  type RunOptions,
  type SoloflightError,
  TimeoutError,
  type Work,
} from '../../src/index.ts'
import { checkTypes } from '../support/type-check.ts'

interface Report {
  id: number
}

type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false

/** Compiles only if the two types are the same. */
function same<_Result extends true>(): void {}

/** What may be the chunks of a stream. */
export function chunks(locker: Locker): unknown[] {
  return [
    locker.stream('k', () => ['a', 'b']),
    locker.stream('k', () => new Set([1])),
    locker.stream('k', async function* () {
      yield 1
    }),
    locker.stream('k', () => new Response('a').body as ReadableStream<Uint8Array>),
    // @ts-expect-error a text would be streamed by its characters
    locker.stream('k', () => 'text'),
    // @ts-expect-error and bytes one by one
    locker.stream('k', () => Buffer.from('bytes')),
  ]
}

/** Where Redis may be said to be. */
export function sources(): Locker[] {
  return [
    new Locker(),
    new Locker({}),
    new Locker({ redis: 'redis://localhost:6379' }),
    new Locker({ redis: { host: 'localhost', port: 6379 } }),
    new Locker({ redis: { sentinels: [{ host: 'localhost', port: 26379 }], name: 'main' } }),
    new Locker({ redis: new Redis() }),
    new Locker({ redis: new Redis5() }),
    new Locker({ redis: new Cluster([{ host: 'localhost', port: 7000 }]) }),
    new Locker({ redis: new Cluster5([{ host: 'localhost', port: 7000 }]) }),
    new Locker({ redis: new Connection('redis://localhost') }),
    new Locker({ redis: new Connection(new Redis5(), { channelPrefix: 'app' }) }),
    new Locker({ store: new MemoryStore({ maxRecords: 10 }) }),
    // @ts-expect-error a number is not where Redis is
    new Locker({ redis: 6379 }),
    // @ts-expect-error nor is an object of another kind
    new Locker({ redis: new Map() }),
    // @ts-expect-error a store has transitions
    new Locker({ store: {} }),
    // @ts-expect-error a misspelt option
    new Locker({ tll: 5 }),
    // @ts-expect-error durations are numbers
    new Locker({ ttl: '5s' }),
    // @ts-expect-error one of four words
    new Locker({ onUnavailable: 'retry' }),
    // @ts-expect-error false or bounds, not true
    new Locker({ cache: true }),
    // @ts-expect-error a codec goes both ways
    new Locker({ codec: { encode: () => Buffer.alloc(0) } }),
  ]
}

/** What is handed over has the type of what was computed. */
export async function results(locker: Locker): Promise<void> {
  const plain = locker.run('key', () => 1)
  same<Same<typeof plain, Promise<number>>>()
  const async = locker.run('key', async () => ({ id: 1 }))
  same<Same<typeof async, Promise<{ id: number }>>>()
  const typed: Work<Report> = ({ signal, fence, shared, progress, key }) => {
    same<Same<typeof signal, AbortSignal>>()
    same<Same<[typeof fence, typeof shared, typeof key], [number, boolean, string]>>()
    progress({ any: 'value' })
    return { id: fence }
  }
  same<Same<Awaited<ReturnType<typeof locker.run<Report>>>, Report>>()
  const report: Report = await locker.run('key', typed, {
    refresh: true,
    ttl: 5,
    onProgress: (value: unknown) => value,
  })
  // @ts-expect-error a work is needed
  await locker.run('key')
  // @ts-expect-error a key is a string
  await locker.run(5, () => 1)
  // @ts-expect-error no such option of a call
  await locker.run('key', () => 1, { prefix: 'x' })
  // @ts-expect-error the result is a number
  const text: string = await locker.run('key', () => report.id)
  // @ts-expect-error the context is read-only
  await locker.run('key', (context) => (context.fence = 5))
  void text
}

/** A ticket is told apart by its status. */
export async function tickets(locker: Locker): Promise<void> {
  const ticket = await locker.request<Report>('key', {
    timeout: 5,
    lease: 500,
    signal: new AbortController().signal,
  })
  same<Same<typeof ticket, Lease | Done<Report>>>()
  if (ticket.status === Locker.LOCKED) {
    same<Same<typeof ticket, Lease>>()
    await ticket.publish({ id: 1 }, { ttl: 5 })
    await ticket.fail(new Error('x'), { ttl: 5 })
    // @ts-expect-error who has a lease has no result
    ticket.result
    // @ts-expect-error fences are given, not chosen
    ticket.fence = 5
    await using scoped = ticket
    scoped.progress(1)
  } else {
    same<Same<typeof ticket, Done<Report>>>()
    same<Same<typeof ticket.result, Report>>()
    // @ts-expect-error who has the result has no lease
    await ticket.publish({ id: 1 })
  }
  const unknown = await locker.request('key')
  if (unknown.status === Locker.DONE) same<Same<typeof unknown.result, unknown>>()
  // @ts-expect-error the result's ttl is said when it is published
  await locker.request('key', { ttl: 5 })
  // @ts-expect-error a result is needed
  await locker.publish('key')
}

/** A memoized function has the signature of the function. */
export async function memoized(locker: Locker): Promise<void> {
  const make = async (id: string, deep?: boolean): Promise<Report> => ({ id: id.length + Number(deep) })
  const report = locker.memoize(make, { key: (id) => `report:${id}`, ttl: 5 })
  same<Same<Parameters<typeof report>, Parameters<typeof make>>>()
  same<Same<ReturnType<typeof report>, Promise<Report>>>()
  const sync = locker.memoize((id: number) => id, { key: (id) => String(id) })
  same<Same<ReturnType<typeof sync>, Promise<number>>>()
  // @ts-expect-error the arguments are those of the function
  await report(5)
  // @ts-expect-error a key is needed
  locker.memoize(make, {})
  // @ts-expect-error a key is a string
  locker.memoize(make, { key: () => 5 })
  // @ts-expect-error one caller's signal must not be every caller's
  locker.memoize(make, { key: (id) => id, signal: new AbortController().signal })
}

/** Codes are literals, so a switch over them narrows. */
export function errors(error: SoloflightError): void {
  const timeout = new TimeoutError('x', { key: 'key' })
  same<Same<typeof timeout.code, 'E_TIMEOUT'>>()
  same<Same<typeof error.key, string | undefined>>()
  if (error instanceof RemoteError) same<Same<typeof error.remote.code, string | number | undefined>>()
  if (error instanceof LeaseLostError) same<Same<typeof error.code, 'E_LEASE_LOST'>>()
  // @ts-expect-error codes are stable
  timeout.code = 'E_OTHER'
}

/** The rest of the face. */
export async function face(locker: Locker): Promise<void> {
  const peek: Peek = await locker.peek('key')
  same<Same<typeof peek.status, 'free' | 'locked' | 'done'>>()
  const stats = locker.stats()
  same<Same<typeof stats.localHits, number>>()
  await locker.invalidate('a', 'b')
  await locker.close({ grace: 5 })
  const [options, request, run]: [LockerOptions, RequestOptions, RunOptions] = [{}, {}, {}]
  const codec: Codec = { encode: (value) => Buffer.from(String(value)), decode: (bytes) => bytes.toString() }
  void [options, request, run, codec]
  // @ts-expect-error what a Locker holds is its own
  locker.options
  await using scoped = new Locker()
  void scoped
}

test('types - right use compiles, for ioredis 5 and 6, and every wrong use is an error of its own', async () => {
  await checkTypes(fileURLToPath(import.meta.url), 21)
})
