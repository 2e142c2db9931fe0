// Topics, persisted objects and places on a real Redis: hostile contents, lost subscriptions, clusters. What the scripts do is
// compared with the specification in test/conformance.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { recordBase, reservationKey } from '../../src/bus/store/redis/keys.ts'
import { RedisObjectStore } from '../../src/bus/store/redis/objects/object-store.ts'
import { RedisPlaceStore } from '../../src/bus/store/redis/places/place-store.ts'
import { RedisQueueStore } from '../../src/bus/store/redis/queues/queue-store.ts'
import { buildTopicScripts } from '../../src/bus/store/redis/topics/scripts.ts'
import { RedisTopicStore } from '../../src/bus/store/redis/topics/topic-store.ts'
import { encodeBundles, parsePublished } from '../../src/bus/store/redis/topics/wire.ts'
import type { PublishRequest, TopicTerms } from '../../src/bus/store/store.ts'
import { newId } from '../../src/kernel/keys.ts'
import type { RedisSource } from '../../src/kernel/redis/client.ts'
import { Connection } from '../../src/kernel/redis/connection.ts'
import { RedisCluster } from '../support/cluster.ts'
import { setup } from '../support/setup.ts'
import { until } from '../support/wait.ts'

const WITHIN = 5000
const PREFIX = 'p'
const UNAVAILABLE = { name: 'UnavailableError' }
const TERMS: TopicTerms = { keep: 3, retain: true, ttl: 30_000 }

function storesOn(redis: RedisSource) {
  const connection = new Connection(redis)
  return {
    connection,
    topics: new RedisTopicStore(connection, PREFIX),
    objects: new RedisObjectStore(connection, PREFIX),
    places: new RedisPlaceStore(connection, PREFIX),
    queues: new RedisQueueStore(connection, PREFIX),
    [Symbol.asyncDispose]: () => connection.close(),
  }
}

let batches = 0
const batch = (text: string, terms = TERMS): PublishRequest => ({
  ...{ publisher: 'me', number: ++batches, messages: [Buffer.from(text)], terms },
})

/** Listens, and resolves when the subscription is established. */
async function hear(topics: RedisTopicStore, topic: string) {
  const heard = { texts: [] as string[], events: [] as string[], end: () => {} }
  heard.end = topics.listen(topic, {
    onMessages: (_life, _first, messages) => heard.texts.push(...messages.map(String)),
    onUp: () => heard.events.push('up'),
    onDown: () => heard.events.push('down'),
  })
  await until(() => heard.events.length === 1, { what: 'the subscription' })
  return heard
}

test('B5 topics on Redis - listeners of one topic share a channel, and follow its subscription', async () => {
  await using t = await setup()
  const client = await t.client()
  await using stores = storesOn(t.redis)
  const { topics, connection } = stores
  const [first, second] = [await hear(topics, 'a'), await hear(topics, 'a')]
  const [channel, count] = (await client.pubsub('CHANNELS', `${connection.channelPrefix}:p:*`)) as string[]
  assert.equal(count, undefined, 'one channel')
  await topics.publish('a', batch('1'), WITHIN)
  await until(() => second.texts.length === 1, { what: 'a message' })
  second.end()
  await topics.publish('a', batch('2'), WITHIN)
  await until(() => first.texts.length === 2, { what: 'a message' })

  await client.call('CLIENT', 'KILL', 'TYPE', 'pubsub')
  await until(() => first.events.length === 3, { what: 'another subscription' })
  assert.deepEqual(first.events, ['up', 'down', 'up'])
  await topics.publish('a', batch('3'), WITHIN)
  await until(() => first.texts.length === 3, { what: 'a message' })
  first.end()
  await until(async () => (await client.pubsub('NUMSUB', channel as string))[1] === 0, {
    what: 'the end of the subscription',
  })
  assert.deepEqual([first.texts, second.texts, second.events], [['1', '2', '3'], ['1'], ['up']])
})

test('B5 topics on Redis - topics with other names or prefixes hear nothing', async () => {
  await using t = await setup()
  await using stores = storesOn(t.redis)
  const names = ['a', 'a:b', 'b', '\ud800', '\ud801', '{a}', 'a\n', '__proto__']
  const others = new RedisTopicStore(stores.connection, `${PREFIX}:a`)
  const heard = await Promise.all([
    ...names.map((name) => hear(stores.topics, name)),
    ...names.map((name) => hear(others, name)),
  ])
  for (const name of names) {
    await stores.topics.publish(name, batch(JSON.stringify(name)), WITHIN)
    await others.publish(name, batch(`other ${JSON.stringify(name)}`), WITHIN)
  }
  await until(() => heard.every(({ texts }) => texts.length > 0), { what: 'messages' })
  assert.deepEqual(
    heard.map(({ texts }) => texts),
    [
      ...names.map((name) => [JSON.stringify(name)]),
      ...names.map((name) => [`other ${JSON.stringify(name)}`]),
    ],
  )
})

