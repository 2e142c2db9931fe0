// The bus of a gateway over a WebSocket: queues and topics end to end, outages, other gateways, scopes.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { RemoteBus } from '../../../src/bus/remote/index.ts'
import { socketsOf } from '../../../src/gateway/ws/sockets.ts'
import { Bus } from '../../../src/index.ts'
import { type Answer, FakeGateway } from '../../support/fake-gateway.ts'
import { onBothWorlds } from '../../support/gateway.ts'
import { messagingIn } from '../../support/gateway-messaging.ts'
import { remoteOptions as options, Place, placeIn, recorded } from '../../support/remote-bus.ts'
import { until } from '../../support/wait.ts'

onBothWorlds(
  'remote - a topic: what a program on Redis and a page publish reaches both, in order',
  async (w) => {
    await using m = messagingIn(w)
    const { port } = await m.open()
    await using remote = new RemoteBus(`ws://127.0.0.1:${port}/ws`, options())
    const log = recorded(remote)
    await remote.connect()
    const here = remote.pubsub<unknown>('topic')
    const there = m.bus().pubsub<unknown>('topic')
    const [received, heard]: [unknown[], unknown[]] = [[], []]
    here.on('message', (message) => received.push(message))
    there.on('message', (message) => heard.push(message))
    await Promise.all([here.subscribe(), there.subscribe()])
    await assert.rejects(here.subscribe(), { code: 'E_ALREADY_ATTACHED' })
    await there.publish({ n: 1.5, text: 'ä\u2028' })
    await Promise.all([2, 3, 4].map((n) => here.publish(n)))
    await until(() => received.length === 4 && heard.length === 4, { what: 'the messages' })
    assert.deepEqual(received, [{ n: 1.5, text: 'ä\u2028' }, 2, 3, 4])
    assert.deepEqual(heard, received)
    await here.unsubscribe()
    assert.equal(here.isSubscribed(), false)
    await there.publish('late')
    await until(() => heard.length === 5, { what: 'the message' })
    await remote.pubsub('other').publish(1)
    assert.equal(received.length, 4)
    await assert.rejects(here.publish(undefined), { code: 'E_CODEC' })
    await remote.disconnect()
    await assert.rejects(here.publish(1), { code: 'E_CLOSED' })
    assert.deepEqual(log, ['online', 'offline'])
  },
)

onBothWorlds(
  'remote - a queue: pushed, consumed, acknowledged, counted, with metadata, and closed',
  async (w) => {
    await using m = messagingIn(w)
    const { port } = await m.open()
    await using remote = new RemoteBus(`ws://127.0.0.1:${port}/ws`, options())
    const queue = remote.queue<number>('q')
    const events: string[] = []
    for (const name of ['attaching', 'attached', 'detached', 'closed'] as const)
      queue.on(name, () => events.push(name))
    const early = queue.push(1, { key: 'k' })
    early.catch(() => {})
    assert.equal(await queue.exists(), false)
    assert.equal(await queue.attach({ ttl: 60_000, maxsize: 3 }), false)
    assert.equal(await early, 1)
    assert.deepEqual(await Promise.all([queue.push(2), queue.push(3)]), [2, 3])
    await assert.rejects(queue.push(4), { code: 'E_QUEUE_FULL' })
    assert.deepEqual([await queue.count(), await queue.maxsize(), queue.pushed()], [3, 3, 3])
    assert.equal(await queue.metadata('owner', { name: ['me'] }), true)
    assert.deepEqual(await queue.metadata('owner'), { name: ['me'] })
    assert.deepEqual(await queue.metadata(), { owner: { name: ['me'] } })
    assert.equal(await queue.metadata('nothing'), undefined)
    const other = m.bus().queue<number>('q')
    assert.equal(await other.attach(), true)
    const received: [number, number, string | undefined][] = []
    queue.on('message', (value, id, { key }) => {
      received.push([value, id, key])
      if (id === 2) void queue.ack(2)
    })
    await queue.consume({ reliable: true, prefetch: 2 })
    await until(() => received.length === 3, { what: 'the messages' })
    assert.deepEqual(received, [
      [1, 1, 'k'],
      [2, 2, undefined],
      [3, 3, undefined],
    ])
    await queue.stop()
    assert.equal(queue.isConsuming(), false)
    await until(async () => (await other.count()) === 1, { what: 'the rest to go back' })
    const rest: number[] = []
    other.on('message', (value, _, { redelivered }) => rest.push(value, redelivered))
    await other.consume({ max: 1 })
    await until(() => rest.length === 2, { what: 'the rest' })
    assert.deepEqual(rest, [3, 1])
    await other.close()
    await until(() => events.includes('closed'), { what: 'the event' })
    assert.deepEqual(events, ['attaching', 'attached', 'closed'])
    assert.equal(queue.isAttached(), false)
  },
)

