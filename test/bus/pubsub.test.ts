// Pub/sub: who receives what, once each and in order; the options; what is refused.

import assert from 'node:assert/strict'
import { subscribe as subscribeChannel, unsubscribe as unsubscribeChannel } from 'node:diagnostics_channel'
import { afterEach, test } from 'node:test'
import { MemoryBus, type Pubsub } from '../../src/bus/index.ts'
import { MAX_BATCH, MAX_BATCH_BYTES } from '../../src/bus/store/store.ts'
import {
  AlreadyAttachedError,
  ClosedError,
  CodecError,
  OverloadedError,
  TooLargeError,
  UnavailableError,
} from '../../src/errors.ts'
import { onBothStores } from '../support/bus.ts'
import { disconnectFaultyBuses, FaultyBus, numbers, recorded, unavailable } from '../support/bus-client.ts'
import { ManualClock, settled } from '../support/manual-clock.ts'
import { rejectionOf, timed, until } from '../support/wait.ts'

afterEach(disconnectFaultyBuses)

/** Resolves when `log` has so many entries, and a message that is published afterwards has come as the only one more. */
async function complete<M>(log: M[], count: number): Promise<void> {
  await until(() => log.length >= count, { what: `${count} entries`, timeout: 20_000 })
  await settled()
  assert.equal(log.length, count)
}

onBothStores('each subscriber receives each message once, also two in one process', async (w) => {
  const [one, other, third] = [w.open(), w.open(), w.open()]
  const subscribers = [one.pubsub<number>('t'), one.pubsub<number>('t'), other.pubsub<number>('t')]
  const logs = subscribers.map(recorded)
  await Promise.all(subscribers.map((pubsub) => pubsub.subscribe()))
  const stranger = recorded(third.pubsub<number>('t'))
  const elsewhere = third.pubsub<number>('another')
  const another = recorded(elsewhere)
  await elsewhere.subscribe()
  await Promise.all(numbers(1, 500).map((n) => third.pubsub<number>('t').publish(n)))
  for (const log of logs) {
    await complete(log, 500)
    assert.deepEqual(
      log.sort((a, b) => Number(a) - Number(b)),
      numbers(1, 500),
    )
  }
  assert.deepEqual([stranger, another], [[], []])
})

onBothStores('messages of one publisher arrive in order; it may subscribe too', async (w) => {
  const pubsub = w.open().pubsub<number>('t')
  const log = recorded(pubsub)
  await pubsub.subscribe()
  await Promise.all(numbers(1, 10_000).map((n) => pubsub.publish(n)))
  await complete(log, 10_000)
  assert.deepEqual(log, numbers(1, 10_000))
})

onBothStores('who subscribes receives what is published afterwards, until it unsubscribes', async (w) => {
  const [here, there] = [
    w.open().pubsub<number>('t', { keep: 10 }),
    w.open().pubsub<number>('t', { keep: 10 }),
  ]
  const log = recorded(here)
  const events: string[] = []
  here.on('subscribed', () => events.push('subscribed'))
  here.on('unsubscribed', () => events.push('unsubscribed'))
  await there.publish(1)
  assert.equal(here.isSubscribed(), false)
  await here.subscribe()
  assert.equal(here.isSubscribed(), true)
  await there.publish(2)
  await complete(log, 1)
  await here.unsubscribe()
  assert.equal(here.isSubscribed(), false)
  await here.unsubscribe()
  await there.publish(3)
  assert.deepEqual(events, ['subscribed', 'unsubscribed'])
  await here.subscribe()
  await there.publish(4)
  await complete(log, 2)
  assert.deepEqual(log, [2, 4])
})

onBothStores('attach and detach are other names of subscribe and unsubscribe', async (w) => {
  const pubsub = w.open().pubsub('t')
  await pubsub.attach()
  assert.equal(pubsub.isSubscribed(), true)
  await pubsub.detach()
  assert.equal(pubsub.isSubscribed(), false)
})

onBothStores('no message arrives after unsubscribe, even if it is called by a listener', async (w) => {
  const [here, there] = [w.open().pubsub<number>('t'), w.open().pubsub<number>('t')]
  const log = recorded(here)
  here.on('message', (n) => n === 3 && here.unsubscribe())
  const stays = w.open().pubsub<number>('t')
  const all = recorded(stays)
  await here.subscribe()
  await stays.subscribe()
  await Promise.all(numbers(1, 10).map((n) => there.publish(n)))
  await complete(all, 10)
  assert.deepEqual(log, [1, 2, 3])
})

onBothStores('`retain`: the last message comes first to who subscribes, after `subscribed`', async (w) => {
  const there = w.open().pubsub<number>('t', { retain: true })
  await there.publish(1)
  await there.publish(2)
  for (const options of [{ retain: true }, {}]) {
    const here = w.open().pubsub<number>('t', options)
    const log: unknown[] = recorded(here)
    here.on('subscribed', () => log.push('subscribed'))
    await here.subscribe()
    await there.publish(3)
    await complete(log, 3)
    assert.deepEqual(log, ['subscribed', 2, 3])
    await here.unsubscribe()
    await there.publish(2)
  }
})

