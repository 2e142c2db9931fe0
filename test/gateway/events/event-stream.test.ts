// Streams of server-sent events, over node:http and as the body of a Response.

import assert from 'node:assert/strict'
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { createServer, type ServerResponse } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import { test } from 'node:test'
import fc from 'fast-check'
import { ClosedError, OverloadedError, TimeoutError } from '../../../src/errors.ts'
import { Frame, type ServerSentEvent } from '../../../src/gateway/http/event-frame.ts'
import type { EventProducer, EventStream } from '../../../src/gateway/http/event-stream.ts'
import { EventStreams } from '../../../src/gateway/http/event-streams.ts'
import { Lifecycle } from '../../../src/gateway/lifecycle.ts'
import { channelName, type TelemetryEvents } from '../../../src/index.ts'
import { systemClock } from '../../../src/kernel/time.ts'
import { EventClient, EventParser } from '../../support/event-client.ts'
import { ManualClock } from '../../support/manual-clock.ts'
import { until } from '../../support/wait.ts'

interface Scene extends AsyncDisposable {
  streams: EventStreams
  lifecycle: Lifecycle
  clock: ManualClock
  /** Of the next request. */
  source: EventProducer
  lifetime: number | undefined
  /** The stream and the response of the last request. */
  stream: EventStream | undefined
  response: ServerResponse | undefined
  port: number
  open(options?: { paused?: boolean }): Promise<EventClient>
}