onBothWorlds('remote - the gateway goes: calls fail in time; it comes back: all goes on', async (w) => {
  const { place, bus, end } = placeIn(w)
  await place.up()
  const remote = new RemoteBus(place.url, options({ unavailableAfter: 3_000 }))
  const log = recorded(remote)
  try {
    const kept = remote.pubsub<number>('kept', { keep: 10 })
    const plain = remote.pubsub<number>('plain')
    const received: unknown[] = []
    kept.on('message', (message) => received.push(message))
    kept.on('gap', (missed) => received.push({ missed }))
    const gaps: unknown[] = []
    plain.on('gap', (missed) => gaps.push(missed))
    await Promise.all([kept.subscribe(), plain.subscribe()])
    const queue = remote.queue<number>('q')
    const messages: number[] = []
    const acked: Promise<void>[] = []
    queue.on('message', (value, id) => {
      messages.push(value)
      const ack = queue.ack(id)
      ack.catch(() => {})
      acked.push(ack)
    })
    await queue.attach()
    await queue.consume({ reliable: true })
    await kept.publish(1)
    await plain.publish(1)
    await queue.push(1)
    await until(() => received.length === 1 && messages.length === 1, { what: 'the first messages' })
    await Promise.all(acked)

    await place.down()
    await until(() => log.includes('offline'), { what: 'the event' })
    const away = await kept.publish(0).then(
      () => assert.fail('it was published'),
      (error: Error & { code: string; sent: boolean }) => error,
    )
    assert.deepEqual([away.code, away.sent], ['E_UNAVAILABLE', false])
    const there = bus()
    const [keptThere, plainThere, queueThere] = [
      there.pubsub<number>('kept', { keep: 10 }),
      there.pubsub<number>('plain'),
      there.queue<number>('q'),
    ]
    for (const n of [2, 3]) await keptThere.publish(n)
    for (const n of [2, 3, 4]) await plainThere.publish(n)
    await queueThere.attach()
    await queueThere.push(2)

    const late = kept.publish(4)
    await place.up()
    await late
    await until(() => received.length === 4 && messages.length === 2 && gaps.length === 1, {
      what: 'the rest',
    })
    assert.deepEqual(received, [1, 2, 3, 4])
    assert.deepEqual(messages, [1, 2])
    assert.deepEqual(gaps, [3])
    await queue.push(3)
    await until(() => messages.length === 3, { what: 'the queue to go on' })
    assert.deepEqual(log, ['online', 'offline', 'online'])
  } finally {
    await remote.disconnect()
    await end()
  }
})

