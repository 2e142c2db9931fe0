import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { Bus, type ConsumeOptions, type Queue } from '../../src/bus/index.ts'
import { UnavailableError } from '../../src/errors.ts'
import { BusLoad } from '../support/bus-load.ts'
import { MortalityWatch, upTo } from '../support/bus-scene.ts'
import { RedisCluster } from '../support/cluster.ts'
import { EPSILON } from '../support/lockers.ts'
import type { RedisServer } from '../support/redis-server.ts'
import { timed, until } from '../support/wait.ts'

const keyOf = (name: string) => `soloflight:1:b{${name}}Q`

/** A bus with a client of its own. */
async function busOn(cluster: RedisCluster, unavailableAfter = 8000): Promise<Bus> {
  const bus = new Bus({ redis: await cluster.client(), unavailableAfter })
  await bus.connect()
  return bus
}

async function nodeOf(cluster: RedisCluster, name: string): Promise<RedisServer> {
  return cluster.ownerOf(await cluster.slotOf(keyOf(name)))
}

/** A queue object, attached, that consumes; and what it receives. It acknowledges each message. */
async function consumer(
  bus: Bus,
  name: string,
  options: ConsumeOptions,
): Promise<{ queue: Queue<unknown>; received: unknown[] }> {
  const queue = bus.queue(name)
  const received: unknown[] = []
  queue.on('message', (value, id) => {
    received.push(value)
    queue.ack(id).catch(() => {})
  })
  await queue.attach()
  await queue.consume(options)
  return { queue, received }
}

async function producer(bus: Bus, name: string): Promise<Queue<unknown>> {
  const queue = bus.queue(name)
  await queue.attach()
  return queue
}

describe('a bus on a cluster', () => {
  let cluster: RedisCluster
  let watch: MortalityWatch
  before(async () => {
    cluster = await RedisCluster.start()
    watch = new MortalityWatch(...cluster.nodes)
  })
  after(async () => {
    try {
      await watch[Symbol.asyncDispose]()
    } finally {
      await cluster[Symbol.asyncDispose]()
    }
  })

  test('B1 B2 cluster - queues of any name over the nodes, of every mode: all messages arrive in order', async () => {
    await using a = await busOn(cluster)
    await using b = await busOn(cluster)
    const names = [
      'plain',
      '{tag}',
      '{}',
      '}{',
      'a{b',
      'a b',
      'é\n',
      '日本 {x}',
      ...upTo(12).map((n) => `q${n}`),
    ]
    const nodes = new Set(await Promise.all(names.map((name) => nodeOf(cluster, name))))
    assert.equal(nodes.size, 3)
    const modes: ConsumeOptions[] = [
      {},
      { reliable: true, prefetch: 5 },
      { exclusive: true },
      { remove: false },
    ]
    const all = await Promise.all(
      names.map(async (name, n) => ({
        ...(await consumer(b, name, modes[n % modes.length] as ConsumeOptions)),
        push: await producer(a, name),
      })),
    )
    for (const value of upTo(50))
      await Promise.all(all.map(({ push }) => push.push(value, { key: `{${value % 3}}` })))
    await until(() => all.every(({ received }) => received.length >= 50), { what: 'the messages' })
    for (const { received } of all) assert.deepEqual(received, upTo(50))
    for (const { push } of all) {
      assert.equal(await push.exists(), true)
      assert.equal(await push.metadata('name', 1), true)
      await push.close()
    }
  })

  test('B5 cluster - a channel, a topic that keeps messages, and an object', async () => {
    await using a = await busOn(cluster)
    await using b = await busOn(cluster)
    const [local, remote] = [a.channel('chat {x}'), b.channel('chat {x}')]
    const events: unknown[] = []
    local.on('message', (value) => events.push(value))
    local.on('end', () => events.push('end'))
    await Promise.all([local.connect(), remote.listen()])
    for (const value of upTo(20)) await remote.send(value)
    await remote.end()
    await until(() => events.includes('end'), { what: 'the end' })
    assert.deepEqual(events, [...upTo(20), 'end'])

    const [publisher, subscriber] = [a.pubsub('news {x}', { keep: 100 }), b.pubsub('news {x}', { keep: 100 })]
    const heard: unknown[] = []
    subscriber.on('message', (value) => heard.push(value))
    await subscriber.subscribe()
    for (const value of upTo(10)) await publisher.publish(value)
    await Promise.all(cluster.nodes.map((node) => node.call('CLIENT', 'KILL', 'TYPE', 'pubsub')))
    for (const value of upTo(10, 11)) await publisher.publish(value)
    await until(() => heard.length >= 20, { what: 'the messages' })
    assert.deepEqual(heard, upTo(20))

    const saved = a.persistify('object {x}', { text: 'a' }, ['text'])
    assert.equal(await saved.save(), true)
    const loaded = b.persistify('object {x}', { text: '' }, ['text'])
    assert.equal(await loaded.load(), true)
    assert.equal(loaded.text, 'a')
  })

  for (const options of [{}, { reliable: true, prefetch: 5 }]) {
    test(`B1 B2 B4 cluster - a slot that moves under load, ${JSON.stringify(options)}: no message is lost or comes twice`, async () => {
      const name = `moved ${JSON.stringify(options)}`
      await using a = await busOn(cluster)
      await using b = await busOn(cluster)
      const { received } = await consumer(b, name, { lease: 20_000, ...options })
      await using load = new BusLoad(await producer(a, name))
      const slot = await cluster.slotOf(keyOf(name))
      for (let round = 0; round < 2; round++) {
        await load.more(100)
        const from = await cluster.ownerOf(slot)
        const to = cluster.nodes.find((node) => node !== from) as RedisServer
        await cluster.migrateSlot(slot, to, { onMigrating: () => load.more(50) })
      }
      await load.more(100)
      await load.stop()
      assert.deepEqual([...load.codes], [])
      await until(() => received.length >= load.pushed.length, { what: 'the messages' })
      assert.deepEqual(received, upTo(load.pushed.length))
    })
  }
})