async function sceneOf({ maxStreams = 100, heartbeat = 8_000 } = {}): Promise<Scene> {
  const clock = new ManualClock()
  const lifecycle = new Lifecycle(systemClock)
  const streams = new EventStreams({ maxStreams, heartbeat }, clock, lifecycle)
  const server = createServer((_, response) => {
    const stream = streams.create((given) => scene.source(given), scene.lifetime)
    scene.stream = stream
    scene.response = response
    response.writeHead(200, { 'content-type': 'text/event-stream' })
    response.flushHeaders()
    stream.attachTo(response)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  const scene: Scene = {
    ...{ streams, lifecycle, clock, port },
    source: ({ ended }) => ended,
    lifetime: undefined,
    stream: undefined,
    response: undefined,
    open: (options) => EventClient.open(`http://127.0.0.1:${port}/`, {}, options),
    async [Symbol.asyncDispose]() {
      streams.close()
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
  return scene
}

/** The errors that are reported as `hook`. */
class Reported implements Disposable {
  readonly errors: unknown[] = []
  readonly #hear = (message: unknown): void => {
    this.errors.push((message as TelemetryEvents['hook']).error)
  }

  constructor() {
    subscribe(channelName('hook'), this.#hear)
  }

  [Symbol.dispose](): void {
    unsubscribe(channelName('hook'), this.#hear)
  }
}

function parsed(...events: ServerSentEvent[]): EventParser {
  const parser = new EventParser()
  for (const event of events) parser.add(Frame.of(event).bytes)
  return parser
}

test('event stream - any text arrives as data, and can begin no other field or event', () => {
  const hostile = fc.oneof(
    fc.string({ unit: 'binary' }),
    fc
      .array(
        fc.constantFrom(
          'data:',
          'id: 9',
          'event: x',
          'retry: 1',
          ':',
          '\n',
          '\r',
          '\r\n',
          ' ',
          '\0',
          '\u2028',
        ),
      )
      .map((parts) => parts.join('')),
  )
  fc.assert(
    fc.property(hostile, hostile, hostile, (data, event, id) => {
      const parser = parsed({ data, event, id }, { data: 'the next', id: '2' })
      assert.equal(parser.events.length, 2)
      assert.equal(parser.retry, undefined)
      assert.equal(parser.comments, 0)
      const [first, second] = parser.events
      assert.equal(first?.data, data.toWellFormed().replace(/\r\n|\r/g, '\n'))
      assert.equal(first?.event, event.toWellFormed().replace(/[\r\n\0]/g, ' ') || 'message')
      assert.equal(first?.id, id.toWellFormed().replace(/[\r\n\0]/g, ' '))
      assert.deepEqual(second, { id: '2', event: 'message', data: 'the next' })
    }),
    { numRuns: 500 },
  )
})

test('event stream - events arrive in order, and the stream ends with its source', async () => {
  await using scene = await sceneOf()
  scene.source = async (stream) => {
    for (let n = 0; n < 1_000; n++) stream.send({ id: String(n), data: `${n}\n${n}` })
  }
  const client = await scene.open()
  assert.equal(await client.ended(), 'complete')
  assert.deepEqual(
    client.events.map(({ data }) => data),
    Array.from({ length: 1_000 }, (_, n) => `${n}\n${n}`),
  )
  await until(() => scene.streams.size === 0, { what: 'the stream to be forgotten' })
})

test('event stream - a source that fails is told as a problem; a fault of ours is not told', async () => {
  await using scene = await sceneOf()
  scene.source = async () => {
    throw new TimeoutError('secret', { key: 'secret' })
  }
  const client = await scene.open()
  const { event, data } = await client.next()
  assert.equal(event, 'error')
  assert.deepEqual([JSON.parse(data).status, JSON.parse(data).error], [504, 'timeout'])
  assert.doesNotMatch(data, /secret/)
  assert.equal(await client.ended(), 'complete')
  scene.source = async () => {
    throw new Error('secret')
  }
  const warned = new Promise<Error>((resolve) => process.once('warning', resolve))
  const second = await scene.open()
  assert.match((await second.next()).data, /internal error/)
  assert.doesNotMatch(second.events[0]?.data ?? '', /secret/)
  assert.match(String(await warned), /secret/)
})

test('event stream - the client is gone: its source is told, and nothing is held', async () => {
  await using scene = await sceneOf()
  const over: string[] = []
  scene.source = async (stream) => {
    stream.signal.addEventListener('abort', () => over.push('aborted'))
    await stream.ended
    over.push('ended')
    stream.send({ data: 'nobody reads it' })
  }
  const client = await scene.open()
  assert.equal(scene.streams.size, 1)
  client.close()
  await until(() => over.length === 2, { what: 'the source to be told' })
  assert.equal(scene.streams.size, 0)
  assert.equal(scene.stream?.isOver, true)
  assert.equal(scene.stream?.signal.aborted, true)
})

test('event stream - the client of a response that waits for another one on its connection goes', async () => {
  await using scene = await sceneOf()
  const socket = connect(scene.port, '127.0.0.1')
  socket.write('GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n')
  await until(() => scene.streams.size === 2, { what: 'both streams' })
  socket.destroy()
  await until(() => scene.streams.size === 0, { what: 'both to end' })
})

test('event stream - a connection serves one stream after the other, and keeps no listener', async () => {
  await using scene = await sceneOf()
  scene.source = async (stream) => stream.send({ data: 'one' })
  const socket = connect(scene.port, '127.0.0.1')
  const warnings: Error[] = []
  const note = (warning: Error) => warnings.push(warning)
  process.on('warning', note)
  let text = ''
  socket.setEncoding('utf8').on('data', (part: string) => {
    text += part
  })
  for (let n = 1; n <= 30; n++) {
    socket.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n')
    await until(() => text.split('data: one').length === n + 1 && text.endsWith('0\r\n\r\n'), {
      what: 'an answer',
    })
  }
  socket.destroy()
  process.removeListener('warning', note)
  assert.deepEqual(warnings, [])
})

test('event stream - a client that does not read is cut when more than 1 MiB is pending', async () => {
  await using scene = await sceneOf()
  const client = await scene.open({ paused: true })
  const { stream, streams } = scene
  assert.ok(stream)
  const data = 'x'.repeat(64 * 1024)
  let sent = 0
  await until(
    () => {
      if (!stream.isOver) sent += data.length
      stream.send({ data })
      return stream.isOver
    },
    { what: 'the client to be cut', every: 1 },
  )
  assert.ok(sent > 1024 * 1024, `cut after ${sent} bytes`)
  assert.equal(streams.size, 0)
  assert.equal(streams.pending, 0, 'nothing is counted any more')
  client.resume()
  assert.equal(await client.ended(), 'cut')
})

test('event stream - one event may be larger than what may be pending', async () => {
  await using scene = await sceneOf()
  const data = 'x'.repeat(8 * 1024 * 1024)
  scene.source = async (stream) => {
    stream.send({ data })
    await stream.drained()
    stream.send({ data: 'behind it' })
  }
  const client = await scene.open()
  assert.equal((await client.next()).data, data)
  assert.equal((await client.next()).data, 'behind it')
  assert.equal(await client.ended(), 'complete')
})

test('event stream - a source waits for a slow client; one that takes nothing for 2 minutes is cut', async () => {
  await using scene = await sceneOf()
  const data = 'x'.repeat(256 * 1024)
  let sent = 0
  scene.source = async (stream) => {
    while (!stream.isOver) {
      stream.send({ data })
      sent++
      await stream.drained()
    }
  }
  const client = await scene.open({ paused: true })
  await until(() => scene.stream?.isCongested, { what: 'the client to be slow' })
  const before = sent
  client.resume()
  await until(() => sent > before + 4, { what: 'the source to go on' })
  client.pause()
  await until(() => scene.stream?.isCongested, { what: 'the client to be slow again' })
  assert.equal(scene.stream?.isOver, false)
  assert.ok(scene.streams.pending > 0)
  for (let ms = 0; ms < 140_000 && !scene.stream?.isOver; ms += 1_000) scene.clock.advance(1_000)
  assert.equal(scene.stream?.isOver, true)
  assert.equal(scene.streams.pending, 0)
  assert.equal(scene.streams.size, 0)
})

test('event stream - a stream that has ended is held until its client has taken it, 2 minutes at most', async () => {
  await using scene = await sceneOf()
  scene.source = async (stream) => {
    stream.send({ data: 'x'.repeat(16 * 1024 * 1024) })
  }
  const slow = await scene.open({ paused: true })
  await until(() => scene.stream?.isOver, { what: 'the source to end' })
  assert.equal(scene.streams.size, 1)
  slow.resume()
  assert.equal(await slow.ended(), 'complete')
  await until(() => scene.streams.size === 0, { what: 'it to be forgotten' })
  const dead = await scene.open({ paused: true })
  await until(() => scene.stream?.isOver, { what: 'the source to end' })
  for (let ms = 0; ms < 140_000 && scene.streams.size > 0; ms += 1_000) scene.clock.advance(1_000)
  assert.equal(scene.streams.size, 0)
  dead.resume()
  assert.equal(await dead.ended(), 'cut')
})

test('event stream - heartbeats are comments, one in each interval, by one timer for all', async () => {
  await using scene = await sceneOf()
  const clients = await Promise.all(Array.from({ length: 20 }, () => scene.open()))
  assert.equal(scene.clock.pending, 1)
  await scene.clock.pass(8_000)
  await until(() => clients.every(({ parser }) => parser.comments === 1), { what: 'a heartbeat of each' })
  await scene.clock.pass(16_000)
  await until(() => clients.every(({ parser }) => parser.comments === 3), { what: 'three of each' })
  assert.deepEqual(
    clients.flatMap(({ events }) => events),
    [],
  )
  for (const client of clients) client.close()
  await until(() => scene.streams.size === 0, { what: 'all to be gone' })
  assert.equal(scene.clock.pending, 0, 'no timer without a stream')
})

const broken = new Error('broken')

/** Makes methods of a response throw from now on. */
function breakMethods(response: ServerResponse, ...names: ('write' | 'end' | 'destroy')[]): void {
  for (const name of names)
    response[name] = () => {
      throw broken
    }
}

/** How a response fails that is not only node's, what happens then, and how many errors are told. */
const FAILURES: readonly [
  title: string,
  fail: (response: ServerResponse) => void,
  then: (scene: Scene, stream: EventStream) => unknown,
  errors: number,
][] = [
  [
    'write throws at an event',
    (response) => breakMethods(response, 'write'),
    (_, stream) => stream.send({ data: '1' }),
    1,
  ],
  [
    'write takes a large event, and throws',
    (response) => {
      const write = response.write.bind(response) as (bytes: unknown) => boolean
      response.write = (bytes: unknown) => {
        write(bytes)
        throw broken
      }
    },
    (_, stream) => stream.send({ data: 'x'.repeat(8e6) }),
    1,
  ],
  [
    'write throws at a heartbeat',
    (response) => breakMethods(response, 'write'),
    ({ clock }) => clock.pass(8_000),
    1,
  ],
  [
    'write and destroy throw',
    (response) => breakMethods(response, 'write', 'destroy'),
    (_, stream) => stream.send({ data: '1' }),
    2,
  ],
  ['end throws', (response) => breakMethods(response, 'end'), (_, stream) => stream.end(), 1],
  ['an error is emitted', () => {}, ({ response }) => response?.emit('error', broken), 1],
]

for (const [title, fail, then, count] of FAILURES) {
  test(`event stream - a response fails, ${title}: it ends and is reported, the others go on`, async () => {
    await using scene = await sceneOf()
    using reported = new Reported()
    const other = await scene.open()
    await scene.open()
    const { stream, response } = scene
    assert.ok(stream && response)
    fail(response)
    await then(scene, stream)
    assert.equal(stream.isOver, true)
    assert.deepEqual([scene.streams.size, scene.streams.pending], [1, 0])
    assert.deepEqual(reported.errors, Array(count).fill(broken))
    const { comments } = other.parser
    await scene.clock.pass(8_000)
    await until(() => other.parser.comments > comments, { what: 'a heartbeat of the other one' })
  })
}

test('event stream - the write of a source that fails throws too: nothing is rejected', async () => {
  await using scene = await sceneOf()
  using reported = new Reported()
  scene.source = async (stream) => {
    breakMethods(scene.response as ServerResponse, 'write')
    stream.send({ data: 'first' })
    assert.equal(stream.isOver, true)
    throw new TimeoutError('of the source', { key: 'key' })
  }
  const client = await scene.open()
  assert.equal(await client.ended(), 'cut')
  await scene.lifecycle.end(10_000, 0)
  assert.deepEqual([scene.streams.size, reported.errors], [0, [broken]])
})

test('event stream - one with a lifetime ends at the first heartbeat behind it, and the others go on', async () => {
  await using scene = await sceneOf()
  const other = await scene.open()
  scene.lifetime = 10_000
  const client = await scene.open()
  await scene.clock.pass(9_000)
  await until(() => client.parser.comments === 1, { what: 'a heartbeat' })
  assert.equal(scene.streams.size, 2)
  await scene.clock.pass(8_000)
  assert.equal(await client.ended(), 'complete')
  assert.equal(scene.streams.size, 1)
  await until(() => other.parser.comments === 3, { what: 'the heartbeats of the other' })
})

test('event stream - closing ends all with a time to reconnect, and refuses others', async () => {
  await using scene = await sceneOf()
  const clients = await Promise.all(Array.from({ length: 5 }, () => scene.open()))
  scene.streams.close()
  await scene.lifecycle.end(60_000, 60_000)
  for (const client of clients) {
    assert.equal(await client.ended(), 'complete')
    assert.equal(client.parser.retry, 1_000)
    assert.deepEqual(client.events, [])
  }
  assert.throws(() => scene.streams.create(async () => {}), ClosedError)
})

test('event stream - no more than maxStreams are open', async () => {
  await using scene = await sceneOf({ maxStreams: 3 })
  const clients = await Promise.all(Array.from({ length: 3 }, () => scene.open()))
  assert.throws(() => scene.streams.create(async () => {}), OverloadedError)
  clients[0]?.close()
  await until(() => scene.streams.size === 2, { what: 'a place' })
  await scene.open()
  assert.equal(scene.streams.size, 3)
})

test('event stream - as a body: in order, cancelled, aborted, cut', async () => {
  await using scene = await sceneOf()
  const { streams } = scene
  const signal = new AbortController().signal
  const body = streams
    .create(async (stream) => {
      for (let n = 0; n < 100; n++) {
        stream.send({ data: String(n) })
        await stream.drained()
      }
    })
    .toBody(signal)
  const parser = new EventParser()
  for await (const bytes of body) parser.add(bytes)
  assert.deepEqual(
    parser.events.map(({ data }) => data),
    Array.from({ length: 100 }, (_, n) => String(n)),
  )
  const idle = () => streams.create(({ ended }) => ended)
  await idle().toBody(signal).cancel()
  assert.equal(streams.size, 0, 'cancelled')
  const going = new AbortController()
  idle().toBody(going.signal)
  going.abort()
  assert.equal(streams.size, 0, 'aborted')
  idle().toBody(going.signal)
  await until(() => streams.size === 0, { what: 'one whose client was gone before' })
  const flooding = streams.create(async (stream) => {
    while (!stream.isOver) stream.send({ data: 'x'.repeat(10_000) })
  })
  await assert.rejects(flooding.toBody(signal).getReader().read(), /too slowly/)
  assert.equal(streams.size, 0, 'cut')
  const unread = idle()
  unread.toBody(signal)
  unread.send({ data: 'x' })
  for (let ms = 0; ms < 140_000 && streams.size > 0; ms += 1_000) scene.clock.advance(1_000)
  assert.equal(streams.size, 0, 'a body that nobody reads')
})

test('event stream - the gateway closes before the answer begins: its body is empty, and its producer is called once', async () => {
  await using scene = await sceneOf()
  const { streams, lifecycle } = scene
  const overs: boolean[] = []
  const stream = streams.create(async (given) => {
    overs.push(given.isOver)
    given.send({ data: 'late' })
    await given.ended
  })
  streams.close()
  const body = stream.toBody(new AbortController().signal)
  assert.equal(await new Response(body).text(), '')
  await lifecycle.end(10_000, 0)
  assert.deepEqual([overs, stream.isOver, streams.size], [[true], true, 0])
})

test('event stream - what is pending in all streams of a gateway is bounded', async () => {
  await using scene = await sceneOf()
  const { streams } = scene
  const frame = Frame.of({ data: 'x'.repeat(1024 * 1024) })
  const bodies = Array.from({ length: 70 }, () =>
    streams
      .create(async (stream) => {
        stream.send(frame)
        await stream.ended
      })
      .toBody(new AbortController().signal),
  )
  assert.equal(streams.size, 63)
  assert.ok(streams.pending <= 64 * 1024 * 1024)
  await bodies[0]?.cancel()
  assert.equal(streams.pending, 62 * frame.bytes.length)
})
