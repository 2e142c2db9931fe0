// `/s/:service/:event`: calls to services, what their failures say, and hostile calls; `/b/:topic`: publishing.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createGateway } from '../../src/gateway/index.ts'
import { Bus, type Call, jsonCodec, type Pubsub, Services, type ServicesStats } from '../../src/index.ts'
import { EventClient, EventParser } from '../support/event-client.ts'
import { assertProblem, onBothWorlds, serve } from '../support/gateway.ts'
import { messagingIn } from '../support/gateway-messaging.ts'
import { setup } from '../support/setup.ts'
import { SocketClient } from '../support/socket-client.ts'
import { until } from '../support/wait.ts'

const json = (value: unknown) => ({ body: JSON.stringify(value) })

onBothWorlds(
  'services - a call has the arguments of its body, and answers what the handler returns',
  async (w) => {
    await using m = messagingIn(w)
    const { call } = await m.open()
    const sums = await m.services().register('sums')
    sums.on('add', (a: number, b: number) => a + b)
    sums.on('nothing', () => undefined)
    sums.on('several', (_, done) => done(null, 1, { b: [2] }))
    sums.on('__proto__', (value) => ({ value }))
    const added = await call('POST', '/s/sums/add', json([2, 3]))
    assert.deepEqual([added.status, added.text], [200, '5'])
    assert.equal(added.headers.get('content-type'), 'application/json')
    assert.equal((await call('POST', '/s/sums/nothing')).text, 'null')
    assert.equal((await call('POST', '/s/sums/several', json([1]))).text, '[1,{"b":[2]}]')
    assert.equal(
      (await call('POST', '/s/sums/__proto__', json([{ $: 'undefined' }]))).text,
      '{"value":{"$":"undefined"}}',
    )
  },
)

test('services - arguments reach the process byte for byte, by HTTP and by WebSocket', async () => {
  await using t = await setup()
  const server = await serve(createGateway({ redis: t.redis }))
  const seen: string[] = []
  const decode = (bytes: Buffer) => {
    seen.push(bytes.toString())
    return jsonCodec.decode(bytes)
  }
  await using services = new Services({ redis: t.redis, codec: { ...jsonCodec, decode } })
  const echo = await services.register('echo')
  echo.on('all', (...args) => args.length)
  const args = '{"n": 1.0, "big":9007199254740993,"n":[ ] },1e2,"\\u00e4"'
  try {
    const answer = await server.call('POST', '/s/echo/all', { body: ` [ ${args} ] ` })
    // The `call` follows them.
    assert.deepEqual([answer.status, answer.text], [200, '4'])
    await using client = await SocketClient.open(server)
    client.socket.send(`{"id":"x","type":"call","service":"echo","event":"all","args":[${args}]}`)
    await until(() => client.others.length > 0, { what: 'the reply' })
    assert.deepEqual(client.others, ['{"id":"x","ok":4}'])
    assert.equal(await client.call('call', { service: 'echo', event: 'all' }), 1)
    assert.deepEqual(seen, [`j[${args}]`, `j[${args}]`, 'j[]'])
  } finally {
    await server.close()
  }
})

onBothWorlds('services - each failure is a problem that says whether the handler has run', async (w) => {
  await using m = messagingIn(w)
  const { call } = await m.open()
  const ranOf = (answer: { json: unknown }) => (answer.json as { ran?: string }).ran
  const none = await call('POST', '/s/none/add', json([]))
  assertProblem(none, 404, 'no service')
  assert.equal(ranOf(none), 'no')
  const work = await m.services().register('work', { capacity: 1 })
  let aborted = 0
  work.on('fail', () => {
    throw Object.assign(new Error('too low'), { name: 'RangeError', code: 'E_LOW' })
  })
  work.on('hang', (call) => new Promise(() => call.signal.addEventListener('abort', () => aborted++)))
  for (const event of ['unknown', 'constructor', 'toString', '__proto__', 'hasOwnProperty']) {
    const unknown = await call('POST', `/s/work/${event}`, json([]))
    assertProblem(unknown, 404, 'unknown event')
    assert.equal(ranOf(unknown), 'no')
  }
  const failed = await call('POST', '/s/work/fail')
  assertProblem(failed, 500, 'remote')
  const { failure, ran } = failed.json as { failure: object; ran: string }
  assert.deepEqual([ran, failure], ['yes', { name: 'RangeError', message: 'too low', code: 'E_LOW' }])
  const late = call('POST', '/s/work/hang?timeout=2')
  const busy = await until(
    async () => {
      const answer = await call('POST', '/s/work/fail')
      return answer.status === 429 && answer
    },
    { what: 'the service to be full' },
  )
  assertProblem(busy, 429, 'busy')
  assert.equal(ranOf(busy), 'no')
  assertProblem(await late, 504, 'timeout')
  assert.equal(ranOf(await late), 'maybe')
  await until(() => aborted === 1, { what: 'the handler to be aborted' })
})