test('B4 cluster - a node is lost: its queues reject in time, the others go on; when it is back, so do its queues', {
  timeout: 60_000,
}, async () => {
  await using cluster = await RedisCluster.start()
  for (const node of cluster.nodes) await node.call('CONFIG', 'SET', 'cluster-require-full-coverage', 'no')
  const PATIENCE = 1500
  await using a = await busOn(cluster, PATIENCE)
  await using b = await busOn(cluster, PATIENCE)
  const names = upTo(9).map((n) => `q${n}`)
  const all = await Promise.all(
    names.map(async (name) => ({
      node: await nodeOf(cluster, name),
      push: await producer(a, name),
      ...(await consumer(b, name, { reliable: true, prefetch: 10 })),
    })),
  )
  await Promise.all(all.map(({ push }) => push.push(1)))
  await until(() => all.every(({ received }) => received.length === 1), { what: 'the messages' })
  const [lost] = all.map(({ node }) => node)
  assert.ok(lost)
  await lost.kill()
  await Promise.all(
    all.map(async ({ node, push, received }) => {
      const { error, ms } = await timed(() => push.push(2))
      if (node === lost) {
        assert.ok(error instanceof UnavailableError, String(error))
        assert.ok(ms < PATIENCE + 2 * EPSILON, `after ${ms} ms`)
        return
      }
      assert.equal(error, undefined)
      await until(() => received.length === 2, { what: 'the message' })
    }),
  )
  await lost.restart()
  for (const { push, received } of all) {
    await until(() => push.push(3), { what: 'the queue', timeout: 20_000, every: 50 })
    await until(() => received.includes(3), { what: 'the message', timeout: 20_000 })
  }
})

test('B2 B4 cluster - a node is lost and its replica takes over: pushes and consumption go on by themselves', {
  timeout: 90_000,
}, async () => {
  await using cluster = await RedisCluster.start({ masters: 3, replicas: 1 })
  await using a = await busOn(cluster, 3000)
  await using b = await busOn(cluster, 3000)
  const { received } = await consumer(b, 'q', { reliable: true, prefetch: 5, lease: 20_000 })
  await using load = new BusLoad(await producer(a, 'q'))
  await load.more(100)
  await (await nodeOf(cluster, 'q')).kill()
  await load.more(100, 40_000)
  await load.stop()
  for (const code of load.codes) assert.equal(code, 'E_UNAVAILABLE')
  const last = load.pushed.at(-1)
  await until(() => received.includes(last), { what: 'the messages', timeout: 20_000 })
  load.assertPushed(received)
})
