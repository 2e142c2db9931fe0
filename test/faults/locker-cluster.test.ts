import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { Cluster } from 'ioredis'
import { Cluster as Cluster5 } from 'ioredis5'
import { Lease, Locker, type LockerOptions, UnavailableError } from '../../src/index.ts'
import { type ClusterClientOptions, RedisCluster } from '../support/cluster.ts'
import { EPSILON, leaseOf, parked } from '../support/lockers.ts'
import { Child } from '../support/process.ts'
import { serve } from '../support/process-child.ts'
import type { RedisServer } from '../support/redis-server.ts'
import { timed, until } from '../support/wait.ts'

type Nodes = { host: string; port: number }[]

/** The handlers of this file when a test starts it as another process. */
const handlers = {
  /** Runs works for the keys and returns how many ran in this process. */
  work: async (nodes: Nodes, keys: string[]): Promise<{ works: number; results: unknown[] }> => {
    await using locker = lockerOn(new Cluster(nodes))
    let works = 0
    const results = await Promise.all(
      keys.map((key) =>
        locker.run(key, async () => {
          works += 1
          return `${key} is done`
        }),
      ),
    )
    return { works, results }
  },
  /** Takes a lease and never settles it. */
  hold: async (nodes: Nodes, keyPrefix: string, key: string): Promise<number> => {
    const ticket = await lockerOn(new Cluster(nodes, { keyPrefix }), { lease: 1000 }).request(key)
    return ticket instanceof Lease ? ticket.fence : 0
  },
}

function lockerOn(redis: NonNullable<LockerOptions['redis']>, options: LockerOptions = {}): Locker {
  return new Locker({ redis, lease: 2000, timeout: 15_000, cache: false, ...options })
}

function child(): Promise<Child<typeof handlers>> {
  return Child.fork<typeof handlers>(new URL(import.meta.url), { args: ['child'] })
}

/** A cluster that serves its other slots when a node is lost. */
async function partialCluster(masters: number, replicas: number): Promise<RedisCluster> {
  const cluster = await RedisCluster.start({ masters, replicas })
  await Promise.all(
    cluster.nodes.map((node) => node.call('CONFIG', 'SET', 'cluster-require-full-coverage', 'no')),
  )
  return cluster
}

/** A locker with its own client. */
async function locker(
  cluster: RedisCluster,
  options: LockerOptions = {},
  clientOptions: ClusterClientOptions = {},
): Promise<Locker> {
  return lockerOn(await cluster.client(clientOptions), options)
}

/** A key whose record is on the node. */
async function keyOn(cluster: RedisCluster, node: RedisServer, name = 'key'): Promise<string> {
  for (let index = 0; ; index += 1) {
    const key = `${name}-${index}`
    if ((await cluster.ownerOf(await cluster.slotOf(`soloflight:1:k/${key}`))) === node) return key
  }
}

/** The node that serves a key of the test, and another node. */
async function nodesOf(cluster: RedisCluster, redisKey: string): Promise<[RedisServer, RedisServer]> {
  const from = await cluster.ownerOf(await cluster.slotOf(redisKey))
  const to = cluster.nodes.find((node) => node !== from)
  assert.ok(to)
  return [from, to]
}

/** The clients of this name on all running nodes. */
async function named(cluster: RedisCluster, name: string): Promise<Record<string, string>[]> {
  const lists = await Promise.all(
    cluster.nodes.filter((node) => node.isRunning).map((node) => node.connectedClients()),
  )
  return lists.flat().filter((client) => client['name'] === name)
}

/** The node to which a client of this name has subscribed. */
async function subscribedOn(cluster: RedisCluster, name: string): Promise<RedisServer | undefined> {
  for (const node of cluster.nodes.filter(({ isRunning }) => isRunning)) {
    const clients = await node.connectedClients()
    if (clients.some((client) => client['name'] === name && client['sub'] === '2')) return node
  }
  return undefined
}