onBothWorlds('remote - a channel: roles, messages both ways, its peer goes and comes, its end', async (w) => {
  await using m = messagingIn(w)
  const { port } = await m.open()
  const remote = new RemoteBus(`ws://127.0.0.1:${port}/ws`, options())
  const here = remote.channel<string, string>('chat')
  const there = m.bus().channel<string, string>('chat')
  const log: string[] = []
  for (const event of ['connect', 'disconnect', 'remote:connect', 'remote:disconnect', 'end'] as const) {
    here.on(event, () => log.push(`here ${event}`))
    there.on(event, () => log.push(`there ${event}`))
  }
  here.on('message', (text) => log.push(`here got ${text}`))
  there.on('message', (text) => log.push(`there got ${text}`))
  await here.connect()
  assert.equal(here.isAttached(), true)
  await here.send('early')
  await there.listen()
  await there.send('hello')
  await until(() => log.includes('there got early') && log.includes('here got hello'), {
    what: 'the messages',
  })
  await until(() => log.includes('there remote:connect') && log.includes('here remote:connect'), {
    what: 'both',
  })
  await here.disconnect()
  await until(() => log.includes('there remote:disconnect'), { what: 'the peer to be told' })
  assert.ok(log.includes('here disconnect'))
  await assert.rejects(here.send('x'), { code: 'E_NOT_ATTACHED' })
  await m.bus().channel('chat').sendTo('local', 'by another')
  await here.connect()
  await until(() => log.includes('here got by another'), { what: 'what waited' })
  await there.end()
  await until(() => log.includes('here end'), { what: 'the end' })
  assert.equal(here.isAttached(), false)
  // A client that is gone leaves its role with its socket.
  const one = remote.channel('another')
  const other = m.bus().channel('another')
  const seen: string[] = []
  other.on('remote:connect', () => seen.push('connect'))
  other.on('remote:disconnect', () => seen.push('disconnect'))
  await Promise.all([one.connect(), other.listen()])
  await until(() => seen.length === 1, { what: 'the peer' })
  await remote.disconnect()
  await until(() => seen.length === 2, { what: 'the peer to go' })
  assert.deepEqual(seen, ['connect', 'disconnect'])
})

onBothWorlds(
  'remote - an object: saved and loaded, and refused when somebody else has saved it since',
  async (w) => {
    await using m = messagingIn(w)
    const { port } = await m.open()
    await using remote = new RemoteBus(`ws://127.0.0.1:${port}/ws`, options())
    interface User {
      name?: string
      visits?: number
      tags?: string[]
    }
    const here = remote.persistify<User>('user', { name: 'Ada', visits: 1, tags: ['a'] }, [
      'name',
      'visits',
      'tags',
    ])
    const there = m.bus().persistify<User>('user', {}, ['name', 'visits', 'tags'])
    assert.equal(await here.load(), false)
    assert.equal(await here.save(), true)
    assert.equal(await there.load(), true)
    assert.deepEqual({ ...there }, { name: 'Ada', visits: 1, tags: ['a'] })
    there.visits = 2
    assert.equal(await there.save(), true)
    here.visits = 3
    assert.equal(await here.save(), false, 'somebody else has saved it')
    assert.equal(await here.load(), true)
    assert.equal(here.visits, 2)
    here.visits = 3
    delete here.tags
    assert.deepEqual([await here.save(), await there.load()], [true, true])
    assert.deepEqual({ ...there }, { name: 'Ada', visits: 3, tags: undefined })
    here.persist(60_000)
    here.unpersist()
    assert.throws(() => here.persist(1), TypeError)
    assert.throws(() => remote.persistify('x', { save: 1 }, ['save' as never]), TypeError)
  },
)

onBothWorlds(
  'remote - the gateway goes and comes: roles of channels are taken again, objects are loaded again',
  async (w) => {
    const { place, bus, end } = placeIn(w)
    await place.up()
    const remote = new RemoteBus(place.url, options({ unavailableAfter: 10_000 }))
    try {
      const [here, there] = [remote.channel<string>('chat'), bus().channel<unknown, string>('chat')]
      const log: string[] = []
      for (const event of ['connect', 'disconnect'] as const) here.on(event, () => log.push(event))
      here.on('message', (text) => log.push(text))
      await Promise.all([here.connect(), there.listen()])
      const object = remote.persistify<{ n?: number }>('object', { n: 1 }, ['n'])
      assert.equal(await object.save(), true)
      object.persist(60_000)
      await place.down()
      await until(() => log.includes('disconnect'), { what: 'the role to be lost' })
      assert.equal(here.isAttached(), false)
      await there.send('meanwhile')
      await place.up()
      await until(() => log.includes('meanwhile'), { what: 'what was sent meanwhile' })
      assert.deepEqual(log, ['connect', 'disconnect', 'connect', 'meanwhile'])
      object.n = 2
      assert.equal(await object.save(), false, 'the version went with the socket')
      assert.equal(await object.load(), true)
      object.n = 2
      assert.equal(await object.save(), true)
    } finally {
      await remote.disconnect()
      await end()
    }
  },
)

