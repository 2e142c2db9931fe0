import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { Connection } from '../../src/index.ts'
import { newId } from '../../src/kernel/keys.ts'
import { systemClock } from '../../src/kernel/time.ts'
import type { LogStore } from '../../src/locker/stream/log/log-store.ts'
import { MemoryLogHub } from '../../src/locker/stream/log/memory-log-store.ts'
import { RedisLogStore } from '../../src/locker/stream/log/redis-log-store.ts'
import { setup } from '../support/setup.ts'
import { until } from '../support/wait.ts'

const PARTIES = 3
const LOGS = 2
const FOLLOWERS = 2
const UNAVAILABLE_AFTER = 5_000

/** One process, as a user of both stores. */
interface Party {
  connection: Connection
  memory: LogStore
  redis: LogStore
  nonces: string[]
  /** By follower, since the order among followers is unspecified. */
  heard: { memory: string[][]; redis: string[][] }
}

const nat = (max: number) => fc.nat({ max })
const place = { party: nat(PARTIES - 1), log: nat(LOGS - 1) }
// A message carries at most 64 KiB of chunks, a read returns at most 256 KiB.
const size = fc.oneof({ weight: 8, arbitrary: nat(30) }, fc.constantFrom(65_535, 65_536, 65_537, 150_000))
const operation = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      type: fc.constant('append' as const),
      ...place,
      sizes: fc.array(size, { minLength: 1, maxLength: 4 }),
      /** `from`, relative to the end of the log. */
      offset: fc.constantFrom(0, 0, 0, 0, -1, -2, 1),
      /** Number of earlier chunks that are not trimmed. */
      window: fc.constantFrom(undefined, undefined, undefined, 1, 3, 10),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      type: fc.constant('append' as const),
      ...place,
      sizes: fc.constantFrom(Array<number>(100).fill(1), Array<number>(200).fill(2)),
      offset: fc.constant(0),
      window: fc.constantFrom(undefined, 150),
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      type: fc.constant('read' as const),
      ...place,
      from: fc.oneof(nat(10), nat(400)),
      follower: fc.option(nat(FOLLOWERS - 1), { nil: undefined }),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      type: fc.constant('retain' as const),
      ...place,
      ms: fc.constantFrom(10_000, 90_000),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ type: fc.constant('discard' as const), ...place, force: fc.boolean() }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ type: fc.constant('unfollow' as const), ...place, follower: nat(FOLLOWERS - 1) }),
  },
)

/** Produces every kind of reply. */
const SHOWCASE: Operation[] = [
  { type: 'read', party: 1, log: 0, from: 0, follower: undefined },
  { type: 'append', party: 0, log: 0, sizes: Array<number>(200).fill(1), offset: 0, window: undefined },
  { type: 'read', party: 1, log: 0, from: 0, follower: 0 },
  { type: 'read', party: 1, log: 0, from: 150, follower: 0 },
  { type: 'append', party: 0, log: 0, sizes: [1], offset: 1, window: undefined },
  { type: 'append', party: 0, log: 0, sizes: [1], offset: 0, window: 3 },
  { type: 'read', party: 1, log: 0, from: 0, follower: 0 },
]

type Operation = typeof operation extends fc.Arbitrary<infer O> ? O : never

function shown(reply: unknown): string {
  const short = (_: string, value: { type?: string; data: number[] }) =>
    value?.type === 'Buffer' ? `${value.data.length}:${value.data.slice(0, 3)}` : value
  return JSON.stringify(reply, short) ?? ''
}

