// Versions of tags, and reads without a claim, in both stores.

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { MemoryStore } from '../../src/index.ts'
import { newId } from '../../src/kernel/keys.ts'
import type { RedisSource } from '../../src/kernel/redis/client.ts'
import { Connection } from '../../src/kernel/redis/connection.ts'
import type { Clock } from '../../src/kernel/time.ts'
import { RedisStore } from '../../src/locker/store/redis/redis-store.ts'
import type { Claim, ClaimReply, Settlement, Store } from '../../src/locker/store/store.ts'
import { RedisCluster } from '../support/cluster.ts'
import { Child } from '../support/process.ts'
import { emit, serve } from '../support/process-child.ts'
import { type Setup, setup } from '../support/setup.ts'
import { until } from '../support/wait.ts'

const WITHIN = 5000
const A = 'soloflight:1:t/a'
const B = 'soloflight:1:t/b'

/** The handlers of this file as a child process. */
const handlers = {
  /** Reports every new version of a tag. */
  listen: async (path: string): Promise<void> => {
    const connection = new Connection(path)
    const store = new RedisStore(connection)
    store.listen({
      up() {},
      down() {},
      invalidated() {},
      tagInvalidated: (tag, version) => emit('tagInvalidated', { tag, version }),
    })
    await store.tagVersions([A], 0, WITHIN)
    await until(() => store.subscribed, { what: 'the subscription' })
  },
}

/** The new versions of tags that a process hears of. */
function heardBy(store: Store): { tag: string; version: number }[] {
  const heard: { tag: string; version: number }[] = []
  store.listen({
    up() {},
    down() {},
    invalidated() {},
    tagInvalidated: (tag, version) => heard.push({ tag, version }),
  })
  return heard
}

interface World extends AsyncDisposable {
  /** One more client of the store, whose subscription is established. */
  open(): Promise<Store>
  readonly t: Setup | undefined
}

async function inMemory(): Promise<World> {
  const memory = new MemoryStore()
  return { t: undefined, open: async () => memory.connect(), async [Symbol.asyncDispose]() {} }
}

async function storeOn(connection: Connection): Promise<Store> {
  const store = new RedisStore(connection)
  await store.tagVersions([A], 0, WITHIN)
  await until(() => store.subscribed, { what: 'the subscription', every: 1 })
  return store
}

async function onRedis(): Promise<World & { t: Setup }> {
  const t = await setup()
  const connections: Connection[] = []
  return {
    t,
    open() {
      const connection = new Connection(t.redis)
      connections.push(connection)
      return storeOn(connection)
    },
    async [Symbol.asyncDispose]() {
      for (const connection of connections) await connection.close()
      await t[Symbol.asyncDispose]()
    },
  }
}

function onBoth(title: string, body: (world: World) => Promise<void>): void {
  for (const [kind, make] of Object.entries({ 'in memory': inMemory, 'on Redis': onRedis })) {
    test(`${title}, ${kind}`, async () => {
      await using world = await make()
      await body(world)
    })
  }
}

/** Stores a value under a key, by a grant of its own. */
async function keep(store: Store, key: string, kept: Partial<Settlement> = {}): Promise<void> {
  const grant = { record: key, nonce: newId(), attempt: 1 }
  const wants = {
    afterFence: 0,
    parkedFence: 0,
    refresh: true,
    takeover: true,
    maxStaleness: 0,
    acceptStaleWhileHeld: 0,
  }
  const claim: Claim = {
    ...grant,
    ...wants,
    lease: 1000,
    allowBypass: false,
    expectedFence: 0,
    waitOnly: false,
    trace: '',
  }
  const reply = await new Promise<ClaimReply>((claimed, claimFailed) => {
    store.claim(claim, 5000, { sending() {}, claimed, claimFailed, notice() {} })
  })
  assert.ok(reply.status === 'granted', `the claim of ${key} was answered '${reply.status}'`)
  const terms = {
    ttl: 60_000,
    keepStale: 0,
    tags: '',
    outcomeRetention: 1,
    bypassFor: 0,
    bytes: Buffer.from(key),
    ...kept,
  }
  const settlement: Settlement = { ...grant, kind: 'value', fence: reply.fence, ...terms }
  assert.deepEqual(await store.settle(settlement, WITHIN), { accepted: true, invalidated: false })
}

