import { type Locker, type RedisQueue, RemoteError, type RunOptions } from 'soloflight'
import { Bus, type Queue } from 'soloflight/bus'
import { TimeoutError } from 'soloflight/errors'
import { Connection } from 'soloflight/kernel'
import { Locker as LockerOfLocker, type WorkContext } from 'soloflight/locker'
import { HttpCache } from 'soloflight/memoize'
import { memoizeHandler as memoizeFetch } from 'soloflight/memoize/fetch'
import { memoizeHandler } from 'soloflight/memoize/node'
import { RedisQueue as RedisQueueOfQueue } from 'soloflight/queue'
import { type Call, Services } from 'soloflight/services'

const connection = new Connection('redis://localhost:6379')
const options: RunOptions = { ttl: 1_000 }
export const locker: Locker = new LockerOfLocker({ redis: connection })
export const queue: RedisQueue = new RedisQueueOfQueue('jobs', { redis: connection })
export const result: Promise<number> = locker.run('key', async ({ fence }: WorkContext) => fence, options)
export const adapters = [
  new HttpCache(locker),
  memoizeHandler(locker),
  memoizeFetch(locker, {}, () => new Response()),
]

interface Sums {
  add(a: number, b: number): number
}
export const services = new Services({ redis: connection })
export async function serve(): Promise<number> {
  const sums = await services.register<Sums>('sums', { capacity: 10 })
  sums.on('add', (a, b, call: Call) => a + b + call.attempt - 1)
  return services.require<Sums>('sums').emit('add', 1, 2)
}

export const bus = new Bus({ redis: [connection] })
export const greetings: Queue<string> = bus.queue<string>('greetings')

export function reasonOf(error: unknown): string | undefined {
  if (error instanceof RemoteError) return error.remote.name
  return error instanceof TimeoutError ? error.key : undefined
}

// @ts-expect-error The types are those of the package, and no `any`.
locker.run(42)
// @ts-expect-error The contract has no such event.
services.require<Sums>('sums').emit('subtract', 1, 2)
// @ts-expect-error Messages of this queue are texts.
greetings.push(42)
