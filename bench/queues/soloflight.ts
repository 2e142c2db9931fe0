import { library } from '../library.ts'
import type { Payload } from './payload.ts'
import { CONCURRENCY, type OpenQueues } from './queue.ts'

/** How long a submitter waits at most, ms. */
const TIMEOUT = 30_000

type Jobs = { add: (payload: Payload) => number }

export const open: OpenQueues = async (address, terms, run) => {
  const { Connection, RedisQueue } = await library()
  const connection = new Connection(address)
  return terms.map(({ queue: name, works, deduplicated, lease }) => {
    const queue = new RedisQueue<Jobs>(name, {
      redis: connection,
      ...(lease !== undefined && { lease }),
    })
    if (works) {
      queue.process('add', async (payload) => run(payload), { concurrency: CONCURRENCY })
    }
    const dedupe = deduplicated ? {} : ({ dedupe: false } as const)
    return {
      submit: (payload) => queue.submit('add', payload, { timeout: TIMEOUT, ...dedupe }),
      enqueue: (payloads) =>
        queue.enqueueMany(payloads.map((payload) => ({ command: 'add', payload, options: { ...dedupe } }))),
      waiting: async () => (await queue.counts()).waiting,
    }
  })
}