/** A clock that is set by hand. */
class SetClock implements Clock {
  time = 1000
  now = (): number => this.time
  after = () => ({ cancel() {} })
}

function tests(): void {
  onBoth('S4 tags - a tag without a version has version 0, and reading it makes none', async (world) => {
    const [one, other] = [await world.open(), await world.open()]
    assert.deepEqual(await one.tagVersions([A, B], 0, WITHIN), [0, 0])
    await other.tagVersions([B], 60_000, WITHIN)
    const [a, b] = await one.tagVersions([A, B], 0, WITHIN)
    assert.deepEqual([a, (b ?? 0) > 0], [0, true])
  })

  onBoth('S4 tags - every process reads the same version until the tag is invalidated', async (world) => {
    const [one, other] = [await world.open(), await world.open()]
    const [first] = await one.tagVersions([A], 60_000, WITHIN)
    assert.ok(Number.isSafeInteger(first) && (first ?? 0) > 0, `version ${first}`)
    assert.deepEqual(await other.tagVersions([A, B, A], 60_000, WITHIN), [
      first,
      (await one.tagVersions([B], 0, WITHIN))[0],
      first,
    ])
    assert.deepEqual(await one.tagVersions([A], 0, WITHIN), [first])
  })

  onBoth('S4 tags - an invalidation makes a later version, and all processes hear of it', async (world) => {
    const [one, other] = [await world.open(), await world.open()]
    const heard = [heardBy(one), heardBy(other)]
    const [before = 0, untouched] = await one.tagVersions([A, B], 60_000, WITHIN)
    await one.invalidateTag(A, WITHIN)
    const [after = 0, still] = await other.tagVersions([A, B], 0, WITHIN)
    assert.ok(after > before, `${before}, then ${after}`)
    assert.equal(still, untouched)
    await until(() => heard.every(({ length }) => length === 1), { what: 'both to be told' })
    assert.deepEqual(heard, Array(2).fill([{ tag: A, version: after }]))
  })

  onBoth(
    'S4 tags - an invalidation makes no version where there is none, but all processes hear of it',
    async (world) => {
      const store = await world.open()
      const heard = heardBy(store)
      await store.invalidateTag(A, WITHIN)
      assert.deepEqual(await store.tagVersions([A], 0, WITHIN), [0])
      await until(() => heard.length === 1, { what: 'the message' })
      // Versions that were stored before are older than the next one.
      const [next = 0] = await store.tagVersions([A], 60_000, WITHIN)
      assert.ok(next >= (heard[0]?.version ?? Number.POSITIVE_INFINITY), `${next} after ${heard[0]?.version}`)
    },
  )

  onBoth(
    'S4 tags - concurrent invalidations make as many versions, each later than the one before',
    async (world) => {
      const [one, other] = [await world.open(), await world.open()]
      const heard = heardBy(one)
      const [first = 0] = await one.tagVersions([A], 60_000, WITHIN)
      await Promise.all(Array.from({ length: 50 }, (_, at) => [one, other][at % 2]?.invalidateTag(A, WITHIN)))
      await until(() => heard.length === 50, { what: 'the messages' })
      const versions = [first, ...heard.map(({ version }) => version)]
      for (const [at, version] of versions.entries())
        assert.ok(at === 0 || version > (versions[at - 1] ?? 0), `${version} after ${versions[at - 1]}`)
      assert.deepEqual(await other.tagVersions([A], 0, WITHIN), [versions.at(-1)])
    },
  )

  onBoth('readFresh - returns a value while it is fresh, with its tags', async (world) => {
    const store = await world.open()
    assert.equal(await store.readFresh('none', WITHIN), undefined)
    await keep(store, 'plain', { keepStale: 5000 })
    await keep(store, 'tagged', { tags: `7 ${A}\n8 ${B}` })
    await keep(store, 'over', { ttl: 0, keepStale: 60_000 })
    await keep(store, 'unkept', { kind: 'unstored' })
    const found = await store.readFresh('tagged', WITHIN)
    assert.deepEqual([found?.bytes.toString(), found?.tags], ['tagged', `7 ${A}\n8 ${B}`])
    const plain = await store.readFresh('plain', WITHIN)
    assert.deepEqual(
      [plain?.kind, plain?.invalidated, Math.round(plain?.staleLeft ?? 0)],
      ['value', false, 5000],
    )
    assert.ok(plain && plain.ttlLeft > 50_000 && plain.ttlLeft <= 60_000, `fresh for ${plain?.ttlLeft}`)
    for (const key of ['over', 'unkept']) assert.equal(await store.readFresh(key, WITHIN), undefined)
    await store.invalidate('plain', WITHIN)
    assert.equal(await store.readFresh('plain', WITHIN), undefined)
  })

  test('S4 tags - a version is kept for the longest time that was asked for, in memory', async () => {
    const clock = new SetClock()
    const store = new MemoryStore({ clock }).connect()
    const [first] = await store.tagVersions([A], 1000, WITHIN)
    await store.tagVersions([A], 100, WITHIN)
    clock.time += 999
    assert.deepEqual(await store.tagVersions([A], 0, WITHIN), [first])
    await store.tagVersions([A], 1000, WITHIN)
    clock.time += 999
    await store.invalidateTag(A, WITHIN)
    const [second = 0] = await store.tagVersions([A], 0, WITHIN)
    assert.ok(second > (first ?? 0), `${first}, then ${second}`)
    clock.time += 1
    assert.deepEqual(await store.tagVersions([A], 0, WITHIN), [0], 'an invalidation does not extend it')
  })

  test('S4 tags - versions grow although the clock stands still or goes back, in memory', async () => {
    const clock = new SetClock()
    const store = new MemoryStore({ clock }).connect()
    let [last = 0] = await store.tagVersions([A], 60_000, WITHIN)
    for (const step of [0, 0, -500]) {
      clock.time += step
      await store.invalidateTag(A, WITHIN)
      const [next = 0] = await store.tagVersions([A], 0, WITHIN)
      assert.ok(next > last, `${last}, then ${next}`)
      last = next
    }
  })

  test('S4 tags - a version is kept for the longest time that was asked for, on Redis', async () => {
    await using world = await onRedis()
    const client = await world.t.client()
    const store = await world.open()
    await store.tagVersions([A], 60_000, WITHIN)
    await store.tagVersions([A], 5000, WITHIN)
    const kept = await client.pttl(A)
    assert.ok(kept > 50_000 && kept <= 60_000, `kept for ${kept} ms`)
    await store.tagVersions([A, B], 90_000, WITHIN)
    for (const tag of [A, B]) assert.ok((await client.pttl(tag)) > 80_000, 'prolonged')
    await store.invalidateTag(A, WITHIN)
    const left = await client.pttl(A)
    assert.ok(left > 80_000 && left <= 90_000, `after the invalidation for ${left} ms`)
    await client.pexpire(A, 20)
    await until(async () => (await store.tagVersions([A], 0, WITHIN))[0] === 0, { what: 'its end' })
  })

  test('S4 tags - a version that is ahead of the clock still grows, on Redis', async () => {
    await using world = await onRedis()
    const client = await world.t.client()
    const store = await world.open()
    await client.set(A, String(2 ** 53 - 10), 'PX', 60_000)
    await store.invalidateTag(A, WITHIN)
    assert.deepEqual(await store.tagVersions([A], 0, WITHIN), [2 ** 53 - 9])
  })

  test('S4 tags - another process hears of an invalidation at once, on Redis', async () => {
    await using world = await onRedis()
    const store = await world.open()
    await using child = await Child.fork<typeof handlers>(new URL(import.meta.url), { args: ['child'] })
    await child.call('listen', world.t.url)
    await store.tagVersions([A], 60_000, WITHIN)
    await store.invalidateTag(A, WITHIN)
    const [version] = await store.tagVersions([A], 0, WITHIN)
    assert.deepEqual(await child.next('tagInvalidated'), { tag: A, version })
  })

  test('S4 tags - an invalidation that cannot be broadcast fails, on Redis', async () => {
    await using world = await onRedis()
    const store = await world.open()
    const [before = 0] = await store.tagVersions([A], 60_000, WITHIN)
    await world.t.server.call('ACL', 'SETUSER', 'default', 'resetchannels')
    await assert.rejects(store.invalidateTag(A, WITHIN), { code: 'E_UNAVAILABLE' })
    await world.t.server.call('ACL', 'SETUSER', 'default', 'allchannels')
    const [after = 0] = await store.tagVersions([A], 0, WITHIN)
    assert.ok(after > before, 'there is a new version all the same')
  })

  test('S4 tags - malformed messages are ignored, on Redis', async () => {
    await using world = await onRedis()
    const client = await world.t.client()
    const connection = new Connection(world.t.redis)
    const store = await storeOn(connection)
    const heard = heardBy(store)
    const drops: string[] = []
    store.listen({ up() {}, down() {}, invalidated: (key) => drops.push(key), tagInvalidated() {} })
    const garbage = [
      '',
      '1',
      '1t',
      '1t1',
      '1t1 ',
      `1tx ${A}`,
      `1t12345678901234567 ${A}`,
      `2t1 ${A}`,
      `1tt1 ${A}`,
    ]
    for (const message of garbage) await client.publish(connection.broadcastChannel, message)
    await client.publish(connection.broadcastChannel, `1t17 ${A}\n x`)
    await until(() => heard.length, { what: 'the last message' })
    assert.deepEqual([heard, drops], [[{ tag: `${A}\n x`, version: 17 }], []])
    await connection.close()
  })

  test('S4 tags - a malformed version counts as none, on Redis', async () => {
    await using world = await onRedis()
    const client = await world.t.client()
    const store = await world.open()
    await client.set(A, 'garbage', 'PX', 60_000)
    const [version = 0] = await store.tagVersions([A], 0, WITHIN)
    assert.ok(!(version > 0), `version ${version}`)
    await store.invalidateTag(A, WITHIN)
    const [next = 0] = await store.tagVersions([A], 0, WITHIN)
    assert.ok(next > 0, `version ${next}`)
  })

  test('readFresh - a key of another type fails alone, on Redis', async () => {
    await using world = await onRedis()
    const client = await world.t.client()
    const store = await world.open()
    await keep(store, 'before')
    await keep(store, 'after')
    await client.set('list', 'x')
    const found = await Promise.allSettled(
      ['before', 'list', 'after'].map((key) => store.readFresh(key, WITHIN)),
    )
    assert.deepEqual(
      found.map((each) => (each.status === 'fulfilled' ? each.value?.bytes.toString() : each.reason.code)),
      ['before', 'E_UNAVAILABLE', 'after'],
    )
  })

  test('L5 tags - no key is left when a version has expired, on Redis', async () => {
    await using world = await onRedis()
    const client = await world.t.client()
    const store = await world.open()
    await store.tagVersions([A, B], 30, WITHIN)
    await store.invalidateTag(A, WITHIN)
    await sleep(30) // by the server's clock
    await until(async () => (await client.dbsize()) === 0, { what: 'an empty database' })
  })

  describe('cluster', () => {
    test('S4 tags - tags and keys of many slots are read and invalidated, each where it is', async () => {
      await using cluster = await RedisCluster.start()
      const source = (await cluster.client()) as RedisSource
      const connection = new Connection(source)
      const store = await storeOn(connection)
      const heard = heardBy(store)
      const names = Array.from({ length: 20 }, (_, at) => `${A}${at}`)
      const nodes = new Set(
        await Promise.all(names.map(async (name) => cluster.ownerOf(await cluster.slotOf(name)))),
      )
      assert.ok(nodes.size > 1, 'tags of several nodes')
      const before = await store.tagVersions(names, 60_000, WITHIN)
      await Promise.all(names.map((name) => store.invalidateTag(name, WITHIN)))
      const after = await store.tagVersions(names, 0, WITHIN)
      for (const [at, version] of after.entries())
        assert.ok(version > (before[at] ?? 0), `${names[at]} has moved on`)
      await until(() => heard.length === names.length, { what: 'all messages' })
      assert.deepEqual(new Set(heard.map(({ tag }) => tag)), new Set(names))
      const keys = names.map((name) => `key of ${name}`)
      await Promise.all(keys.map((key) => keep(store, key)))
      const found = await Promise.all([...keys, 'none'].map((key) => store.readFresh(key, WITHIN)))
      assert.deepEqual(
        Array.from(found, (outcome) => outcome?.bytes.toString()),
        [...keys, undefined],
      )
      await connection.close()
    })
  })
}

if (process.argv.includes('child')) serve(handlers)
else tests()
