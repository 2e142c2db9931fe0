import type { Payload } from './payload.ts'

/** Where Redis listens. */
export interface Address {
  host: string
  port: number
}

/** What one process does with a queue. */
export interface QueueTerms {
  queue: string
  /** Jobs are submitted, and results awaited. */
  submits: boolean
  /** Jobs are run. */
  works: boolean
  /** Submissions with the same payload share one job, where the queue has such a thing. */
  deduplicated: boolean
  /** How long a worker that gives no sign of life keeps its jobs, ms. @default what the queue's own is */
  lease?: number
  /** Completed jobs that are kept, where they need not be. @default what no awaited result is lost with */
  keeps?: number
}

/** Jobs that a worker runs at once: as many as are in flight. */
export const CONCURRENCY = 50

/** Runs a job. */
export type Run = (payload: Payload) => number | Promise<number>

/** One library's queue, used as its documentation says. */
export interface BenchQueue {
  /** The result of a job that is submitted now. */
  submit(payload: Payload): Promise<unknown>
  /** Submits jobs whose results nobody awaits. */
  enqueue(payloads: readonly Payload[]): Promise<unknown>
  /** How many jobs wait for a worker. */
  waiting(): Promise<number>
}

/** Opens the queues that one process uses, on as few connections as the library makes do with. */
export type OpenQueues = (
  address: Address,
  terms: readonly QueueTerms[],
  run: Run,
) => Promise<readonly BenchQueue[]>
