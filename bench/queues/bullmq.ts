import { type JobsOptions, Queue, QueueEvents, Worker } from 'bullmq'
import { Redis } from 'ioredis'
import { dedupeIdOf, type Payload } from './payload.ts'
import { CONCURRENCY, type OpenQueues } from './queue.ts'

/** Completed jobs that are kept. */
const KEPT = 1_000

/**
 * Queues and workers of one process share a client, as its documentation advises for many queues; what blocks has a
 * connection of its own all the same. Completed jobs are removed, but for the last ones: with `removeOnComplete: true`
 * one or two of a hundred awaited results are lost, to the error that the job is missing, and it is no faster.
 */
export const open: OpenQueues = async (address, terms, run) => {
  const connection = new Redis({ ...address, maxRetriesPerRequest: null })
  connection.on('error', () => {})
  return Promise.all(
    terms.map(async ({ queue: name, submits, works, deduplicated, lease, keeps = KEPT }) => {
      const queue = new Queue(name, { connection })
      const optionsFor = (payload: Payload): JobsOptions => ({
        removeOnComplete: keeps === 0 || { count: keeps },
        ...(deduplicated && { deduplication: { id: dedupeIdOf(payload) } }),
      })
      // Whoever awaits a result needs them.
      const events = submits ? new QueueEvents(name, { connection }) : undefined
      const worker = works
        ? new Worker(name, async ({ data }) => run(data), {
            connection,
            concurrency: CONCURRENCY,
            ...(lease !== undefined && { lockDuration: lease, stalledInterval: lease }),
          })
        : undefined
      for (const each of [queue, events, worker]) each?.on('error', () => {})
      await Promise.all([queue, events, worker].map((each) => each?.waitUntilReady()))
      return {
        submit: async (payload) => {
          if (!events) throw new Error('Expected a queue that submits')
          const job = await queue.add('add', payload, optionsFor(payload))
          return job.waitUntilFinished(events)
        },
        enqueue: (payloads) =>
          queue.addBulk(payloads.map((data) => ({ name: 'add', data, opts: optionsFor(data) }))),
        waiting: () => queue.getWaitingCount(),
      }
    }),
  )
}
