import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Connection, Lease, Locker, type LockerOptions, MemoryStore } from '../../src/index.ts'
import { newId, recordKey } from '../../src/kernel/keys.ts'
import { RedisStore } from '../../src/locker/store/redis/redis-store.ts'
import { type Setup, setup } from './setup.ts'
import { until } from './wait.ts'

export { EPSILON } from './wait.ts'

/** Lockers on one store. Each stands for a process. */
export interface LockerWorld extends AsyncDisposable {
  /** Undefined in memory. */
  readonly t: Setup | undefined
  /** One more locker. Closed at the end. */
  create(options?: LockerOptions): Locker
  /** One more locker, after it has subscribed. Closed at the end. */
  open(options?: LockerOptions): Promise<Locker>
  /** How many flights are parked on a record, also while nobody holds its lease. */
  parks(key: string): Promise<number>
  /** Deletes a record, and its lease, without any message. */
  lose(key: string): Promise<unknown>
  /** A process claims a key and is never heard of again. */
  dieHolding(key: string, lease: number): Promise<void>
}

export async function lockersIn(kind: 'memory' | 'redis'): Promise<LockerWorld> {
  const t = kind === 'redis' ? await setup() : undefined
  const memory = new MemoryStore()
  const place: LockerOptions = t ? { redis: t.redis } : { store: memory }
  const lockers: Locker[] = []
  const create = (options: LockerOptions = {}) => {
    const locker = new Locker({ ...place, ...options })
    lockers.push(locker)
    return locker
  }
  return {
    t,
    create,
    async open(options) {
      const locker = create(options)
      await locker.peek('warm')
      await until(() => locker.stats().subscribed, { what: 'the subscription' })
      return locker
    },
    async parks(key) {
      const record = recordKey('soloflight', key)
      if (t) return Number((await t.server.call('HGET', record, 'n')) ?? 0)
      return memory.find(record)?.parks.size ?? 0
    },
    async lose(key) {
      const record = recordKey('soloflight', key)
      if (t) return t.server.call('DEL', record)
      return memory.apply(record, (found) => {
        found.lease = undefined
        found.expiresAt = 0
      })
    },
    async dieHolding(key, lease) {
      const connection = t && new Connection(t.redis)
      const store = connection ? new RedisStore(connection) : memory.connect()
      await new Promise<void>((resolve, reject) => {
        const claimer = { sending() {}, claimed: () => resolve(), claimFailed: reject, notice() {} }
        const claim = {
          record: recordKey('soloflight', key),
          nonce: newId(),
          attempt: 1,
          lease,
          afterFence: 0,
          parkedFence: 0,
          refresh: false,
          takeover: true,
          maxStaleness: 0,
          acceptStaleWhileHeld: 0,
          allowBypass: true,
          expectedFence: 0,
          waitOnly: false,
          trace: '',
        }
        store.claim(claim, 5000, claimer)
      })
      await connection?.close()
    },
    async [Symbol.asyncDispose]() {
      await Promise.all(lockers.map((locker) => locker.close({ grace: 0 })))
      await t?.[Symbol.asyncDispose]()
    },
  }
}

/** Runs the same test in memory and on a private Redis. */
export function inBothStores(title: string, body: (world: LockerWorld) => Promise<void>): void {
  for (const kind of ['memory', 'redis'] as const) {
    test(`${title}, ${kind === 'memory' ? 'in memory' : 'on Redis'}`, async () => {
      await using world = await lockersIn(kind)
      await body(world)
    })
  }
}

/** Runs the same test in memory and on a private Redis, with the cache of the process and without. */
export function withAndWithoutCache(
  title: string,
  body: (world: LockerWorld, options: LockerOptions) => Promise<void>,
): void {
  inBothStores(title, (world) => body(world, { cache: undefined }))
  inBothStores(`${title}, cache: false`, (world) => body(world, { cache: false }))
}

/** The lease of a key that is free. */
export async function leaseOf(locker: Locker, key = 'k', lease?: number): Promise<Lease> {
  const reply = await locker.request(key, { lease })
  assert.ok(reply instanceof Lease, `${key} was not granted`)
  return reply
}

/** Resolves when `count` processes are parked on the key, as the observer sees it. */
export async function parked(observer: Locker, key = 'k', count = 1): Promise<void> {
  const isParked = async () => ((await observer.peek(key)).lock?.parked ?? 0) === count
  await until(isParked, { what: `${count} processes to be parked on ${key}` })
}

/** Resolves when the result of a key has expired. */
export async function expired(locker: Locker, key: string): Promise<void> {
  const isExpired = async () => (await locker.peek(key)).status !== 'done'
  await until(isExpired, { what: 'the result to expire' })
}
