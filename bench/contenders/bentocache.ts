import { BentoCache, bentostore } from 'bentocache'
import { memoryDriver } from 'bentocache/drivers/memory'
import { redisBusDriver, redisDriver } from 'bentocache/drivers/redis'
import type { Open } from './contender.ts'

export const open: Open = async ({ layers, host, port, prefix, ttl, max, work }) => {
  const connection = { host, port }
  let store = bentostore()
  if (layers !== 'redis') store = store.useL1Layer(memoryDriver({ maxItems: max }))
  if (layers !== 'memory') store = store.useL2Layer(redisDriver({ connection }))
  if (layers === 'both') store = store.useBus(redisBusDriver({ connection }))
  const bento = new BentoCache({ default: 'values', prefix, ttl, stores: { values: store } })
  return {
    get: (key) => bento.getOrSet({ key, factory: () => work(key) }),
    close: () => bento.disconnectAll(),
  }
}
