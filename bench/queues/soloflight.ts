import { library } from '../library.ts'
import { CONCURRENCY, type OpenQueues } from './queue.ts'

type Jobs = { add: (numbers: number[]) => number }

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
    const options = deduplicated ? {} : ({ dedupe: false } as const)
    return {
      submit: (payload) => queue.submit('add', payload, options),
      enqueue: (payloads) =>
        queue.enqueueMany(payloads.map((payload) => ({ command: 'add', payload, options }))),
      waiting: async () => (await queue.counts()).waiting,
    }
  })
}
