// What the types of the queue allow and refuse. This file is compiled; only the test at its end runs.

import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { Redis } from 'ioredis'
import {
  type BulkJob,
  Connection,
  type Counts,
  type Disposition,
  type FeedEvent,
  type Handler,
  type Job,
  type JobPage,
  type JobStatus,
  MemoryQueueStore,
  MemoryStore,
  type QueueStats,
  RedisQueue,
  type RunningJob,
} from '../../src/index.ts'
import { checkTypes } from '../support/type-check.ts'

type Jobs = {
  add: (items: number[]) => number
  render: (page: { url: string; width?: number }) => Promise<Buffer>
  tick: () => void
}

interface JobsByInterface {
  greet(name: string): string
  maybe: (id?: number) => number | undefined
}

type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false

/** Compiles only if the two types are identical. */
function same<_Result extends true>(): void {}

/** Construction of a queue, with every kind of `redis`. */
export function queues(): unknown[] {
  return [
    new RedisQueue('math'),
    new RedisQueue('math', {}),
    new RedisQueue<Jobs>('math', { redis: 'redis://localhost:6379', lease: 500, attempts: 3 }),
    new RedisQueue<JobsByInterface>('math', { redis: { host: 'localhost' } }),
    new RedisQueue('math', { redis: new Redis() }),
    new RedisQueue('math', { redis: new Connection('redis://localhost') }),
    new RedisQueue('math', { store: new MemoryQueueStore() }),
    new RedisQueue('math', { backoff: (failed, error) => (error instanceof Error ? failed * 100 : 0) }),
    new RedisQueue('math', { backoff: { type: 'exponential', delay: 5 }, retain: { failed: false } }),
    // @ts-expect-error a queue has a name
    new RedisQueue(),
    // @ts-expect-error a number is no Redis server
    new RedisQueue('math', { redis: 6379 }),
    // @ts-expect-error the store of a Locker has another type
    new RedisQueue('math', { store: new MemoryStore() }),
    // @ts-expect-error a misspelt option
    new RedisQueue('math', { tll: 5 }),
    // @ts-expect-error durations are numbers
    new RedisQueue('math', { lease: '5s' }),
    // @ts-expect-error one of three values
    new RedisQueue('math', { conflict: 'merge' }),
    // @ts-expect-error a backoff has a delay
    new RedisQueue('math', { backoff: { type: 'fixed' } }),
    // @ts-expect-error a retention has a count and an age
    new RedisQueue('math', { retain: { failed: { count: 5 } } }),
    // @ts-expect-error commands are functions
    new RedisQueue<{ add: number }>('math'),
    // @ts-expect-error with one payload at most
    new RedisQueue<{ add: (a: number, b: number) => number }>('math'),
  ]
}

/** The command determines the payload and the result of a handler. */
export function handlers(queue: RedisQueue<Jobs>): void {
  queue
    .process('add', (items, job) => {
      same<Same<typeof items, number[]>>()
      same<Same<typeof job, RunningJob<number[]>>>()
      same<Same<[typeof job.fence, typeof job.attempt, typeof job.signal], [number, number, AbortSignal]>>()
      job.progress({ any: 'value' })
      job.log('a line')
      return items.length
    })
    .process('render', async ({ url, width }) => Buffer.from(url + width), { concurrency: 5 })
    .process('tick', () => {})
  const separate: Handler<number[], number> = async (items) => items.length
  queue.process('add', separate)
  // @ts-expect-error no such command
  queue.process('subtract', () => 1)
  // @ts-expect-error the payload is an array of numbers
  queue.process('add', (items: string) => items.length)
  // @ts-expect-error the result is a number
  queue.process('add', () => 'three')
  // @ts-expect-error a promise of a string is no number
  queue.process('add', async () => 'three')
  // @ts-expect-error no such option of a worker
  queue.process('add', () => 1, { lease: 5 })
  // @ts-expect-error the job is read-only
  queue.process('add', (_, job) => (job.fence = 5))
}

