import { test } from 'node:test'
import { Locker, type LockerOptions, MemoryStore } from '../../src/index.ts'
import { type Setup, setup } from './setup.ts'
import { until } from './wait.ts'

/** Lockers that share their results, each as another process would have it. */
export interface LockerWorld extends AsyncDisposable {
  /** Undefined in memory. */
  readonly t: Setup | undefined
  /** One more locker; it hears messages. Closed at the end. */
  open(options?: LockerOptions): Promise<Locker>
}

export async function lockersIn(kind: 'memory' | 'redis'): Promise<LockerWorld> {
  const t = kind === 'redis' ? await setup() : undefined
  const place: LockerOptions = t ? { redis: t.redis } : { store: new MemoryStore() }
  const lockers: Locker[] = []
  return {
    t,
    async open(options = {}) {
      const locker = new Locker({ ...place, ...options })
      lockers.push(locker)
      await locker.peek('warm')
      await until(() => locker.stats().subscribed, { what: 'the subscription' })
      return locker
    },
    async [Symbol.asyncDispose]() {
      await Promise.all(lockers.map((locker) => locker.close({ grace: 0 })))
      await t?.[Symbol.asyncDispose]()
    },
  }
}

/** The same test embedded and on a Redis of its own, with in-process caches and without. */
export function onBoth(
  title: string,
  body: (world: LockerWorld, options: LockerOptions) => Promise<void>,
): void {
  for (const kind of ['memory', 'redis'] as const) {
    for (const cache of [undefined, false] as const) {
      const where = `${kind === 'memory' ? 'in memory' : 'on Redis'}${cache === false ? ', cache: false' : ''}`
      test(`${title}, ${where}`, async () => {
        await using world = await lockersIn(kind)
        await body(world, { cache })
      })
    }
  }
}

/** Resolves when the result of a key is over. */
export async function over(locker: Locker, key: string): Promise<void> {
  const isOver = async () => (await locker.peek(key)).status !== 'done'
  await until(isOver, { what: 'the end of the result', every: 5 })
}

/** What a promise was settled with within so many ms; 'pending' if it was not. */
export function soon<T>(promise: Promise<T>, ms = 400): Promise<T | 'pending'> {
  const late = new Promise<'pending'>((resolve) => setTimeout(resolve, ms, 'pending').unref())
  return Promise.race([promise, late])
}
