import { expectedError } from '../kernel/options.ts'
import { connectionFor } from '../kernel/redis/connection.ts'
import { type QueueNamesOptions, resolveNamesOptions } from './options.ts'
import { QueueRegister } from './store/redis/queue-register.ts'
import { type ListedQueues, MAX_QUEUES } from './store/register.ts'

/** See `RedisQueue.names`. */
export async function namesOfQueues(given: QueueNamesOptions): Promise<string[]> {
  return (await listQueues(given)).names
}

/** The queues that were used last, up to `limit`, and the number of all. @throws as `RedisQueue.names` */
export async function listQueues(
  given: QueueNamesOptions,
  limit: number = MAX_QUEUES,
): Promise<ListedQueues> {
  const { prefix, unavailableAfter } = resolveNamesOptions(given)
  const { redis, store } = given
  if (!redis && !store) throw expectedError('redis', 'a Redis server', redis)
  const link = connectionFor({ redis, store }, 'RedisQueue')
  if (!link) {
    const names = store?.queueNames() ?? []
    return { names: names.slice(0, limit), count: names.length }
  }
  try {
    return await new QueueRegister(link.connection, prefix).list(limit, unavailableAfter)
  } finally {
    await link.release()
  }
}
