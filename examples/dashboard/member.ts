// A process of the shop of examples/dashboard.ts. It ends with the process that has started it.
import { Shop } from './shop.ts'

const redis = process.env['REDIS_URL'] ?? ''
const shop = new Shop({ queues: { redis }, locker: { redis }, services: { redis } })
process.once('disconnect', async () => {
  await shop[Symbol.asyncDispose]()
  process.exit()
})
await shop.work()
shop.live()