onBothStores('without `retain` nothing that was published before arrives', async (w) => {
  const [here, there] = [w.open().pubsub<number>('t'), w.open().pubsub<number>('t')]
  await there.publish(1)
  const log = recorded(here)
  await here.subscribe()
  await there.publish(2)
  await complete(log, 1)
  assert.deepEqual(log, [2])
})

onBothStores('any value arrives as it was: objects, bytes, undefined, text that is not ASCII', async (w) => {
  const pubsub = w.open().pubsub('t')
  const received: unknown[] = []
  pubsub.on('message', (message) => received.push(message))
  await pubsub.subscribe()
  const values = [
    { a: [1, { b: null }] },
    Buffer.from([0, 10, 255]),
    undefined,
    'Zoë ☃',
    0,
    false,
    '',
    Number.NaN,
  ]
  for (const value of values) await pubsub.publish(value)
  await complete(received, values.length)
  assert.deepEqual(received, values)
})

onBothStores('names of any kind are topics of their own', async (w) => {
  const [a, b] = [w.open(), w.open()]
  const names = ['t', 'T', 'a:b', 'a{b}', 'x'.repeat(256), 'ü', ' ', '__proto__']
  const logs = await Promise.all(
    names.map(async (name) => {
      const pubsub = a.pubsub<string>(name)
      const log = recorded(pubsub)
      await pubsub.subscribe()
      return log
    }),
  )
  for (const name of names) await b.pubsub<string>(name).publish(name)
  for (const [index, log] of logs.entries())
    await complete(log, 1).then(() => assert.deepEqual(log, [names[index]]))
})

onBothStores('subscribe twice is refused, and the first stays', async (w) => {
  const pubsub = w.open().pubsub('t')
  const first = pubsub.subscribe()
  assert.ok((await rejectionOf(pubsub.subscribe())) instanceof AlreadyAttachedError)
  await first
  assert.ok((await rejectionOf(pubsub.subscribe())) instanceof AlreadyAttachedError)
  assert.equal(pubsub.isSubscribed(), true)
})

onBothStores('disconnect ends subscriptions, and calls reject afterwards', async (w) => {
  const bus = w.open()
  const pubsub = bus.pubsub<number>('t')
  const events: string[] = []
  pubsub.on('unsubscribed', () => events.push('unsubscribed'))
  await pubsub.subscribe()
  // What is under way is waited for.
  const publishing = pubsub.publish(1)
  await settled()
  await bus.disconnect()
  await publishing
  assert.deepEqual(events, ['unsubscribed'])
  assert.equal(pubsub.isSubscribed(), false)
  assert.ok((await rejectionOf(pubsub.subscribe())) instanceof ClosedError)
  assert.ok((await rejectionOf(pubsub.publish(1))) instanceof ClosedError)
  await pubsub.unsubscribe()
})

onBothStores(
  'a message that cannot be encoded or is too large is refused, and others are published',
  async (w) => {
    const pubsub = w.open({ maxMessage: 1000 }).pubsub<unknown>('t')
    const log = recorded(pubsub)
    await pubsub.subscribe()
    const outcomes = await Promise.allSettled([
      pubsub.publish(1),
      pubsub.publish(new Map()),
      pubsub.publish('x'.repeat(1000)),
      pubsub.publish(2),
    ])
    assert.deepEqual(
      outcomes.map((outcome) => (outcome.status === 'rejected' ? outcome.reason.constructor : undefined)),
      [undefined, CodecError, TooLargeError, undefined],
    )
    await complete(log, 2)
    assert.deepEqual(log, [1, 2])
  },
)

onBothStores('a message that cannot be decoded is dropped, and reported', async (w) => {
  const plain = { encode: (value: unknown) => Buffer.from(String(value)), decode: String }
  const [here, there] = [w.open().pubsub<unknown>('t'), w.open({ codec: plain }).pubsub<unknown>('t')]
  const log = recorded(here)
  const reported: unknown[] = []
  const hear = (data: unknown) => reported.push((data as { key: string }).key)
  subscribeChannel('soloflight:undecodable', hear)
  try {
    await here.subscribe()
    await there.publish('?')
    await there.publish('j1')
    await complete(log, 1)
  } finally {
    unsubscribeChannel('soloflight:undecodable', hear)
  }
  assert.deepEqual([log, reported], [[1], ['t']])
})

onBothStores('a listener that throws does not keep other messages from arriving', async (w) => {
  const pubsub = w.open().pubsub<number>('t')
  pubsub.on('message', () => {
    throw new Error('the listener of pubsub.test.ts throws')
  })
  const log = recorded(pubsub)
  await pubsub.subscribe()
  await Promise.all([pubsub.publish(1), pubsub.publish(2)])
  await complete(log, 2)
})

