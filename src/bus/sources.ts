import type { BackendOptions } from '../kernel/redis/connection.ts'
import type { BusOptions, InstanceSource } from './options.ts'
import { RedisInstance } from './store/redis/redis-instance.ts'

/** The instances that the options of a bus name. */
export interface Sources {
  readonly making: readonly RedisInstance[]
  readonly existingOnly: readonly RedisInstance[]
}

/** Does not connect. Undefined without Redis. @throws TypeError if a source is invalid, or two have the same name. */
export function instancesOf(given: BusOptions, prefix: string): Sources | undefined {
  const { redis, existingOnly = [] } = given
  const made: RedisInstance[] = []
  const connect = (options: BackendOptions): RedisInstance[] => {
    const instance = RedisInstance.for(options, prefix)
    if (!instance) return []
    const isKnown = made.some(({ name }) => name === instance.name)
    made.push(instance)
    if (isKnown) throw new TypeError(`Expected different instances in \`redis\`, got ${instance.name} twice`)
    return [instance]
  }
  const connectAll = (sources: readonly InstanceSource[]) =>
    sources.flatMap((source) => connect({ ...given, redis: source }))
  try {
    const making = isList(redis) ? connectAll(redis) : connect(given as BackendOptions)
    return making.length === 0 ? undefined : { making, existingOnly: connectAll(existingOnly) }
  } catch (error) {
    for (const instance of made) void instance.close()
    throw error
  }
}

function isList(redis: BusOptions['redis']): redis is readonly InstanceSource[] {
  return Array.isArray(redis)
}
