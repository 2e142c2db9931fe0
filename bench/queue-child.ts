// A process of the bench of queues: submits jobs, or runs them.

import { setTimeout as sleep } from 'node:timers/promises'
import { serve } from '../test/support/process-child.ts'
import { until } from '../test/support/wait.ts'
import type { Pumped } from './pump.ts'
import { Awaited, type Outcome } from './queues/awaited.ts'
import { QUEUE_ENTRANTS, type QueueName } from './queues/entrant.ts'
import { payloadOf } from './queues/payload.ts'
import type { Address, BenchQueue, QueueTerms } from './queues/queue.ts'
import { Task } from './queues/task.ts'
import { now } from './statistics.ts'
import { PayloadTrips } from './trips.ts'

const queues = new Map<string, BenchQueue>()
const awaited = new Map<string, Awaited>()
const task = new Task()

const trips = new PayloadTrips()

function queueOf(name: string): BenchQueue {
  const queue = queues.get(name)
  if (!queue) throw new Error(`${name} is not open`)
  return queue
}

function awaitedOf(name: string): Awaited {
  const known = awaited.get(name) ?? new Awaited(queueOf(name))
  awaited.set(name, known)
  return known
}

const handlers = {
  open: async (name: QueueName, address: Address, terms: QueueTerms[]): Promise<void> => {
    const { open } = await QUEUE_ENTRANTS[name].load()
    const opened = await open(address, terms, (payload) => task.run(payload))
    for (const [index, { queue }] of terms.entries()) {
      const open = opened[index]
      if (open) queues.set(queue, open)
    }
  },
  /** Round trips, so many at once. */
  pump: (queue: string, inFlight: number, ms: number): Promise<Pumped> =>
    trips.pump((payload) => queueOf(queue).submit(payload), inFlight, ms),
  /** Enqueues jobs, so many in a call, one call after the other. Returns jobs per second. */
  bulk: async (queue: string, calls: number, size: number): Promise<number> => {
    const { enqueue } = queueOf(queue)
    const batches = Array.from({ length: calls }, () => Array.from({ length: size }, () => trips.next()))
    const startedAt = performance.now()
    for (const batch of batches) await enqueue(batch)
    return (calls * size * 1000) / (performance.now() - startedAt)
  },
  /** Enqueues jobs whose payloads have so many bytes. */
  fill: async (queue: string, count: number, bytes: number): Promise<void> => {
    const { enqueue } = queueOf(queue)
    for (let from = 0; from < count; from += 1_000) {
      const size = Math.min(1_000, count - from)
      await enqueue(Array.from({ length: size }, (_, n) => payloadOf(from + n, bytes)))
    }
  },
  waiting: (queue: string): Promise<number> => queueOf(queue).waiting(),
  /** Submits jobs whose results are awaited. */
  submit: (queue: string, count: number, bytes?: number): void => {
    for (let n = 0; n < count; n++) awaitedOf(queue).submit(payloadOf(n, bytes))
  },
  /** Returns when so many jobs wait in Redis for a worker. */
  allWait: async (queue: string, count: number): Promise<void> => {
    await until(async () => (await queueOf(queue).waiting()) === count, {
      what: `${count} jobs to wait`,
      timeout: 20_000,
      every: 50,
    })
    // Whoever asks once more after having submitted has been answered by then.
    await sleep(300)
  },
  /** Submits one and the same job again and again, at even distances, from `at` of the shared clock on. */
  submitSame: async (queue: string, count: number, at: number, every: number): Promise<void> => {
    for (let n = 0; n < count; n++) {
      await sleep(Math.max(0, at + n * every - now()))
      awaitedOf(queue).submit(payloadOf(0))
    }
  },
  /** Lets this process stand still, once the first of the awaited results is here. */
  standStill: async (queue: string, ms: number): Promise<void> => {
    await awaitedOf(queue).any()
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms)
  },
  settled: (queue: string, within: number): Promise<Outcome> => awaitedOf(queue).settled(within),
  sleepInJobs: (ms: number): void => {
    task.sleeps = ms
  },
  shutGate: (): void => task.shutGate(),
  openGate: (): void => task.openGate(),
  /** Jobs run, and microseconds of CPU used, since the process began. */
  usage: (): { runs: number; cpu: number } => {
    const { user, system } = process.cpuUsage()
    return { runs: task.runs, cpu: user + system }
  },
}

export type QueueHandlers = typeof handlers

serve(handlers)