test('logs - on Redis as in memory: the same replies, messages and expiry', async () => {
  await using t = await setup()
  const client = await t.client()
  const connections = Array.from({ length: PARTIES }, () => new Connection(t.redis))
  await using _ = {
    async [Symbol.asyncDispose]() {
      await Promise.all(connections.map((connection) => connection.close()))
    },
  }
  for (const connection of connections)
    await connection.call({ send: (sender) => sender.send('hget', ['k', 'f']) }, UNAVAILABLE_AFTER)
  await until(() => connections.every(({ subscribed }) => subscribed), { what: 'the subscriptions' })
  let runs = 0
  const seen = new Set<string>()
  const noteReply = (reply: unknown) => {
    const { status, more, intact } = (reply ?? {}) as { status?: string; more?: boolean; intact?: boolean }
    if (intact !== undefined) seen.add(`intact ${intact}`)
    if (status) seen.add(status === 'read' ? `read ${more ? 'more' : 'to the end'}` : status)
  }

  await fc.assert(
    fc.asyncProperty(fc.array(operation, { maxLength: 40 }), async (operations) => {
      const run = runs++
      const logs = new MemoryLogHub(systemClock)
      const parties = connections.map((connection): Party => {
        const none = () => Array.from({ length: FOLLOWERS }, (): string[] => [])
        const heard = { memory: none(), redis: none() }
        const stores = { memory: logs.connect(), redis: new RedisLogStore(connection) as LogStore }
        const nonces = Array.from({ length: FOLLOWERS }, newId)
        for (const kind of ['memory', 'redis'] as const)
          for (const [at, nonce] of nonces.entries())
            stores[kind].listen(nonce, {
              onAppended: (from, chunks, length) => heard[kind][at]?.push(shown([from, chunks, length])),
            })
        return { connection, ...stores, nonces, heard }
      })
      const lengths = Array<number>(LOGS).fill(0)
      let byte = 0

      const apply = (
        store: LogStore,
        party: Party,
        operation: Operation,
        chunks: Buffer[],
      ): Promise<unknown> => {
        const name = `log:${run}:${operation.log}`
        const length = lengths[operation.log] as number
        switch (operation.type) {
          case 'append': {
            const from = Math.max(0, length + operation.offset)
            const trimBefore =
              operation.window === undefined ? 0 : Math.max(0, Math.min(from, length) - operation.window)
            const append = { from, chunks, trimBefore, retainFor: 30_000 }
            return store.append(name, append, UNAVAILABLE_AFTER)
          }
          case 'read': {
            const { from, follower } = operation
            const followerNonce = follower === undefined ? undefined : party.nonces[follower]
            return store.read(name, { from, followerNonce }, UNAVAILABLE_AFTER)
          }
          case 'retain':
            return store.retain(name, operation.ms, UNAVAILABLE_AFTER)
          case 'discard':
            return store.discard(name, operation.force, UNAVAILABLE_AFTER)
          case 'unfollow':
            return store.unfollow(name, party.nonces[operation.follower] as string, UNAVAILABLE_AFTER)
        }
      }

      for (const operation of operations) {
        const party = parties[operation.party] as Party
        const chunks =
          operation.type === 'append' ? operation.sizes.map((size) => Buffer.alloc(size, byte++ % 251)) : []
        const memory = await apply(party.memory, party, operation, chunks)
        const redis = await apply(party.redis, party, operation, chunks)
        assert.equal(shown(redis), shown(memory), shown(operation))
        noteReply(memory)
        const length = lengths[operation.log] as number
        if (operation.type === 'append' && (memory as { intact: boolean }).intact) {
          const from = Math.max(0, length + operation.offset)
          lengths[operation.log] = Math.max(length, from + chunks.length)
        }
        if (operation.type === 'discard' && memory === true) lengths[operation.log] = 0
      }

      for (const { connection, heard } of parties) {
        const marker = newId()
        const arrived = new Promise<void>((resolve) =>
          connection.inbox.listen(marker, { hint: () => resolve() }),
        )
        await client.publish(connection.inboxChannel, `1${marker}x`)
        await arrived
        connection.inbox.ignore(marker)
        assert.deepEqual(heard.redis, heard.memory)
      }
      for (let log = 0; log < LOGS; log++) {
        const name = `log:${run}:${log}`
        const left = await client.pttl(name)
        const found = logs.find(name)
        const expected = found ? found.expiresAt - systemClock.now() : -2
        assert.ok(Math.abs(left - expected) < 3_000, `${left} ms left, ${expected} in memory`)
      }
      for (const party of parties) for (const nonce of party.nonces) party.redis.ignore(nonce)
    }),
    { numRuns: 200, examples: [[SHOWCASE]] },
  )
  // Every kind of reply occurred.
  assert.deepEqual([...seen].sort(), [
    'intact false',
    'intact true',
    'missing',
    'read more',
    'read to the end',
    'trimmed',
  ])
})
