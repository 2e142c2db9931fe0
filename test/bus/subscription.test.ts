// A subscription under faults: what was missed, what was forged, what does not answer.

import assert from 'node:assert/strict'
import { afterEach, test } from 'node:test'
import { ASK_INTERVAL, type TopicPosition } from '../../src/bus/pubsub/subscription.ts'
import { MemoryBus } from '../../src/bus/store/memory-store.ts'
import { jsonCodec } from '../../src/kernel/codec/codec.ts'
import { disconnectFaultyBuses, FaultyBus, numbers, recorded, unavailable } from '../support/bus-client.ts'
import { ManualClock, settled } from '../support/manual-clock.ts'
import { rejectionOf, soon, until } from '../support/wait.ts'

afterEach(disconnectFaultyBuses)

const encoded = (value: unknown): Buffer => jsonCodec.encode(value)

async function publishAll(bus: FaultyBus, values: readonly number[], options = {}): Promise<void> {
  const publisher = bus.pubsub<number>('t', options)
  await Promise.all(values.map((value) => publisher.publish(value)))
}

/** Two processes at one store: the first subscribes, the second publishes. */
async function scene(options = {}) {
  const store = new MemoryBus()
  const [here, there] = [new FaultyBus({ store }), new FaultyBus({ store })]
  const pubsub = here.pubsub<number>('t', options)
  const log = recorded(pubsub)
  await pubsub.subscribe()
  return {
    store,
    here,
    there,
    pubsub,
    log,
    publish: (...values: number[]) => publishAll(there, values, options),
  }
}

/** The life of the topic. */
async function lifeOf(bus: FaultyBus): Promise<string> {
  const terms = { keep: 0, retain: false, ttl: 1 }
  return (await bus.member.instance.topics.resume('t', '', 0, terms, 100)).life
}

test('B5 without `keep`: what was published while the connection was away is a gap with its number', async () => {
  const { here, log, publish } = await scene()
  await publish(1, 2)
  here.cut()
  await publish(3, 4, 5)
  here.heal()
  await until(() => log.length > 2, { what: 'the gap' })
  await publish(6)
  await settled()
  assert.deepEqual(log, [1, 2, 'gap 3', 6])
})

test('B5 the gap is told at once when the next message comes', async () => {
  const { here, log, publish } = await scene()
  here.cut()
  await publish(1, 2, 3)
  here.heal()
  await settled()
  assert.deepEqual(log, [])
  await publish(4)
  await settled()
  assert.deepEqual(log, ['gap 3', 4])
  assert.equal(here.countOf('resume'), 2)
})

test('B5 with `keep`: it arrives first, in order, once each, and no gap is told', async () => {
  const { here, log, publish } = await scene({ keep: 10 })
  await publish(1, 2)
  here.cut()
  await publish(3, 4, 5)
  // What is published while the question is under way follows.
  here.before = async (call) => {
    if (call === 'resume') await publish(6)
  }
  here.after = async (call) => {
    if (call === 'resume') await publish(7)
  }
  here.heal()
  await until(() => log.length === 7, { what: 'all messages' })
  assert.deepEqual(log, numbers(1, 7))
})

test('B5 with `keep`, less than was missed: the gap is told first, with the number that is not kept', async () => {
  const { here, log, publish } = await scene({ keep: 2 })
  await publish(1)
  here.cut()
  await publish(2, 3, 4, 5)
  here.heal()
  await until(() => log.length >= 4, { what: 'the rest' })
  assert.deepEqual(log, [1, 'gap 2', 4, 5])
})

test('B5 a message that is lost on the way is missed when the next one comes', async () => {
  for (const keep of [0, 10]) {
    const { here, log, publish } = await scene({ keep })
    await publish(1)
    const [[listener = assert.fail()] = []] = [...here.listeners]
    const deliver = listener.onMessages.bind(listener)
    listener.onMessages = () => {}
    await publish(2, 3)
    await settled()
    listener.onMessages = deliver
    await publish(4)
    await until(() => log.includes(4), { what: 'the last message' })
    assert.deepEqual(log, keep ? [1, 2, 3, 4] : [1, 'gap 2', 4])
  }
})

test('B5 a topic that was lost: the gap has no number, and the messages of the new one arrive', async () => {
  for (const keep of [0, 10]) {
    const clock = new ManualClock()
    const store = new MemoryBus({ clock })
    const [here, there] = [new FaultyBus({ store }), new FaultyBus({ store })]
    const pubsub = here.pubsub<number>('t', { keep, ttl: 1000 })
    const log = recorded(pubsub)
    await pubsub.subscribe()
    await publishAll(there, [1, 2], { keep, ttl: 1000 })
    await settled()
    // No renewal reaches the store for longer than the topic lives.
    here.before = () => Promise.reject(unavailable())
    await clock.pass(60_000)
    here.before = undefined
    await publishAll(there, [3], { keep, ttl: 1000 })
    await clock.pass(ASK_INTERVAL)
    await publishAll(there, [4], { keep, ttl: 1000 })
    await settled()
    assert.deepEqual(log, [1, 2, 'gap undefined', 3, 4])
    assert.equal(here.forgotten, 1)
    await pubsub.unsubscribe()
  }
})