test('names and options are checked', () => {
  const bus = new FaultyBus()
  const invalid: [string, object][] = [
    ['', {}],
    ['x'.repeat(257), {}],
    ['t', { keep: -1 }],
    ['t', { keep: 1.5 }],
    ['t', { keep: 10_001 }],
    ['t', { retain: 1 }],
    ['t', { ttl: 0 }],
    ['t', { ttl: Number.POSITIVE_INFINITY }],
    ['t', { kept: 1 }],
  ]
  for (const [name, options] of invalid) assert.throws(() => bus.pubsub(name, options), TypeError)
  bus.pubsub('t', { keep: 10_000, retain: true, ttl: 1 })
})

test('one batch is under way; the next collects meanwhile, up to its bounds', async () => {
  const bus = new FaultyBus()
  const pubsub = bus.pubsub<string>('t')
  let release = () => {}
  bus.before = () => new Promise<void>((resolve) => (release = resolve))
  const first = pubsub.publish('first')
  await settled()
  const many = numbers(1, 250).map(() => pubsub.publish('x'))
  const large = [pubsub.publish('y'.repeat(MAX_BATCH_BYTES / 2)), pubsub.publish('z'.repeat(MAX_BATCH_BYTES))]
  await settled()
  assert.equal(bus.published.length, 1)
  bus.before = undefined
  release()
  await Promise.all([first, ...many, ...large])
  assert.deepEqual(
    bus.published.map(({ number, messages }) => [number, messages.length]),
    [
      [1, 1],
      [2, MAX_BATCH],
      [3, MAX_BATCH],
      [4, 51],
      [5, 1],
    ],
  )
  assert.equal(new Set(bus.published.map(({ publisher }) => publisher)).size, 1)
  assert.equal(bus.watchers, 0)
})

test('a publish rejects in time if there is no reply, also one that waits for another; later ones go on', async () => {
  const bus = new FaultyBus({ within: 200 })
  const pubsub = bus.pubsub<number>('t')
  let release = () => {}
  bus.before = () => new Promise<void>((resolve) => (release = resolve))
  const outcomes = Promise.all([1, 2].map((n) => timed(() => pubsub.publish(n))))
  await settled()
  const behind = await timed(() => pubsub.publish(3))
  assert.ok(behind.error instanceof UnavailableError)
  assert.deepEqual([behind.error.sent, behind.ms >= 199 && behind.ms < 600], [false, true])
  for (const { error, ms } of await outcomes) {
    assert.ok(error instanceof UnavailableError)
    assert.deepEqual([error.sent, ms < 600], [true, true])
  }
  bus.before = undefined
  release()
  const there = new FaultyBus({ store: bus.store }).pubsub<number>('t')
  const log = recorded(there)
  await there.subscribe()
  await pubsub.publish(4)
  await settled()
  assert.equal(log.at(-1), 4)
  assert.ok(!log.includes(3))
})

test('the error of a batch reaches its messages, and the next batch is sent', async () => {
  const bus = new FaultyBus()
  const pubsub = bus.pubsub<number>('t')
  bus.before = () => Promise.reject(unavailable())
  const failed = await Promise.all([1, 2].map((n) => rejectionOf(pubsub.publish(n))))
  for (const error of failed) assert.ok(error instanceof UnavailableError)
  bus.before = undefined
  await pubsub.publish(3)
  assert.deepEqual(
    bus.published.map(({ number }) => number),
    [1, 2],
  )
})

test('too many messages that wait are refused', async () => {
  const bus = new FaultyBus({ maxMessage: 32 * 1024 * 1024 })
  const pubsub = bus.pubsub<Buffer>('t')
  const bytes = Buffer.alloc(16 * 1024 * 1024)
  const outcomes = await Promise.allSettled(numbers(1, 6).map(() => pubsub.publish(bytes)))
  const refused = outcomes.filter(({ status }) => status === 'rejected') as PromiseRejectedResult[]
  assert.equal(refused.length, 3)
  for (const { reason } of refused) assert.ok(reason instanceof OverloadedError)
  await pubsub.publish(bytes)
})

test('`ttl`: kept messages are forgotten when it has passed', async () => {
  const clock = new ManualClock()
  const bus = new FaultyBus({ store: new MemoryBus({ clock }) })
  const options = { retain: true, ttl: 100_000 }
  const received = async (): Promise<unknown[]> => {
    const pubsub: Pubsub<number> = bus.pubsub<number>('t', options)
    const log = recorded(pubsub)
    await pubsub.subscribe()
    await pubsub.unsubscribe()
    return log
  }
  await bus.pubsub<number>('t', options).publish(1)
  await clock.pass(99_000)
  assert.deepEqual(await received(), [1])
  await clock.pass(2_000)
  assert.deepEqual(await received(), [])
})
