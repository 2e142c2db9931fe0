// A gateway that sends rubbish: its socket is ended, and connected to anew. Nothing throws, and nothing malformed is delivered.

import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import type { RemoteBus } from '../../../src/bus/remote/index.ts'
import { UnavailableError } from '../../../src/index.ts'
import { FakeGateway } from '../../support/fake-gateway.ts'
import { rejectionOf, until } from '../../support/wait.ts'

const uncaught: unknown[] = []
const note = (error: unknown) => void uncaught.push(error)
process.on('uncaughtException', note)
process.on('unhandledRejection', note)
after(() => {
  process.off('uncaughtException', note)
  process.off('unhandledRejection', note)
  assert.deepEqual(uncaught, [])
})

const info = { id: 1, redelivered: 0 }

/** What is no message, or none in its form. SUB stands for the id of a subscription. */
const MALFORMED: readonly (string | Buffer)[] = [
  'oops',
  '',
  'null',
  '1',
  '[]',
  '{}',
  '['.repeat(100_000),
  Buffer.from([1, 2]),
  Buffer.from('{"id":1,"ok":1}'),
  '{"id":null,"ok":1}',
  '{"id":{},"ok":1}',
  '{"id":1e300,"ok":1}',
  '{"id":1}',
  '{"id":1,"problem":null}',
  '{"id":1,"problem":"x"}',
  '{"id":1,"problem":{"status":"x"}}',
  '{"id":1,"problem":{"error":{}}}',
  '{"id":1,"problem":{"code":["E_CLOSED"]}}',
  '{"sub":null,"message":1}',
  '{"sub":{},"message":1}',
  '{"sub":SUB,"message":1,"info":null}',
  '{"sub":SUB,"message":1,"info":[]}',
  '{"sub":SUB,"message":1,"info":{"id":"1","redelivered":0}}',
  '{"sub":SUB,"message":1,"info":{"id":1e300,"redelivered":0}}',
  '{"sub":SUB,"message":1,"info":{"id":-1,"redelivered":0}}',
  '{"sub":SUB,"message":1,"info":{"id":1}}',
  '{"sub":SUB,"message":1,"info":{"__proto__":{"id":1,"redelivered":0}}}',
  '{"sub":SUB,"message":1,"info":{"id":1,"redelivered":0,"key":1}}',
  '{"sub":SUB,"message":1,"info":{"id":1,"redelivered":0,"fence":"1"}}',
  '{"sub":SUB,"info":{"id":1,"redelivered":0}}',
  '{"sub":SUB,"event":{}}',
  '{"sub":SUB,"event":"consuming","on":"yes"}',
  '{"sub":SUB,"message":1,"life":1,"number":1}',
  '{"sub":SUB,"message":1,"life":"l","number":"x"}',
  '{"sub":SUB,"message":1,"life":"l"}',
  '{"sub":SUB,"gap":"x","life":"l","number":1}',
]

for (const [type, open] of [
  ['consume', openQueue],
  ['subscribe', openTopic],
  ['connect', openChannel],
] as const) {
  test(`remote - whatever rubbish comes behind ${type}, the client connects again`, async () => {
    const comesBack = async (rubbish: string | Buffer) => {
      await using gateway = await FakeGateway.start((asked, send, nth) => {
        if (asked.type !== type) return false
        send({ id: asked.id, ok: null })
        const sub = asked.sub ?? asked.id
        const last = type === 'subscribe' ? { life: 'l', number: 1 } : { info }
        if (nth > 1) send({ sub, message: 'good', ...last })
        else send(typeof rubbish === 'string' ? rubbish.replace('SUB', JSON.stringify(sub)) : rubbish)
        return true
      })
      await using bus = gateway.bus()
      const received = open(bus)
      await until(() => received.length > 0, { what: `the message behind ${rubbish}`, timeout: 30_000 })
      assert.deepEqual([received, gateway.opened.length], [['good'], 2], `${rubbish}`)
    }
    await Promise.all(MALFORMED.map(comesBack))
    assert.deepEqual(uncaught, [])
  })
}

function openQueue(bus: RemoteBus): unknown[] {
  const received: unknown[] = []
  const queue = bus.queue('q')
  queue.on('message', (message) => received.push(message))
  queue.attach().then(() => queue.consume(), note)
  return received
}

function openTopic(bus: RemoteBus): unknown[] {
  const received: unknown[] = []
  const topic = bus.pubsub('t')
  topic.on('message', (message) => received.push(message))
  topic.subscribe().catch(note)
  return received
}

function openChannel(bus: RemoteBus): unknown[] {
  const received: unknown[] = []
  const channel = bus.channel('c', 'a', 'b')
  channel.on('message', (message) => received.push(message))
  channel.connect().catch(note)
  return received
}