test('B5 a server that has lost the last messages: the gap has no number, and the next messages arrive', async () => {
  const { here, log, publish } = await scene()
  await publish(1, 2, 3)
  await settled()
  here.cut()
  here.told = (resumed) => ({ ...resumed, last: 1 })
  here.heal()
  await until(() => log.length > 3, { what: 'the gap' })
  here.forge(await lifeOf(here), 2, encoded('two'))
  assert.deepEqual(log, [1, 2, 3, 'gap undefined', 'two'])
})

test('B5 a subscription that goes on behind a position: what is kept comes, once each, and the rest is a gap', async () => {
  const options = { keep: 3 }
  const { here, pubsub, publish } = await scene(options)
  await publish(1, 2)
  await until(() => pubsub.position?.number === 2, { what: 'the messages' })
  const from = pubsub.position
  await pubsub.unsubscribe()
  assert.equal(pubsub.position, undefined)
  const goOn = async (position: TopicPosition | undefined, count: number) => {
    const other = here.pubsub<number>('t', options)
    const log = recorded(other)
    await other.subscribe({ from: position })
    await until(() => log.length >= count, { what: 'what came since' })
    return log
  }
  await publish(3, 4, 5)
  assert.deepEqual(await goOn(from, 3), [3, 4, 5])
  await publish(6, 7)
  assert.deepEqual(await goOn(from, 4), ['gap 2', 5, 6, 7])
  assert.equal((await goOn({ life: 'another', number: 2 }, 1))[0], 'gap undefined')
  for (const wrong of [{}, { life: '', number: 1 }, { life: 'x', number: -1 }, 'x'])
    await assert.rejects(here.pubsub('t').subscribe({ from: wrong as never }), TypeError)
})

test('a question without a reply is asked again until there is one', async () => {
  const { here, log, publish } = await scene({ keep: 10 })
  here.cut()
  await publish(1)
  let failures = 2
  here.before = (call) => (call === 'resume' && failures-- > 0 ? Promise.reject(unavailable()) : undefined)
  here.heal()
  await until(() => log.length === 1, { what: 'the message' })
  assert.equal(failures, -1)
})

test('an old reply is ignored: the connection was lost again meanwhile', async () => {
  const { here, log, publish } = await scene({ keep: 10 })
  let release = () => {}
  here.after = () => new Promise<void>((resolve) => (release = resolve))
  here.cut()
  await publish(1)
  here.heal()
  await settled()
  here.cut()
  await publish(2)
  release()
  await settled()
  assert.deepEqual(log, [])
  here.after = undefined
  here.heal()
  await until(() => log.length === 2, { what: 'both messages' })
  assert.deepEqual(log, [1, 2])
})

test('B5 a reply that overtakes messages: they are not taken for missing', async () => {
  const late: (() => void)[] = []
  const store = new MemoryBus({ deliver: (message) => void late.push(message) })
  const here = new FaultyBus({ store })
  const pubsub = here.pubsub<number>('t')
  const log = recorded(pubsub)
  await pubsub.subscribe()
  await publishAll(here, [1, 2, 3])
  here.forge('another life', 1, encoded('forged'))
  await until(() => here.countOf('resume') === 2, { what: 'the question' })
  await settled()
  for (const deliver of late.splice(0)) deliver()
  await until(() => here.countOf('resume') === 3, { what: 'the next question' })
  await settled()
  assert.deepEqual(log, [1, 2, 3])
  // One that does not come is missing, but not before the next one has been asked for.
  await publishAll(here, [4])
  late.length = 0
  here.forge('another life', 1, encoded('forged'))
  await until(() => log.length > 3, { what: 'the gap' })
  await publishAll(here, [5])
  for (const deliver of late.splice(0)) deliver()
  await settled()
  assert.deepEqual(log, [1, 2, 3, 'gap 1', 5])
})

test('forged: huge numbers and other lives neither stop nor flood a subscriber', async () => {
  const { here, log, publish } = await scene()
  await publish(1)
  await settled()
  const life = await lifeOf(here)
  const before = here.countOf('resume')
  const until = performance.now() + 4 * ASK_INTERVAL
  let forged = 0
  while (performance.now() < until) {
    for (let n = 0; n < 100; n++, forged++) {
      here.forge(life, 2 ** 40 + n, encoded('forged'))
      here.forge(`life ${n}`, n + 1, encoded('forged'))
    }
    for (const first of [Number.NaN, -1, 0, 1.5, Number.MAX_VALUE]) here.forge(life, first, encoded('forged'))
    here.forge(life, 2)
    await publish(log.length + 1)
    await settled()
  }
  assert.ok(forged > 1000, `only ${forged}`)
  assert.ok(here.countOf('resume') - before <= 6, `${here.countOf('resume') - before} questions`)
  assert.deepEqual(log, numbers(1, log.length))
  assert.ok(log.length > 4)
})