/** The command determines the payload and the result of a submission. */
export async function submissions(queue: RedisQueue<Jobs>): Promise<void> {
  const sum = queue.submit('add', [1, 2])
  same<Same<typeof sum, Promise<number>>>()
  const image = await queue.submit(
    'render',
    { url: '/' },
    { priority: 5, onProgress: (value: unknown) => value },
  )
  same<Same<typeof image, Buffer>>()
  const nothing = queue.submit('tick')
  same<Same<typeof nothing, Promise<void>>>()
  const job = await queue.enqueue('add', [1], { dedupe: 'key', delay: 5, lifo: true })
  same<Same<typeof job, Job<number>>>()
  same<Same<Awaited<ReturnType<typeof job.result>>, number>>()
  same<Same<typeof job.disposition, Disposition | undefined>>()
  const bulk: BulkJob<Jobs>[] = [
    { command: 'add', payload: [1] },
    { command: 'render', payload: { url: '/' }, options: { priority: 5 } },
    { command: 'tick' },
  ]
  same<Same<Awaited<ReturnType<typeof queue.enqueueMany>>, Job[]>>()
  await queue.enqueueMany(bulk)
  // @ts-expect-error no such command
  await queue.submit('subtract', [1])
  // @ts-expect-error the payload is an array of numbers
  await queue.submit('add', ['1'])
  // @ts-expect-error a single number is no array
  await queue.enqueue('add', 1)
  // @ts-expect-error the page has a url
  await queue.submit('render', { width: 5 })
  // @ts-expect-error no other field
  await queue.submit('render', { url: '/', height: 5 })
  // @ts-expect-error the result is a number
  const text: string = await queue.submit('add', [1])
  // @ts-expect-error durations are numbers
  await queue.submit('add', [1], { delay: '5s' })
  // @ts-expect-error an option of the queue, not of a submission
  await queue.submit('add', [1], { lease: 5 })
  // @ts-expect-error a key or false
  await queue.submit('add', [1], { dedupe: true })
  // @ts-expect-error a function cannot be stored with a job
  await queue.submit('add', [1], { backoff: () => 5 })
  // @ts-expect-error the payload of another command
  await queue.enqueueMany([{ command: 'add', payload: { url: '/' } }])
  // @ts-expect-error `enqueueMany` takes no signal
  await queue.enqueueMany([{ command: 'tick', options: { signal: new AbortController().signal } }])
  // @ts-expect-error a job is read-only
  job.id = 'x'
  void text
}

/** The type argument may be an interface, or left out. */
export async function otherMaps(typed: RedisQueue<JobsByInterface>, plain: RedisQueue): Promise<void> {
  same<Same<Awaited<ReturnType<typeof typed.submit<'greet'>>>, string>>()
  const maybe = await typed.submit('maybe')
  same<Same<typeof maybe, number | undefined>>()
  typed.process('greet', (name) => name.toUpperCase())
  // @ts-expect-error a name is a string
  await typed.submit('greet', 5)
  // @ts-expect-error no such command
  typed.process('leave', () => 1)
  plain.process('anything', (payload) => payload.whatever)
  const result: { whatever: number } = await plain.submit('anything', { whatever: 1 })
  void result
  // @ts-expect-error a command is a string
  await plain.submit(5)
  // @ts-expect-error a handler is a function
  plain.process('anything', 'handler')
}

/** The other methods. */
export async function face(queue: RedisQueue<Jobs>): Promise<void> {
  const page: JobPage = await queue.jobs('failed', { limit: 5, cursor: '0' })
  const status: JobStatus | undefined = await queue.status('id')
  same<Same<Awaited<ReturnType<typeof queue.counts>>, Counts>>()
  same<Same<ReturnType<typeof queue.stats>, QueueStats>>()
  same<Same<Awaited<ReturnType<typeof queue.drain>>, number>>()
  same<Same<Awaited<ReturnType<typeof queue.retry>>, boolean>>()
  queue.on('completed', ({ id, ms }) => same<Same<[typeof id, typeof ms], [string, number]>>())
  queue.on('failed', ({ failure }) => failure.message)
  const stop = await queue.watch((event) => {
    same<Same<typeof event, FeedEvent>>()
    if (event.event === 'lost') same<Same<typeof event.code, string>>()
  })
  stop()
  await queue.pause('add')
  await queue.close({ grace: 5 })
  void [page, status]
  // @ts-expect-error one of five states
  await queue.jobs('done')
  // @ts-expect-error no such command
  await queue.pause('subtract')
  // @ts-expect-error no such event
  queue.on('done', () => {})
  // @ts-expect-error a completed job has no failure
  queue.on('completed', ({ failure }) => failure)
  // @ts-expect-error the fields of a queue are private
  queue.options
  await using scoped = new RedisQueue<Jobs>('math')
  void scoped
}

test('types - right use of a queue compiles, and every wrong use is an error of its own', async () => {
  await checkTypes(fileURLToPath(import.meta.url), 30)
})
