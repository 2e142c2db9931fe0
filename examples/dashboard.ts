// A gateway with its dashboard, before a shop that is busy.
//   npx tsx examples/dashboard.ts                                     within this process, nothing else needed
//   npx tsx examples/dashboard.ts --redis redis://localhost:6379      the shop has three processes
// In your program: import { createGateway } from 'soloflight/gateway'
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { fileURLToPath } from 'node:url'
import { bundleDashboard } from '../scripts/dashboard/bundle.ts'
import { takeAssetsFrom } from '../src/gateway/dashboard/assets.ts'
import { createGateway } from '../src/gateway/index.ts'
import { toNodeListener } from '../src/gateway/node.ts'
import { MemoryQueueStore, MemoryServices, MemoryStore } from '../src/index.ts'
import { Shop } from './dashboard/shop.ts'
import { redisUrl } from './queue/place.ts'

// In the package it is bundled already.
takeAssetsFrom(bundleDashboard)

const redis = redisUrl()
const stores = { queues: new MemoryQueueStore(), locker: new MemoryStore(), services: new MemoryServices() }
const place = redis
  ? { queues: { redis }, locker: { redis }, services: { redis } }
  : {
      queues: { store: stores.queues },
      locker: { store: stores.locker },
      services: { store: stores.services },
    }
const gateway = createGateway(
  redis
    ? { redis }
    : { redis: null, queueOptions: { store: stores.queues }, lockerOptions: { store: stores.locker } },
)
const port = Number(process.env['PORT'] ?? 5000)
const server = createServer(toNodeListener(gateway)).listen(port, '127.0.0.1')
await once(server, 'listening')

const shop = new Shop(place)
await shop.neglect()
const member = fileURLToPath(new URL('./dashboard/member.ts', import.meta.url))
const members = redis ? [1, 2, 3].map(() => fork(member, { env: { ...process.env, REDIS_URL: redis } })) : []
if (!redis) {
  await shop.work()
  shop.live()
}
console.log(`http://localhost:${(server.address() as AddressInfo).port} shows a busy shop; Ctrl-C ends it`)

for (const signal of ['SIGINT', 'SIGTERM'] as const)
  process.once(signal, async () => {
    for (const each of members) each.disconnect()
    await shop[Symbol.asyncDispose]()
    server.closeAllConnections()
    server.close()
    await gateway.close({ grace: 0 })
  })