test('forged: the next number once; later messages arrive, and a gap is told', async () => {
  const { here, log, publish } = await scene()
  await publish(1)
  await settled()
  here.forge(await lifeOf(here), 2, ...numbers(1, 50).map((n) => encoded(`forged ${n}`)))
  await publish(2)
  await until(() => log.includes('gap undefined'), { what: 'the gap' })
  await publish(3)
  await settled()
  assert.equal(log.at(-1), 3)
})

test('while a question is under way only so much is buffered; the rest is a gap', async () => {
  const forgeries = [
    { count: 100, messages: [Buffer.alloc(1024 * 1024, 0)] },
    { count: 200, messages: Array<Buffer>(100).fill(Buffer.from('x')) },
  ]
  for (const { count, messages } of forgeries) {
    const { here, log, publish } = await scene()
    let release = () => {}
    here.before = (call) =>
      call === 'resume' ? new Promise<void>((resolve) => (release = resolve)) : undefined
    here.cut()
    await publish(1)
    here.heal()
    const life = await lifeOfQuietly(here)
    for (let n = 0; n < count; n++) here.forge(life, 10 + n, ...messages)
    await publish(2)
    here.before = undefined
    release()
    await until(() => log.includes('gap 2'), { what: 'the gap' })
    await publish(3)
    await settled()
    assert.deepEqual(log, ['gap 2', 3])
  }
})

/** As {@link lifeOf}, beside the calls of the bus. */
async function lifeOfQuietly({ store }: FaultyBus): Promise<string> {
  return lifeOf(new FaultyBus({ store }))
}

test('subscribe rejects within the limit if the subscription is not established, or the question not answered', async () => {
  for (const breakIt of [
    (bus: FaultyBus) => bus.cut(),
    (bus: FaultyBus) => {
      bus.before = () => new Promise(() => {})
    },
  ]) {
    const bus = new FaultyBus({ within: 100 })
    breakIt(bus)
    const pubsub = bus.pubsub('t')
    const error = await soon(rejectionOf(pubsub.subscribe()), 1000)
    assert.equal((error as { code: string }).code, 'E_UNAVAILABLE')
    assert.equal(pubsub.isSubscribed(), false)
    assert.equal(bus.listeners.size, 0)
    assert.equal(bus.watchers, 0)
    bus.before = undefined
    bus.heal()
    await pubsub.subscribe()
    await pubsub.unsubscribe()
  }
})

test('subscribe rejects with the error of the store', async () => {
  const bus = new FaultyBus()
  bus.before = () => Promise.reject(unavailable())
  await assert.rejects(bus.pubsub('t').subscribe(), { code: 'E_UNAVAILABLE' })
  assert.equal(bus.listeners.size, 0)
})

test('unsubscribe while it subscribes: subscribe rejects, and nothing is left', async () => {
  const bus = new FaultyBus()
  const pubsub = bus.pubsub('t')
  const events: string[] = []
  pubsub.on('subscribed', () => events.push('subscribed'))
  pubsub.on('unsubscribed', () => events.push('unsubscribed'))
  const subscribing = rejectionOf(pubsub.subscribe())
  await pubsub.unsubscribe()
  assert.equal(((await subscribing) as { code: string }).code, 'E_CLOSED')
  assert.equal(bus.listeners.size, 0)
  assert.deepEqual(events, [])
})

test('a topic that was lost is followed to the instance where somebody else has made it', async () => {
  const [here, other] = [new FaultyBus(), new FaultyBus()]
  const pubsub = here.pubsub<number>('t', { keep: 10 })
  const log = recorded(pubsub)
  await pubsub.subscribe()
  await publishAll(here, [1], { keep: 10 })
  await settled()
  await publishAll(other, [2], { keep: 10 })
  here.cut()
  here.told = (resumed) => ({ life: 'another', last: 0, messages: resumed.messages.slice(0, 0) })
  const { places } = here.context
  places.place = async (_kind, _name, use) => (await use(other.member, '')) ?? assert.fail()
  here.heal()
  await until(() => log.includes(2), { what: 'the message of the other instance' })
  await publishAll(other, [3], { keep: 10 })
  await settled()
  assert.deepEqual(log, [1, 'gap undefined', 'gap undefined', 2, 3])
  assert.equal(here.listeners.size, 0)
  assert.equal(other.listeners.size, 1)
})

test('the record is renewed while it is subscribed to, and no longer', async () => {
  const clock = new ManualClock()
  const bus = new FaultyBus({ store: new MemoryBus({ clock }) })
  const pubsub = bus.pubsub('t')
  await pubsub.subscribe()
  await clock.pass(35_000)
  assert.equal(bus.countOf('renew'), 3)
  assert.equal(bus.store.exists('topic', 't'), true)
  await pubsub.unsubscribe()
  await clock.pass(60_000)
  assert.equal(bus.countOf('renew'), 3)
  assert.equal(bus.store.exists('topic', 't'), false)
  assert.equal(clock.pending, 0)
})