test('U3 topics on Redis - malformed messages are dropped', async () => {
  await using t = await setup()
  const client = await t.client()
  await using stores = storesOn(t.redis)
  const heard = await hear(stores.topics, 'a')
  const [channel] = (await client.pubsub('CHANNELS', `${stores.connection.channelPrefix}:p:*`)) as string[]
  const life = newId()
  const forged = [
    ...[
      '',
      '\n',
      '1',
      `1${life} 1`,
      `1${life} 1\n`,
      `2${life} 1\n1:a`,
      `1${life} 0\n1:a`,
      `1${life} -1\n1:a`,
    ],
    ...[`1${life} 1e3\n1:a`, `1${life} 9007199254740991\n1:a`, `1${life} 99999999999999999\n1:a`],
    ...[
      `1${life.slice(1)} 1\n1:a`,
      `1${life} 1\n:`,
      `1${life} 1\n2:a`,
      `1${life} 1\n1:a1`,
      `1${life} 1\n1:a x`,
    ],
    ...[`1${life} 1\n-1:a`, `1${life} 1\n1e0:a`, `1${life} 1\n${'9'.repeat(400)}:a`, `1${life} 1\n 1:a`],
    ...['x'.repeat(100_000), `1${life} 1\n${'1'.repeat(100_000)}`],
  ]
  for (const text of forged) await client.publish(channel as string, text)
  await client.publish(channel as string, `1${life} 7\n1:a0:`)
  await until(() => heard.texts.length > 0, { what: 'the message that is sound' })
  assert.deepEqual(heard.texts, ['a', ''])
})

test('topics on Redis - bundles are divided by their size, and parsed as they were', () => {
  const messages = [0, 1, 100_000, 200_000, 10, 300_000, 5, 0].map((size, index) =>
    Buffer.alloc(size, `${index}`),
  )
  const bundles = encodeBundles(messages)
  assert.deepEqual(
    bundles.map(({ count }) => count),
    [3, 2, 1, 2],
  )
  const parsed = bundles.flatMap(({ bytes }) => {
    const published = parsePublished(Buffer.concat([Buffer.from(`1${newId()} 1\n`), bytes]))
    return published?.messages ?? []
  })
  assert.deepEqual(parsed, messages)
})

test('U4 L5 topics on Redis - publishers of the past are removed', async () => {
  await using t = await setup()
  const client = await t.client()
  await using connection = new Connection(t.redis)
  const scripts = buildTopicScripts(`local now = tonumber(redis.call('GET', 'now'))`)
  const topics = new RedisTopicStore(connection, PREFIX, { scripts })
  const key = `${recordBase(PREFIX, 'topic', 'a')}T`
  let largest = 0
  for (let minute = 0; minute < 20; minute++) {
    for (const half of [0, 1]) {
      await client.set('now', 1_700_000_000_000 + minute * 60_000 + half * 29_000)
      const publishers = Array.from({ length: 20 }, (_, index) => `${minute} ${half} ${index}`)
      await Promise.all(
        publishers.map((publisher) => topics.publish('a', { ...batch('x'), publisher }, WITHIN)),
      )
    }
    await client.set('now', 1_700_000_000_000 + minute * 60_000 + 58_000)
    await topics.renew(new Map([['a', TERMS]]), WITHIN)
    largest = Math.max(largest, await client.hlen(key))
  }
  assert.equal((await topics.resume('a', '', 0, TERMS, WITHIN)).last, 800, 'one life')
  assert.ok(largest > 40 && largest < 250, `${largest} fields`)
})

test('U3 U4 records of the bus on Redis - keys of another type are a typed error, for them alone', async () => {
  await using t = await setup()
  const client = await t.client()
  await using stores = storesOn(t.redis)
  const { topics, objects, places } = stores
  const keys = (kind: 'topic' | 'object', name: string) => recordBase(PREFIX, kind, name)
  await client.set(`${keys('topic', 'bad')}T`, 'x', 'PX', 60_000)
  await client.set(`${keys('topic', 'half')}K`, 'x', 'PX', 60_000)
  await client.set(`${keys('object', 'bad')}O`, 'x', 'PX', 60_000)
  await client.lpush(reservationKey(PREFIX, 'object', 'held'), 'x')
  await client.pexpire(reservationKey(PREFIX, 'object', 'held'), 60_000)

  await assert.rejects(topics.publish('bad', batch('1'), WITHIN), UNAVAILABLE)
  await assert.rejects(topics.publish('half', batch('1'), WITHIN), UNAVAILABLE)
  await assert.rejects(topics.resume('bad', '', 0, TERMS, WITHIN), UNAVAILABLE)
  const request = { base: '', version: newId(), properties: new Map(), ttl: 60_000 }
  await assert.rejects(objects.save('bad', request, WITHIN), UNAVAILABLE)
  await assert.rejects(objects.load('bad', WITHIN), UNAVAILABLE)
  await assert.rejects(places.exists('topic', 'bad', WITHIN), UNAVAILABLE)
  await assert.rejects(places.reserve('object', 'bad', 'me', 1000, WITHIN), UNAVAILABLE)
  await assert.rejects(places.reserve('object', 'held', 'me', 1000, WITHIN), UNAVAILABLE)
  await assert.rejects(places.release('object', 'held', 'me', WITHIN), UNAVAILABLE)

  const renewed = await topics.renew(new Map(['good', 'bad', 'fine'].map((name) => [name, TERMS])), WITHIN)
  assert.deepEqual(
    renewed.map((error) => error?.name),
    [undefined, 'UnavailableError', undefined],
  )
  assert.ok(await objects.save('good', request, WITHIN))
  const ttls = new Map(['bad', 'good', 'none'].map((name) => [name, 120_000]))
  assert.deepEqual(
    (await objects.renew(ttls, WITHIN)).map((error) => error?.name),
    ['UnavailableError', undefined, undefined],
  )
  for (const key of await client.keys('*')) assert.ok((await client.pttl(key)) > 0, `${key} has an expiry`)
})

