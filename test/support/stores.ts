import { test } from 'node:test'
import {
  type AnyJobs,
  type JobMap,
  MemoryQueueStore,
  type QueueOptions,
  RedisQueue,
} from '../../src/index.ts'
import type { RedisServer } from './redis-server.ts'
import { type Setup, setup } from './setup.ts'
import { until } from './wait.ts'

/** Where the queues of a test keep their jobs. */
export interface QueueWorld extends AsyncDisposable {
  readonly kind: 'memory' | 'redis'
  /** The server, and what reaches it; undefined in memory. */
  readonly t: Setup | undefined
  /** The options by which a queue finds them. */
  readonly place: Pick<QueueOptions, 'redis' | 'store'>
  /** One more queue of this name, as another process would have it. Closed at the end. */
  open<Jobs extends JobMap<Jobs> = AnyJobs>(options?: QueueOptions, name?: string): RedisQueue<Jobs>
}

const NAME = 'queue'

async function worldIn(kind: QueueWorld['kind']): Promise<QueueWorld> {
  const t = kind === 'redis' ? await setup() : undefined
  const place: QueueWorld['place'] = t ? { redis: t.redis } : { store: new MemoryQueueStore() }
  const queues: AsyncCloser[] = []
  return {
    kind,
    t,
    place,
    open<Jobs extends JobMap<Jobs> = AnyJobs>(options: QueueOptions = {}, name = NAME): RedisQueue<Jobs> {
      const queue = new RedisQueue<Jobs>(name, { ...place, ...options })
      queues.push(queue)
      return queue
    },
    async [Symbol.asyncDispose]() {
      await Promise.all(queues.map((queue) => queue.close({ grace: 0 })))
      await t?.[Symbol.asyncDispose]()
    },
  }
}

interface AsyncCloser {
  close(options: { grace: number }): Promise<void>
}

export async function onRedis(): Promise<
  QueueWorld & { readonly t: Setup & { readonly server: RedisServer } }
> {
  const world = await worldIn('redis')
  return world as QueueWorld & { readonly t: Setup & { readonly server: RedisServer } }
}

/** The same test twice: embedded, and on a Redis of its own. */
export function onBothStores(title: string, body: (world: QueueWorld) => Promise<void>): void {
  for (const kind of ['memory', 'redis'] as const) {
    test(`${title}, ${kind === 'memory' ? 'in memory' : 'on Redis'}`, async () => {
      await using world = await worldIn(kind)
      await body(world)
    })
  }
}

/**
 * Messages reach a queue. A worker that is there before offers its places twice, and may be given a job too many, which it
 * gives back: where the exact order matters, that must not happen.
 */
export async function subscribed(queue: RedisQueue): Promise<void> {
  await queue.counts()
  await until(() => queue.stats().subscribed, { what: 'the subscription' })
}

/** What a call was settled with: its value, or the error that it was rejected with. */
export async function outcomeOf(promise: Promise<unknown>): Promise<{ value?: unknown; error?: unknown }> {
  try {
    return { value: await promise }
  } catch (error) {
    return { error }
  }
}