test('remote - rubbish before and behind the accepted token: the pauses between sockets grow', async () => {
  for (const when of ['hello', 'ping']) {
    await using gateway = await FakeGateway.start(({ type }, send) => {
      if (type === when) send('oops')
      return type === when
    })
    await using bus = gateway.bus()
    while (gateway.opened.length < 6) await bus.connect().catch(() => {})
    const [first = 0] = gateway.opened
    // 25, 50, 100, 200 and 400 ms at least.
    assert.ok((gateway.opened[5] ?? 0) - first > 700, `${when}: ${gateway.opened}`)
  }
})

test('remote - an answer that has not the form of its call ends the socket: the call is unavailable', async () => {
  const calls: [string, unknown, (bus: RemoteBus) => Promise<unknown>][] = [
    ['inspect', 'x', (bus) => bus.queue('q').count()],
    ['inspect', -1, (bus) => bus.queue('q').count()],
    ['inspect', {}, (bus) => bus.queue('q').ttl()],
    ['inspect', [], (bus) => bus.queue('q').find()],
    ['metadata', 'x', (bus) => bus.queue('q').metadata()],
    ['flush', null, (bus) => bus.queue('q').flush()],
    ['subscribe', { life: 1, number: 'x' }, (bus) => bus.pubsub('t').subscribe()],
    ['subscribe', 'x', (bus) => bus.pubsub('t').subscribe()],
    ['send-to', 'x', (bus) => bus.channel('c').sendTo('role', 1)],
    ['load', [1], (bus) => bus.persistify('o', { a: 1 }, ['a']).load()],
  ]
  for (const [type, ok, call] of calls) {
    await using gateway = await FakeGateway.start((asked, send) => {
      if (asked.type === type) send({ id: asked.id, ok })
      return asked.type === type
    })
    await using bus = gateway.bus()
    const error = await rejectionOf(call(bus))
    assert.ok(error instanceof UnavailableError && error.sent, `${type}: ${error}`)
    await bus.connect()
    assert.equal(gateway.opened.length, 2)
  }
})

test('remote - hostile, but well-formed: it is ignored, and the socket stays', async () => {
  await using gateway = await FakeGateway.start(({ id, type, sub }, send) => {
    if (type !== 'consume') return false
    for (let n = 0; n < 5; n++) send({ id, ok: n })
    for (const event of ['error', '__proto__', 'constructor', 'message', 'attached']) send({ sub, event })
    for (const message of [
      { id: 'hello', problem: {} },
      { id: 'hello', ok: null },
      { id: 'unknown', ok: 1 },
      { id: '__proto__', ok: 1 },
      { id: 2 ** 53 - 1, problem: { code: 'constructor' } },
      { sub: 'unknown', message: 1, info },
      { sub: '__proto__', event: 'closed' },
      { sub, message: 'of a topic', life: 'l', number: 1 },
      { sub, gap: null, life: 'l', number: 2 ** 53 - 1 },
      { sub, problem: {} },
      { sub, later: 1 },
    ])
      send(message)
    const members = '"__proto__":{"polluted":1},"constructor":1'
    send(`{"sub":"${sub}","message":{${members}},"info":{"id":7,"redelivered":0,${members}},${members}}`)
    return true
  })
  await using bus = gateway.bus()
  const queue = bus.queue<object>('q')
  const received: [object, number, object][] = []
  queue.on('message', (...message) => received.push(message))
  await queue.attach()
  await queue.consume()
  await until(() => received.length > 0, { what: 'the message' })
  const [[message, id, of] = assert.fail()] = received
  assert.deepEqual(Object.keys(message), ['__proto__', 'constructor'])
  assert.deepEqual([id, of], [7, { redelivered: 0, key: undefined, fence: undefined }])
  assert.equal(({} as { polluted?: unknown }).polluted, undefined)
  assert.ok(bus.isOnline() && queue.isAttached() && queue.isConsuming())
  assert.equal(gateway.opened.length, 1)
})

test('remote - problems of any content are errors', async () => {
  const problems = ['{}', '{"code":"constructor","status":1e300}', '{"__proto__":{"code":"E_CLOSED"}}']
  for (const problem of problems) {
    await using gateway = await FakeGateway.start(({ id, type }, send) => {
      if (type === 'publish') send(`{"id":${JSON.stringify(id)},"problem":${problem}}`)
      return type === 'publish'
    })
    await using bus = gateway.bus()
    const error = await rejectionOf(bus.pubsub('t').publish(1))
    assert.equal((error as Error).constructor.name, 'SoloflightError')
  }
})