onBothWorlds(
  'remote - a message that was lost with the socket is delivered again, and cannot be acknowledged before',
  async (w) => {
    const { place, end } = placeIn(w)
    await place.up()
    const remote = new RemoteBus(place.url, options({ unavailableAfter: 10_000 }))
    try {
      const queue = remote.queue<string>('q')
      const received: [string, number, number][] = []
      queue.on('message', (value, id, { redelivered }) => received.push([value, id, redelivered]))
      await queue.attach({ ttl: 60_000 })
      await queue.consume({ reliable: true, prefetch: 2 })
      await queue.push('one')
      await queue.push('two')
      await until(() => received.length === 2, { what: 'the messages' })
      await queue.ack(1)
      await place.down()
      await until(() => !remote.isOnline(), { what: 'the client to notice' })
      const early = queue.ack(2)
      early.catch(() => {})
      await place.up()
      await assert.rejects(early, { code: 'E_LEASE_LOST' })
      await until(() => received.length === 3, { what: 'the message again' })
      assert.deepEqual(received[2], ['two', 2, 1])
      await queue.ack(2)
      assert.equal(await queue.count(), 0)
    } finally {
      await remote.disconnect()
      await end()
    }
  },
)

onBothWorlds('remote - a socket that ends leaves nothing at the gateway', async (w) => {
  await using m = messagingIn(w)
  const { port, gateway } = await m.open()
  const remote = new RemoteBus(`ws://127.0.0.1:${port}/ws`, options())
  const queue = remote.queue('q')
  await queue.attach({ ttl: 1_000 })
  await queue.consume({ reliable: true })
  await remote.pubsub('t').subscribe()
  await remote.channel('c').connect()
  const there = m.bus()
  assert.equal(await there.queue('q').exists(), true)
  await remote.disconnect()
  await until(() => socketsOf(gateway).size === 0, { what: 'the socket to end' })
  await until(async () => !(await there.queue('q').exists()), { what: 'the queue to expire' })
  await there.channel('c').connect()
})

test('remote - a wrong token is refused, and not tried for ever; a token has its scopes', async () => {
  const tokens = [
    { token: 'reader', scopes: ['read'] as const },
    { token: 'worker', scopes: ['work', 'submit'] as const },
  ]
  await using place = await new Place(() => ({ tokens })).up()
  await using wrong = new RemoteBus(place.url, options({ token: 'wrong' }))
  await assert.rejects(wrong.connect(), { code: 'E_UNAVAILABLE', message: /refuses the token/ })
  await assert.rejects(wrong.queue('q').count(), { code: 'E_UNAVAILABLE' })
  await using silent = new RemoteBus(place.url, options())
  await assert.rejects(silent.connect(), { code: 'E_UNAVAILABLE', message: /refuses/ })
  await using reader = new RemoteBus(place.url, options({ token: 'reader' }))
  await reader.pubsub('topic').subscribe()
  await assert.rejects(reader.pubsub('topic', { keep: 10_000 }).subscribe(), /insufficient scope/)
  await assert.rejects(reader.pubsub('topic').publish(1), /insufficient scope/)
  await assert.rejects(reader.queue('q').attach(), /insufficient scope/)
  await using worker = new RemoteBus(place.url, options({ token: 'worker' }))
  const queue = worker.queue('q')
  await queue.attach()
  await queue.push(1)
  await assert.rejects(queue.flush(), /insufficient scope/)
  await assert.rejects(queue.close(), /insufficient scope/)
})