onBothWorlds(
  'services - a call waits for a first process, is tried again, and ends with its client',
  async (w) => {
    await using m = messagingIn(w)
    const { call } = await m.open()
    const services = m.services()
    const early = call('POST', '/s/late/attempt?wait=20')
    const late = await services.register('late')
    const attempts: number[] = []
    let isAborted = false
    late.on('attempt', (call) => call.attempt)
    const second = (call: Call) => {
      attempts.push(call.attempt)
      return call.attempt === 1 ? new Promise(() => {}) : 'done'
    }
    late.on('second', second)
    late.on(
      'hang',
      (call) =>
        new Promise(() => {
          attempts.push(0)
          call.signal.addEventListener('abort', () => {
            isAborted = true
          })
        }),
    )
    assert.equal((await early).text, '1')
    const other = m.services()
    const more = await other.register('late')
    more.on('second', second)
    assert.equal((await call('POST', '/s/late/second?timeout=500ms&tries=2')).text, '"done"')
    assert.deepEqual(attempts, [1, 2])
    await other.unregister('late', { grace: 0 })
    const client = new AbortController()
    const hanging = call('POST', '/s/late/hang', { signal: client.signal })
    await until(() => attempts.includes(0), { what: 'the handler to run' })
    client.abort()
    await assert.rejects(hanging)
    await until(() => isAborted, { what: 'the handler to be aborted' })
  },
)

test('services - hostile calls are refused before anything is sent', async () => {
  const services = new Services()
  const server = await serve(createGateway({ services, maxBody: 64 * 1024 }))
  const echo = await services.register('echo')
  let calls = 0
  echo.on('all', (...args) => {
    calls++
    return args.length
  })
  try {
    const bodies: [string, number, string][] = [
      ['{}', 400, 'invalid arguments'],
      ['"text"', 400, 'invalid arguments'],
      ['null', 400, 'invalid arguments'],
      [`[${Array(101).fill(0).join()}]`, 400, 'invalid arguments'],
      [`[${Array(30_000).fill(0).join()}]`, 400, 'invalid arguments'],
      ['['.repeat(1_001) + ']'.repeat(1_001), 400, 'json is too deep'],
      ['[1', 400, 'invalid json'],
      [`["${'x'.repeat(65 * 1024)}"]`, 413, 'body is too large'],
    ]
    for (const [body, status, error] of bodies)
      assertProblem(await server.call('POST', '/s/echo/all', { body }), status, error)
    const paths: [string, string][] = [
      [`/s/${'x'.repeat(257)}/all`, 'invalid service name'],
      ['/s/echo/%00', 'invalid event name'],
      ['/s/echo/all?timeout=0', 'invalid parameter'],
      ['/s/echo/all?tries=-1', 'invalid parameter'],
      ['/s/echo/all?tries=101', 'invalid parameter'],
      ['/s/echo/all?dedupe=1', 'invalid parameter'],
    ]
    for (const [path, error] of paths) assertProblem(await server.call('POST', path), 400, error)
    assert.equal(calls, 0)
    const nested = '['.repeat(1_000) + ']'.repeat(1_000)
    assert.equal((await server.call('POST', '/s/echo/all', { body: nested })).status, 200)
    assert.equal(calls, 1)
  } finally {
    await server.close()
    assert.equal((services.stats() satisfies ServicesStats).calling, 0)
    assert.equal(await services.require('echo').emit('all', 1), 2, 'services that were given stay open')
    await services.close()
  }
})

