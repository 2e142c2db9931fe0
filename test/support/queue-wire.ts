import { type QueueOptions, RedisQueue, type RunningJob } from '../../src/index.ts'
import { QueueKeys } from '../../src/queue/store/redis/queue-calls.ts'
import { queueScripts } from '../../src/queue/store/redis/scripts/index.ts'
import type { TcpProxy } from './proxy.ts'
import type { RedisServer } from './redis-server.ts'
import { type Setup, setup } from './setup.ts'
import { until } from './wait.ts'

/** The name of the queue of a scene. */
export const NAME = 'wired'

/** Gives the server all scripts, so that each call of a queue is one command from the first on. */
export async function loadQueueScripts(server: RedisServer): Promise<void> {
  for (const { source } of Object.values(queueScripts)) await server.call('SCRIPT', 'LOAD', source)
}

/** What handlers did: who ran what, and how many at once. */
export class Runs {
  readonly all: { payload: unknown; id: string; fence: number }[] = []
  /** Handlers that run now, and the most that did. */
  now = 0
  most = 0
  /** What handlers wait for before they end. */
  hold: Promise<unknown> | undefined

  /** A handler that takes so long, ms, and answers its payload. */
  handler(ms = 0): (payload: unknown, job: RunningJob) => Promise<unknown> {
    return async (payload, { id, fence }) => {
      this.all.push({ payload, id, fence })
      this.now += 1
      this.most = Math.max(this.most, this.now)
      await this.hold
      if (ms > 0) await new Promise((resolve) => setTimeout(resolve, ms))
      this.now -= 1
      return payload
    }
  }

  /** How often a payload was run. */
  of(payload: unknown): number {
    return this.all.filter((run) => run.payload === payload).length
  }

  /** The payloads in the order of their runs. */
  get payloads(): unknown[] {
    return this.all.map(({ payload }) => payload)
  }
}

/** A server that has all scripts, and two processes, as far as it can tell, with the same queue. */
export interface WiredScene extends AsyncDisposable {
  t: Setup & { proxy: TcpProxy }
  /** Its wire can fail. */
  queue: RedisQueue
  /** On a sound wire. */
  other: RedisQueue
}

export async function wired(options: QueueOptions = {}): Promise<WiredScene> {
  const t = await setup({ proxy: true })
  await loadQueueScripts(t.server)
  const queue = new RedisQueue(NAME, { redis: t.redis, timeout: 15_000, ...options })
  const other = new RedisQueue(NAME, { redis: t.server.options, timeout: 15_000, ...options })
  const scene: WiredScene = {
    t,
    queue,
    other,
    async [Symbol.asyncDispose]() {
      await t.proxy.clear()
      await Promise.all([queue.close({ grace: 0 }), other.close({ grace: 0 })])
      await t[Symbol.asyncDispose]()
    },
  }
  try {
    await subscribed(queue, other)
  } catch (error) {
    await scene[Symbol.asyncDispose]()
    throw error
  }
  return scene
}

/** Connects all of them, and resolves when messages arrive. */
export async function subscribed(...queues: RedisQueue[]): Promise<void> {
  await Promise.all(queues.map((queue) => queue.ready()))
}

/**
 * Resolves when the server knows so many idle places of a command, at least: when an offer and a delivery cross, a place is
 * there twice, until its worker gives a job back for it.
 */
export async function idle(
  server: RedisServer,
  count: number,
  { command = 'work', queue = NAME, exactly = false } = {},
): Promise<void> {
  const [, places = ''] = new QueueKeys('soloflight', queue).command(command)
  const known = async () => Number(await server.call('LLEN', places))
  await until(async () => (exactly ? (await known()) === count : (await known()) >= count), {
    what: `${count} idle places of ${command}`,
  })
}

/** Resolves when nothing waits, is delayed or runs. */
export async function over(queue: RedisQueue, timeout = 10_000): Promise<void> {
  const isOver = async () => {
    const { waiting, delayed, active } = await queue.counts()
    return waiting + delayed + active === 0
  }
  await until(isOver, { what: 'nothing to be left to do', timeout })
}

/** All keys that the server has, each with its time to live: -1 when it has none. */
export async function keysOf(server: RedisServer): Promise<Map<string, number>> {
  const keys = ((await server.call('KEYS', '*')) as unknown[]).map(String)
  const lives = await Promise.all(keys.map((key) => server.call('PTTL', key)))
  return new Map(keys.map((key, index) => [key, Number(lives[index])]))
}
