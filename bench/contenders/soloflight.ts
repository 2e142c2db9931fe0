import { library } from '../library.ts'
import type { Open } from './contender.ts'

export const open: Open = async ({ layers, host, port, prefix, ttl, max, lease, work }) => {
  const { Locker } = await library()
  const locker = new Locker({
    ...(layers !== 'memory' && { redis: { host, port } }),
    prefix,
    ttl,
    lease,
    cache: layers === 'redis' ? false : { max },
  })
  const compute = ({ key }: { key: string }) => work(key)
  return {
    get: (key) => locker.run(key, compute),
    close: () => locker.close(),
  }
}