test('U3 records of the bus on Redis - contents that make no sense are an error, or ignored', async () => {
  await using t = await setup()
  const client = await t.client()
  await using stores = storesOn(t.redis)
  const { topics, objects } = stores
  const later = String(Date.now() + 60_000)
  const key = `${recordBase(PREFIX, 'topic', 'a')}T`
  const life = newId()
  for (const last of ['1e300', '-5', 'nan', 'inf']) {
    await client.hset(key, { life, last, terms: '0 0 1000', e: later, until: '0' })
    await client.pexpire(key, 60_000)
    await assert.rejects(
      topics.resume('a', life, 0, { ...TERMS, keep: 0, retain: false }, WITHIN),
      UNAVAILABLE,
    )
  }
  await client.hset(key, { life, last: 'x', terms: 'x', e: later, until: 'x', bme: 'x' })
  assert.equal(await topics.publish('a', batch('1'), WITHIN), 1)
  assert.deepEqual(String((await topics.resume('a', '', 0, TERMS, WITHIN)).messages), '1')

  const object = `${recordBase(PREFIX, 'object', 'a')}O`
  await client.hset(object, { e: later, version: 'v', x: '1', '"': '2', '"a"b': '3', '"ok"': '4' })
  await client.pexpire(object, 60_000)
  const loaded = await objects.load('a', WITHIN)
  assert.deepEqual(loaded, { version: 'v', properties: new Map([['ok', Buffer.from('4')]]) })
})

test('B4 places on Redis - a queue is made by whoever has reserved its name, and then exists', async () => {
  await using t = await setup()
  await using stores = storesOn(t.redis)
  const { places, queues } = stores
  const { address, end } = queues.listen({ onSignal() {}, onUp() {} })
  const attach = (token: string) =>
    queues.attach(
      'q',
      { ...{ address, ttl: 30_000, maxsize: 0, life: newId(), token }, attachedTo: '', watchesHolder: false },
      WITHIN,
    )
  assert.equal(await places.reserve('queue', 'q', 'me', 30_000, WITHIN), 'reserved')
  assert.equal(await places.reserve('queue', 'q', 'you', 30_000, WITHIN), 'taken')
  assert.equal((await attach('you')).kind, 'unreserved')
  assert.equal(await places.exists('queue', 'q', WITHIN), false)
  assert.equal((await attach('me')).kind, 'attached')
  assert.equal(await places.exists('queue', 'q', WITHIN), true)
  assert.equal(await places.reserve('queue', 'q', 'you', 30_000, WITHIN), 'exists')
  assert.ok(await queues.remove('q', address, WITHIN))
  assert.equal(await places.exists('queue', 'q', WITHIN), false)
  end()
})

test('B4 B5 records of the bus on a cluster', async () => {
  await using cluster = await RedisCluster.start()
  await using one = storesOn(await cluster.client())
  await using other = storesOn(await cluster.client())
  const names = ['a', 'b', 'c', '{d}', 'e\n', '\ud800']
  const heard = await Promise.all(names.map((name) => hear(other.topics, name)))
  for (const name of names) await one.topics.publish(name, batch(JSON.stringify(name)), WITHIN)
  await until(() => heard.every(({ texts }) => texts.length === 1), { what: 'messages through all nodes' })
  const resumed = await Promise.all(names.map((name) => other.topics.resume(name, '', 0, TERMS, WITHIN)))
  assert.deepEqual(
    resumed.map(({ messages }) => String(messages)),
    names.map((name) => JSON.stringify(name)),
  )
  const none = names.map(() => undefined)
  assert.deepEqual(await one.topics.renew(new Map(names.map((name) => [name, TERMS])), WITHIN), none)
  for (const name of names) {
    assert.equal(await one.places.reserve('object', name, 'me', 30_000, WITHIN), 'reserved')
    const properties = new Map([[name, Buffer.from(name)]])
    const version = newId()
    assert.ok(await one.objects.save(name, { base: '', version, properties, ttl: 60_000 }, WITHIN))
    assert.deepEqual(await other.objects.load(name, WITHIN), { version, properties })
    assert.equal(await other.places.reserve('object', name, 'you', 30_000, WITHIN), 'exists')
    await one.places.release('object', name, 'me', WITHIN)
  }
  assert.deepEqual(await one.objects.renew(new Map(names.map((name) => [name, 90_000])), WITHIN), none)
})
