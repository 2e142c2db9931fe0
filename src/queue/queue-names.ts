import { expectedError } from '../kernel/options.ts'
import { connectionFor } from '../kernel/redis/connection.ts'
import { type QueueNamesOptions, resolveNamesOptions } from './options.ts'
import { QueueRegister } from './store/redis/queue-register.ts'

/** See `RedisQueue.names`. */
export async function namesOfQueues(given: QueueNamesOptions): Promise<string[]> {
  const { prefix, unavailableAfter } = resolveNamesOptions(given)
  const { redis, store } = given
  if (!redis && !store) throw expectedError('redis', 'a Redis server', redis)
  const link = connectionFor({ redis, store }, 'RedisQueue')
  if (!link) return store?.queueNames() ?? []
  try {
    return await new QueueRegister(link.connection, prefix).names(unavailableAfter)
  } finally {
    await link.release()
  }
}