function tests(): void {
  describe('cluster', () => {
    let cluster: RedisCluster
    before(async () => {
      cluster = await RedisCluster.start()
    })
    after(() => cluster[Symbol.asyncDispose]())

    test('cluster - one record per resource in one slot, braces or not', async () => {
      await using a = await locker(cluster, { prefix: 'braces' })
      await using b = await locker(cluster, { prefix: 'braces' })
      const keys = ['{tag}:1', '{tag}:2', '{}', '}{', 'a{b', '{{x}}', '{}x', 'plain', '{', 'a b', 'é', '\n']
      const works: string[] = []
      for (const from of [a, b]) {
        const results = await Promise.all(keys.map((key) => from.run(key, () => works.push(key) && key)))
        assert.deepEqual(results, keys)
      }
      assert.deepEqual(works.sort(), [...keys].sort())
      const records = await Promise.all(cluster.nodes.map((node) => node.call('KEYS', 'braces:*')))
      assert.equal(records.flat().length, keys.length)
      await a.invalidate(...keys)
      for (const key of keys) assert.equal((await b.peek(key)).status, 'free')
    })

    test('cluster S3 - one flight for processes with separate clients', async () => {
      await using other = await child()
      await using a = await locker(cluster)
      await using b = await locker(cluster, {}, { enableOfflineQueue: false })
      const client5 = new Cluster5(cluster.startupNodes)
      client5.on('error', () => {})
      await using c = lockerOn(client5)
      const keys = Array.from({ length: 30 }, (_, index) => `shared {${index}}`)
      let works = 0
      const work = (key: string) => async () => {
        works += 1
        return `${key} is done`
      }
      const [elsewhere, ...here] = await Promise.all([
        other.call('work', cluster.startupNodes, keys),
        ...[a, b, c].map((from) => Promise.all(keys.map((key) => from.run(key, work(key))))),
      ])
      const expected = keys.map((key) => `${key} is done`)
      for (const results of [elsewhere.results, ...here]) assert.deepEqual(results, expected)
      assert.equal(works + elsewhere.works, keys.length)
      await c.close()
      client5.disconnect()
    })

    test('cluster L3 - a slot migrates while works run in it and waiters are parked', async () => {
      // All records are in one slot, so the migration affects each of them.
      const keyPrefix = '{moving}:'
      const [a, b, c] = await Promise.all(
        [1, 2, 3].map(() => locker(cluster, { lease: 3000 }, { keyPrefix })),
      )
      assert.ok(a && b && c)
      const slot = await cluster.slotOf(keyPrefix)
      const [from, to] = await nodesOf(cluster, keyPrefix)
      const waiting = new Map<string, Promise<{ value?: unknown; ms: number }>>()
      const park = async (key: string) => {
        const waiters = (waiting.size % 2 ? [b, c] : [c, b]).map((each) => each.run(key, () => 'again'))
        waiting.set(key, timed(Promise.all(waiters)))
        await parked(a, key, 2)
      }
      const settle = async (lease: Lease) => {
        const start = performance.now()
        await lease.publish(lease.key)
        assert.deepEqual((await waiting.get(lease.key))?.value, [lease.key, lease.key])
        // L3 allows a whole lease; a message takes less.
        assert.ok(performance.now() - start < EPSILON, `${lease.key}: ${performance.now() - start} ms`)
      }

      const [early, half, late] = [
        await leaseOf(a, 'early'),
        await leaseOf(a, 'half'),
        await leaseOf(a, 'late'),
      ]
      for (const { key } of [early, half, late]) await park(key)
      await cluster.beginMigration(slot, from, to)
      // The source node serves existing records; new ones are created on the target node, by ASK.
      const created = await leaseOf(a, 'created')
      await park(created.key)
      await settle(early)
      await cluster.moveKeys(slot, from, to)
      await settle(half)
      const fleeting = await leaseOf(b, 'fleeting')
      await fleeting.release()
      await cluster.endMigration(slot, from, to)
      await settle(created)
      await settle(late)
      for (const [index, key] of ['early', 'half', 'late', 'created'].entries()) {
        assert.equal(await [a, b, c][index % 3]?.run(key, () => 'again'), key)
      }
      for (const each of [a, b, c]) await each.close()
    })

    test('cluster L2 - a release reaches subscribers on any node', async () => {
      const all = await Promise.all([1, 2, 3, 4, 5].map(() => locker(cluster, { lease: 30_000 })))
      const [a, ...others] = all
      assert.ok(a)
      for (const node of cluster.nodes) {
        const key = await keyOn(cluster, node, 'released')
        const lease = await leaseOf(a, key)
        const waiters = others.map((each) => each.run(key, ({ fence }) => fence))
        await parked(a, key, others.length)
        const start = performance.now()
        await lease.release()
        const [next, ...rest] = await Promise.all(waiters)
        assert.ok(performance.now() - start < EPSILON, `it took ${performance.now() - start} ms`)
        assert.ok(Number(next) > lease.fence)
        assert.ok(rest.every((fence) => fence === next))
      }
      for (const each of all) await each.close()
    })

    test('cluster L2 - the processor dies after its slot has migrated', async () => {
      const keyPrefix = '{dying}:'
      await using other = await child()
      await using a = await locker(cluster, { lease: 1000 }, { keyPrefix })
      const slot = await cluster.slotOf(keyPrefix)
      const [from, to] = await nodesOf(cluster, keyPrefix)
      const fence = await other.call('hold', cluster.startupNodes, keyPrefix, 'key')
      const waiter = a.run('key', (context) => context.fence)
      await parked(a, 'key')
      await cluster.migrateSlot(slot, to)
      assert.equal(await cluster.ownerOf(slot), to)
      assert.notEqual(from, to)
      await other.kill()
      const { value, ms } = await timed(waiter)
      assert.ok(Number(value) > fence)
      assert.ok(ms < 1000 + EPSILON, `it took ${ms} ms`)
    })

    test('cluster - close ends the subscription, and the connections of the client', async () => {
      const redisOptions = { connectionName: 'ordered' }
      const client = await cluster.client({ redisOptions })
      const open = [lockerOn(client), lockerOn(client)]
      await Promise.all(open.map((each) => each.run('ordered', () => 1)))
      const subscriptions = async () =>
        (await named(cluster, 'ordered')).filter(({ sub }) => sub !== '0').length
      await until(async () => (await subscriptions()) === 1, { what: 'the shared subscription' })
      const [first, second] = open
      await first?.close()
      assert.equal(await second?.run('still open', () => 2), 2)
      assert.equal(await subscriptions(), 1)
      await second?.close()
      await until(async () => (await subscriptions()) === 0, { what: 'the subscription to end' })
      assert.equal(client.status, 'ready')
      assert.equal(await client.set('{mine}', 'still open'), 'OK')
      client.disconnect()
      await until(async () => (await named(cluster, 'ordered')).length === 0, {
        what: 'the connections to end',
      })
    })
  })

  describe('cluster - a node is lost', { concurrency: true }, () => {
    for (const way of ['killed', 'frozen'] as const) {
      test(`cluster L1 - ${way}: a typed error for its slots, the others are served, it recovers`, async () => {
        await using cluster = await partialCluster(3, 0)
        await using a = await locker(cluster, { lease: 500, unavailableAfter: 700 })
        const [lost, sound] = cluster.nodes
        assert.ok(lost && sound)
        const [there, here] = [await keyOn(cluster, lost), await keyOn(cluster, sound)]
        let round = 0
        const goesOn = async () => {
          assert.equal(await a.run(here, () => round, { ttl: 0 }), round)
          round += 1
        }
        await a.run(there, () => 1, { ttl: 0 })
        await goesOn()
        if (way === 'killed') await lost.kill()
        else await lost.freeze()
        for (let times = 0; times < 3; times += 1) {
          const { error, ms } = await timed(a.run(there, () => 1, { ttl: 0 }))
          assert.ok(error instanceof UnavailableError, `Expected an UnavailableError, got ${error}`)
          assert.ok(ms < 700 + EPSILON, `it took ${ms} ms`)
          await goesOn()
        }
        if (way === 'killed') await lost.restart()
        else lost.thaw()
        await until(() => a.run(there, () => true, { ttl: 0 }), {
          what: 'the slots to be served again',
          timeout: 15_000,
        })
        await goesOn()
      })
    }

    test('cluster L1 S1 - its replica takes over, and flights go on', async () => {
      await using cluster = await partialCluster(3, 1)
      const [a, b] = [
        await locker(cluster, { lease: 1000, unavailableAfter: 12_000, timeout: 20_000 }),
        await locker(cluster, { lease: 1000, unavailableAfter: 12_000, timeout: 20_000 }),
      ]
      const [lost] = cluster.nodes
      assert.ok(lost)
      const [held, fresh] = [await keyOn(cluster, lost, 'held'), await keyOn(cluster, lost, 'fresh')]
      const lease = await leaseOf(a, held)
      const waiter = timed(b.run(held, ({ fence }) => fence))
      await parked(a, held)
      await lost.call('WAIT', 1, 5000)
      await lost.kill()
      const flights = await Promise.all([a, b].map((each) => timed(each.run(fresh, ({ fence }) => fence))))
      for (const { value, error } of flights) assert.ok(Number(value) > 0, String(error))
      assert.equal(flights[0]?.value, flights[1]?.value)
      await lease.release().catch(() => {})
      const { value, error } = await waiter
      assert.ok(Number(value) > lease.fence, `${value} after ${lease.fence}: ${error}`)
      for (const each of [a, b]) await each.close()
    })

    test('S4 cluster - a replica that lags is not read, whatever scaleReads of the client says', async () => {
      await using cluster = await RedisCluster.start({ masters: 1, replicas: 1 })
      const [master, replica] = cluster.nodes
      assert.ok(master && replica)
      // An earlier client would not know the replica.
      const known = async () =>
        JSON.stringify(await master.call('CLUSTER', 'SLOTS')).includes(`${replica.port}`)
      await until(known, { what: 'the replica to be announced', timeout: 10_000 })
      await using a = await locker(cluster)
      await using b = await locker(cluster, {}, { scaleReads: 'slave' })
      assert.equal(await a.run('key', () => 'old'), 'old')
      assert.equal(await master.call('WAIT', 1, 5000), 1)
      // The replica does not replicate any more, and still serves its data.
      await master.call('ACL', 'SETUSER', 'default', '-psync', '-sync')
      await master.call('CLIENT', 'KILL', 'TYPE', 'replica')
      // Repeated hits may be read by another command.
      for (let times = 0; times < 30; times += 1) assert.equal(await b.run('key', () => 'again'), 'old')
      await a.invalidate('key')
      assert.equal(await b.run('key', () => 'new'), 'new')
      for (let times = 0; times < 30; times += 1) assert.equal(await b.run('key', () => 'again'), 'new')
    })

    test('cluster L3 - the node of the subscription is lost: messages arrive through another node', async () => {
      await using cluster = await partialCluster(4, 0)
      const redisOptions = { connectionName: 'subscribed' }
      const [a, b] = [
        await locker(cluster, { lease: 30_000 }),
        await locker(cluster, { lease: 30_000 }, { redisOptions }),
      ]
      await b.run('warm', () => 1)
      const lost = await until(() => subscribedOn(cluster, 'subscribed'), { what: 'the subscription' })
      const sound = cluster.nodes.find((node) => node !== lost)
      assert.ok(sound)
      const key = await keyOn(cluster, sound)
      const lease = await leaseOf(a, key)
      const waiter = timed(b.run(key, () => 'again'))
      await parked(a, key)
      await lost.kill()
      await until(() => !b.stats().subscribed, { what: 'the loss to be detected', timeout: 2000 })
      await until(() => b.stats().subscribed, { what: 'another subscription' })
      assert.notEqual(
        await until(() => subscribedOn(cluster, 'subscribed'), { what: 'the subscription' }),
        lost,
      )
      const start = performance.now()
      await lease.publish('published')
      assert.equal((await waiter).value, 'published')
      assert.ok(performance.now() - start < EPSILON)
      for (const each of [a, b]) await each.close()
    })
  })
}

if (process.argv[2] === 'child') serve(handlers)
else tests()