test('remote - a gateway that cannot serve now, and says so, is asked again', async () => {
  for (const status of [503, 500, 429, undefined]) {
    const hello: Answer = ({ id, type }, send, nth) => {
      if (type === 'hello' && nth < 3) send({ id, problem: { status, error: 'gateway is closing' } })
      return type === 'hello' && nth < 3
    }
    await using gateway = await FakeGateway.start(hello, [503, 502])
    await using remote = gateway.bus()
    const subscribing = remote.pubsub('t').subscribe()
    await remote.connect()
    await subscribing
    assert.equal(gateway.opened.length, 3, `${status}`)
  }
})

test('remote - a gateway that refuses the client is not asked again', async () => {
  for (const status of [401, 403, 400]) {
    await using gateway = await FakeGateway.start(({ id, type }, send) => {
      if (type === 'hello') send({ id, problem: { status } })
      return type === 'hello'
    })
    await using remote = gateway.bus()
    await assert.rejects(remote.connect(), { code: 'E_UNAVAILABLE', message: /refuses/ })
    await assert.rejects(remote.pubsub('t').publish(1), { code: 'E_UNAVAILABLE', message: /refuses/ })
    assert.equal(gateway.opened.length, 1, `${status}`)
  }
})

test('remote - options that are wrong are refused', () => {
  for (const url of ['http://a/ws', 'ws://user:secret@a/ws', 'ws://a/ws?token=secret', 'x', ''])
    assert.throws(
      () => new RemoteBus(url, options()),
      (error: Error) => error instanceof TypeError && !error.message.includes('secret'),
    )
  assert.throws(() => new RemoteBus('ws://a', options({ unavailableAfter: 0 })), TypeError)
  const bus = new RemoteBus('ws://a', options())
  for (const name of ['', 'x'.repeat(257), '\0', 7 as never]) assert.throws(() => bus.queue(name), TypeError)
  for (const [given, message] of [
    [{ tokn: 'x' }, /did you mean `token`/],
    [{ token: '' }, /`token`/],
    [{ token: 'secret'.repeat(1_000) }, /^Expected `token` to be text of 1 to 4096 characters$/],
    [{ unavailableAfter: Number.POSITIVE_INFINITY }, /`unavailableAfter`/],
    [{ WebSocket: {} }, /`WebSocket`/],
    [null, /an object/],
  ] as const) {
    const name = 'WebSocket'
    const complete = given && !(name in given) ? options(given as object) : (given as never)
    assert.throws(() => new RemoteBus('ws://a', complete), { name: 'TypeError', message })
    assert.throws(() => Bus.remote('ws://a', complete), { name: 'TypeError', message })
  }
})

test('remote - options of queues, channels and topics are checked as those of a bus on Redis', async () => {
  await using gateway = await FakeGateway.start(() => false)
  await using bus = gateway.bus()
  const queue = bus.queue('q')
  const wrong = { wrong: 1 } as object
  await assert.rejects(queue.attach(wrong), TypeError)
  await assert.rejects(queue.attach({ ttl: 1 }), TypeError)
  assert.equal(queue.isAttached(), false)
  await assert.rejects(queue.push(1, wrong), TypeError)
  await assert.rejects(queue.push(1, { key: '' }), TypeError)
  await assert.rejects(queue.consume(wrong), TypeError)
  await assert.rejects(queue.consume({ index: 1 }), TypeError)
  assert.throws(() => queue.messages({ throttle: () => {} }), TypeError)
  assert.equal(queue.isConsuming(), false)
  await assert.rejects(queue.ack(0), TypeError)
  await assert.rejects(bus.channel('c').connect(wrong), TypeError)
  await assert.rejects(bus.channel('c').ack(1.5), TypeError)
  assert.throws(() => bus.pubsub('t', wrong), TypeError)
  assert.throws(() => bus.pubsub('t', { keep: -1 }), TypeError)
  await assert.rejects(bus.pubsub('t').subscribe({ from: {} as never }), TypeError)
  assert.equal(gateway.opened.length, 0, 'no request was made')
})
