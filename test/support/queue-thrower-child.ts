// What a user's own callbacks throw: an uncaught exception of its own, and the queue goes on.

import { MemoryQueueStore, type QueueOptions, RedisQueue } from '../../src/index.ts'
import { emit, serve } from './process-child.ts'

process.on('uncaughtException', (error) => emit('uncaught', error.message))

function throwing(name: string): () => never {
  return () => {
    throw new Error(name)
  }
}

/** Runs jobs under listeners that throw. Returns what became of them. */
async function run(path: string | undefined): Promise<unknown> {
  const place: QueueOptions = path === undefined ? { store: new MemoryQueueStore() } : { redis: path }
  const [here, there] = [new RedisQueue('queue', place), new RedisQueue('queue', place)]
  for (const event of ['submitted', 'active', 'completed', 'retrying', 'failed'] as const) {
    here.on(event, throwing(event))
  }
  await here.watch(throwing('watch'))
  here.process('work', (n: number, job) => {
    job.progress(n)
    if (n < 0 || job.attempt < 2) throw new Error('x')
    return n
  })
  const options = { attempts: 2, onProgress: throwing('progress') }
  const results = await Promise.allSettled([1, 2, -1].map((n) => there.submit('work', n, options)))
  const enqueued = await here.enqueue('work', 3, { attempts: 2 })
  results.push(...(await Promise.allSettled([enqueued.result()])))
  await Promise.all([here.close(), there.close()])
  return results.map((result) => (result.status === 'fulfilled' ? result.value : result.reason.code))
}

const handlers = { run }
serve(handlers)

export type ThrowerHandlers = typeof handlers
