// A process that uses everything that is kept in Redis, until it is killed.

import { setTimeout as sleep } from 'node:timers/promises'
import { Connection, Lease, Locker, RedisQueue } from '../../src/index.ts'
import type { Address } from './daemon.ts'
import { emit, serve } from './process-child.ts'

const LEASE = 500
const FOREVER = new Promise<never>(() => {})

let locker: Locker
let queue: RedisQueue

/** What is done in vain is done all the same. */
const settled = (...promises: Promise<unknown>[]) => Promise.allSettled(promises)

async function* chunks(count: number, thenStop: boolean): AsyncGenerator<string> {
  for (let number = 0; number < count; number++) yield `chunk ${number}`
  if (thenStop) await FOREVER
}

async function readAll(stream: AsyncIterable<unknown>): Promise<void> {
  for await (const _ of stream);
}

/** A round of everything that ends. */
async function round(name: string): Promise<void> {
  const options = { ttl: 60_000, timeout: 5000 }
  await settled(
    locker.run(`value-${name}`, () => name, { ...options, tags: ['a', 'b'], staleIfError: 60_000 }),
    locker.run(`failure-${name}`, () => Promise.reject(new Error(name)), { ...options, errorTtl: 60_000 }),
    locker.run(`nothing-kept-${name}`, ({ noStore }) => noStore(), options),
    locker.runMany([`many-${name}`, `value-${name}`], (keys) => keys.map(() => name), options),
    readAll(locker.stream(`stream-${name}`, () => chunks(5, false), options)),
    locker
      .request(`published-${name}`)
      .then((ticket) => (ticket instanceof Lease ? ticket.publish(name) : undefined)),
    locker
      .request(`released-${name}`)
      .then((ticket) => (ticket instanceof Lease ? ticket.release() : undefined)),
  )
  await settled(locker.invalidate(`value-${name}`), locker.invalidateTags('a'))
  await settled(
    queue.submit('work', `kept ${name}`),
    queue.submit('work', `alone ${name}`, { dedupe: false }),
    queue.submit('work', `again ${name}`, { attempts: 2, backoff: 5 }),
    queue.submit('work', `fails ${name}`),
    queue.submit('work', 1, { dedupe: name, conflict: 'rerun' }),
    queue.submit('work', 2, { dedupe: name, conflict: 'rerun' }),
    queue.submit('work', `later ${name}`, { delay: 5 }),
    queue.submit('work', `first ${name}`, { priority: 2 }),
    queue.pause('work').then(() => queue.resume('work')),
    queue.enqueue('nobody does it', name).then((job) => job.cancel()),
  )
}

const handlers = {
  open: async (redis: Address): Promise<void> => {
    const connection = new Connection(redis)
    locker = new Locker({ redis: connection, lease: LEASE })
    queue = new RedisQueue('q', {
      redis: connection,
      lease: LEASE,
      retain: { completed: { count: 10, age: 60_000 } },
    })
    await locker.peek('warm')
    while (!locker.stats().subscribed) await sleep(5)
  },
  /** Works on jobs. */
  process: (concurrency: number): void => {
    queue.process(
      'work',
      async (payload, job) => {
        job.progress(1)
        job.log('a line')
        if (payload === 'stuck') {
          emit('running')
          await FOREVER
        }
        if (String(payload).startsWith('again') && job.attempt === 1) throw new Error('once more')
        if (String(payload).startsWith('fails')) throw new Error('no')
        return payload
      },
      { concurrency },
    )
  },
  round,
  /** Jobs that stay: one that runs, and others that wait for different reasons. */
  fill: async (name: string): Promise<void> => {
    void settled(queue.submit('work', 'stuck'))
    await queue.enqueueMany([
      { command: 'nobody does it', payload: `waits ${name}` },
      { command: 'nobody does it', payload: `waits in front ${name}`, options: { priority: 1 } },
      { command: 'work', payload: `delayed ${name}`, options: { delay: 60_000 } },
    ])
    void settled(queue.submit('nobody does it', `waited for ${name}`))
  },
  pause: (): Promise<void> => queue.pause(),
  /** Works that do not end, and callers that wait for them. Told by 'holding' when they run. */
  hold: (): void => {
    for (const key of ['held', 'refreshed']) {
      const work = () => {
        emit('holding', key)
        return FOREVER
      }
      void settled(locker.run(key, work, { refresh: key !== 'held' }), locker.request(`lease-of-${key}`))
    }
  },
  wait: (): void =>
    void settled(
      locker.run('held', () => 1),
      locker.request('lease-of-held'),
    ),
  /** Reads a stream; whoever produces it stops after 3 chunks. */
  stream: (): void => {
    const read = async () => {
      let count = 0
      for await (const _ of locker.stream('endless', () => chunks(3, true)))
        if (++count === 3) emit('reading')
    }
    void settled(read())
  },
  /** Rounds without end. */
  rounds: (): void => {
    const all = async () => {
      for (let number = 0; ; number++) await round(`${process.pid} ${number}`)
    }
    void settled(all())
  },
}

export type MixedHandlers = typeof handlers

serve(handlers)