onBothWorlds('bus - a message that is posted reaches the subscribers of its topic', async (w) => {
  await using m = messagingIn(w)
  const { call } = await m.open()
  const prices: Pubsub = m.bus().pubsub('prices')
  const received: unknown[] = []
  prices.on('message', (message) => received.push(message))
  await prices.subscribe()
  const posted = await Promise.all([1, 2, 3].map((n) => call('POST', '/b/prices', json({ n }))))
  assert.deepEqual(
    posted.map(({ status, text }) => [status, text]),
    Array(3).fill([204, '']),
  )
  await until(() => received.length === 3, { what: 'the messages' })
  assert.deepEqual(received.map((each) => JSON.stringify(each)).sort(), ['{"n":1}', '{"n":2}', '{"n":3}'])
  assertProblem(await call('POST', '/b/prices'), 400, 'message is missing')
  assertProblem(await call('POST', '/b/prices', { body: '{' }), 400, 'invalid json')
  assertProblem(await call('POST', '/b/%00', json(1)), 400, 'invalid topic name')
})

onBothWorlds(
  'services - a streamed reply comes as events, ends by `end` or `error`, and with its client',
  async (w) => {
    await using m = messagingIn(w)
    const { url } = await m.open()
    const streams = await m.services().register('streams')
    let isAborted = false
    streams.on('count', async function* (to: number) {
      for (let n = 1; n <= to; n++) yield { n }
      if (to === 3) throw Object.assign(new Error('no more'), { name: 'RangeError' })
    })
    streams.on('endless', async function* (call: Call) {
      call.signal.addEventListener('abort', () => {
        isAborted = true
      })
      for (let n = 0; ; n++) yield n
    })
    const texts = async (path: string, body: string) => {
      const response = await fetch(`${url}/s/streams/${path}?stream=1`, { method: 'POST', body })
      const parser = new EventParser()
      parser.add(Buffer.from(await response.arrayBuffer()))
      return parser.events.map(({ event, data }) => `${event} ${data}`)
    }
    assert.deepEqual(await texts('count', '[2]'), ['message {"n":1}', 'message {"n":2}', 'end null'])
    const failed = await texts('count', '[3]')
    assert.match(failed.at(-1) ?? '', /^error .*"error":"remote".*"no more"/)
    assert.match((await texts('none', '[]'))[0] ?? '', /^error .*unknown event.*"ran":"no"/)
    const client = new AbortController()
    const endless = await fetch(`${url}/s/streams/endless?stream`, { method: 'POST', signal: client.signal })
    await endless.body?.getReader().read()
    client.abort()
    await until(() => isAborted, { what: 'the handler to be aborted' })
  },
)

onBothWorlds(
  'bus - a topic is followed by events, and behind the last one after a reconnection',
  async (w) => {
    await using m = messagingIn(w)
    const { url, call } = await m.open()
    const path = '/b/prices?keep=10&retain=1'
    await call('POST', path, json('retained'))
    const first = await EventClient.open(`${url}/b/prices`)
    assert.equal(first.status, 200)
    const events = [await first.next()].filter(({ data }) => data !== '"retained"')
    assert.deepEqual(events, [], 'the retained message comes first')
    await call('POST', path, json({ n: 1 }))
    const { id, data } = await first.next()
    assert.equal(data, '{"n":1}')
    first.close()
    for (const n of [2, 3]) await call('POST', path, json({ n }))
    const second = await EventClient.open(`${url}/b/prices`, { 'last-event-id': id })
    assert.deepEqual([(await second.next()).data, (await second.next()).data], ['{"n":2}', '{"n":3}'])
    const other = await EventClient.open(`${url}/b/prices`, { 'last-event-id': 'another.1' })
    const gap = await other.next()
    assert.deepEqual([gap.event, gap.data], ['gap', 'null'])
    for (const wrong of ['x', 'a.b', `${'x'.repeat(65)}.1`, `a.${'1'.repeat(16)}`])
      assert.equal((await EventClient.open(`${url}/b/prices`, { 'last-event-id': wrong })).status, 400)
    second.close()
    other.close()
  },
)

test('bus - a bus that was given stays connected, and is told values by its codec', async () => {
  const bus = new Bus()
  const server = await serve(createGateway({ bus }))
  const received: unknown[] = []
  const topic = bus.pubsub('topic')
  topic.on('message', (message) => received.push(message))
  await topic.subscribe()
  await server.call('POST', '/b/topic', json({ $: 'undefined' }))
  await server.close()
  await topic.publish('after')
  await until(() => received.length === 2, { what: 'the messages' })
  assert.deepEqual(received, [{ $: 'undefined' }, 'after'])
  await bus.disconnect()
})
