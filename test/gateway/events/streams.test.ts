// GET /streams/:key: the chunks of a shared stream, resumed by Last-Event-ID.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createGateway } from '../../../src/gateway/index.ts'
import { Locker, MemoryStore } from '../../../src/index.ts'
import { EventClient, EventParser } from '../../support/event-client.ts'
import { assertProblem, type GatewayServer, serve } from '../../support/gateway.ts'
import { Child } from '../../support/process.ts'
import { type Setup, setup } from '../../support/setup.ts'
import type { StreamHandlers } from '../../support/stream-child.ts'
import { all, reached, reading, Tap } from '../../support/stream-scene.ts'
import { until } from '../../support/wait.ts'

interface StreamScene {
  /** Two gateways. */
  readonly servers: readonly [GatewayServer, GatewayServer]
  /** Produces, as a process of the library would. */
  readonly locker: Locker
  listen(path: string, headers?: Record<string, string>, gateway?: 0 | 1): Promise<EventClient>
}

function onBoth(title: string, body: (scene: StreamScene) => Promise<void>): void {
  for (const kind of ['memory', 'redis'] as const) {
    test(`${title}, ${kind === 'memory' ? 'in memory' : 'on Redis'}`, async () => {
      const t: Setup | undefined = kind === 'redis' ? await setup() : undefined
      const store = new MemoryStore()
      const place = t ? { redis: t.redis } : { lockerOptions: { store } }
      const servers = [await serve(createGateway(place)), await serve(createGateway(place))] as const
      const locker = new Locker(t ? { redis: t.redis } : { store })
      try {
        await body({
          servers,
          locker,
          listen: (path, headers = {}, gateway = 0) => EventClient.open(servers[gateway].url + path, headers),
        })
      } finally {
        await Promise.all([...servers, locker].map((each) => each.close({ grace: 0 } as never)))
        await t?.[Symbol.asyncDispose]()
      }
    })
  }
}

function chunksOf(client: EventClient | EventParser): unknown[] {
  return client.events.filter(({ event }) => event === 'message').map(({ data }) => JSON.parse(data))
}

function numbersOf({ events }: EventClient): number[] {
  return events.filter(({ event }) => event === 'message').map(({ id }) => Number(id.split('.')[0]))
}

function numbers(from: number, to: number): number[] {
  return Array.from({ length: to - from }, (_, index) => from + index)
}

onBoth(
  'streams - chunks with their numbers, hostile ones included, then the outcome',
  async ({ servers, locker, listen }) => {
    const hostile = ['a\nb', '\r\ndata: x\r\n\r\n', 'id: 9', '', { 'event: end': '\n\n' }, null, '\u2028\0']
    const tap = new Tap<unknown>().push(...hostile)
    const producing = reading(locker.stream('a/b ?', tap.work))
    await reached(producing, hostile.length)
    const path = '/streams/a%2Fb%20%3F'
    const clients = await Promise.all(([0, 1] as const).map((gateway) => listen(path, {}, gateway)))
    for (const client of clients)
      await until(() => client.events.length === hostile.length, { what: 'the chunks' })
    tap.push('last').end()
    for (const client of clients) {
      assert.equal(await client.ended(), 'complete')
      assert.deepEqual(chunksOf(client), [...hostile, 'last'])
      assert.deepEqual(numbersOf(client), numbers(0, hostile.length + 1))
      const { event, id, data } = client.events.at(-1) ?? {}
      assert.deepEqual([event, id, JSON.parse(data ?? '')], ['end', 'end', { status: 'completed' }])
    }
    const [{ gateway }] = servers
    const response = await gateway.fetch(new Request(`http://localhost${path}`))
    const parser = new EventParser()
    for await (const bytes of response.body as ReadableStream<Uint8Array>) parser.add(bytes)
    assert.deepEqual(chunksOf(parser), [...hostile, 'last'], 'by fetch')
    const seen = await servers[0].call('GET', path, { headers: { 'last-event-id': 'end' } })
    assert.equal(seen.status, 204)
    assert.equal(tap.runs.length, 1)
  },
)

onBoth(
  'streams - a client that reconnects again and again receives each chunk once, in order, at any gateway',
  async ({ locker, listen }) => {
    const tap = new Tap<number>()
    const producing = reading(locker.stream('k', tap.work))
    await until(() => tap.runs.length === 1, { what: 'the producer' })
    const got: number[] = []
    let lastId: string | undefined
    let pushed = 0
    for (let round = 0; round < 12; round++) {
      const headers = lastId === undefined ? {} : { 'last-event-id': lastId }
      const client = await listen('/streams/k', headers, (round % 2) as 0 | 1)
      assert.equal(client.status, 200)
      for (let n = 0; n < 37; n++) tap.push(pushed++)
      const { id } = await client.next()
      // It goes in the middle, and has seen this much.
      await until(() => client.events.length >= 20, { what: 'some chunks' })
      client.close()
      const seen = client.events.slice(0, 1 + round)
      got.push(...seen.map(({ data }) => Number(data)))
      lastId = seen.at(-1)?.id ?? id
    }
    const last = await listen('/streams/k', { 'last-event-id': lastId ?? '' })
    tap.end()
    assert.equal(await last.ended(), 'complete')
    got.push(...(chunksOf(last) as number[]))
    assert.deepEqual(got, numbers(0, pushed))
    await producing.done
  },
)

onBoth('streams - `from` and plain numbers as ids', async ({ locker, listen, servers }) => {
  await all(locker.stream('k', () => numbers(0, 10)))
  const from = await listen('/streams/k?from=7')
  await from.ended()
  assert.deepEqual(chunksOf(from), [7, 8, 9])
  const plain = await listen('/streams/k?from=3', { 'last-event-id': '8' })
  await plain.ended()
  assert.deepEqual(chunksOf(plain), [9], 'the header comes first: a browser repeats the URL')
  const [server] = servers
  assertProblem(await server.call('GET', '/streams/k?from=11'), 409, 'stream interrupted')
  for (const id of ['x', '1.', '.1', '1.2.3', '-1', '1.0', '9'.repeat(17), '9007199254740991.1'])
    assertProblem(
      await server.call('GET', '/streams/k', { headers: { 'last-event-id': id } }),
      400,
      'invalid parameter',
    )
  assertProblem(await server.call('GET', '/streams/k?from=-1'), 400, 'invalid parameter')
  assertProblem(await server.call('GET', `/streams/${'k'.repeat(1_025)}`), 400, 'invalid parameter')
})

onBoth(
  'streams - 404 without a stream, after the wait; never a producer',
  async ({ locker, listen, servers }) => {
    const [server] = servers
    assertProblem(await server.call('GET', '/streams/k'), 404, 'no such stream')
    assertProblem(await server.call('GET', '/streams/k?wait=100ms'), 404, 'no such stream')
    const waiting = listen('/streams/k?wait=30')
    await until(async () => (await locker.peek('k')).status === 'free', { what: 'nobody to produce' })
    assert.deepEqual(await all(locker.stream('k', () => [1])), [1])
    const client = await waiting
    assert.equal(await client.ended(), 'complete')
    assert.deepEqual(chunksOf(client), [1])
  },
)

onBoth('streams - a work that fails is the outcome, behind its chunks', async ({ locker, listen }) => {
  const tap = new Tap<number>().push(1)
  const producing = reading(locker.stream('k', tap.work))
  await reached(producing, 1)
  const client = await listen('/streams/k')
  await client.next()
  tap.push(2).end(new Error('broken'))
  assert.equal(await client.ended(), 'complete')
  assert.deepEqual(chunksOf(client), [1, 2])
  const { event, data } = client.events.at(-1) ?? {}
  assert.equal(event, 'end')
  assert.deepEqual(
    [JSON.parse(data ?? '').status, JSON.parse(data ?? '').failure.message],
    ['failed', 'broken'],
  )
  await producing.done
})

onBoth('streams - another production: 409 before the first byte', async ({ locker, listen, servers }) => {
  await all(locker.stream('k', () => [1, 2, 3]))
  const first = await listen('/streams/k')
  const { id } = await first.next()
  await first.ended()
  await locker.invalidateStreams('k')
  const [server] = servers
  const resume = () => server.call('GET', '/streams/k', { headers: { 'last-event-id': id } })
  assertProblem(await resume(), 409, 'stream interrupted')
  await all(locker.stream('k', () => [4, 5, 6]))
  assertProblem(await resume(), 409, 'stream interrupted')
})

onBoth(
  'streams - the producer is closed: the client is told, and resuming is refused',
  async ({ locker, listen, servers }) => {
    const tap = new Tap<number>().push(1)
    const producing = reading(locker.stream('k', tap.work))
    await reached(producing, 1)
    const client = await listen('/streams/k')
    const { id } = await client.next()
    await locker.close({ grace: 0 })
    assert.equal(await client.ended(), 'complete')
    const { event, data } = client.events.at(-1) ?? {}
    assert.equal(event, 'error')
    assert.equal(JSON.parse(data ?? '').error, 'stream interrupted')
    const [server] = servers
    assertProblem(
      await server.call('GET', '/streams/k', { headers: { 'last-event-id': id } }),
      409,
      'stream interrupted',
    )
  },
)

onBoth(
  'streams - a client that goes, a slow one, and a gateway that closes hold nothing',
  async ({ locker, listen, servers }) => {
    const tap = new Tap<string>()
    const producing = reading(locker.stream('k', tap.work))
    await until(() => tap.runs.length === 1, { what: 'the producer' })
    const [gone, slow, quick] = [
      await listen('/streams/k'),
      await listen('/streams/k'),
      await listen('/streams/k'),
    ]
    gone.close()
    slow.pause()
    const chunk = 'x'.repeat(100_000)
    for (let n = 0; n < 100; n++) tap.push(chunk)
    await until(() => quick.events.length === 100, { what: 'the quick one to have all', timeout: 15_000 })
    slow.resume()
    await until(() => slow.events.length === 100, { what: 'the slow one to have all', timeout: 15_000 })
    assert.deepEqual(numbersOf(slow), numbers(0, 100))
    const [server] = servers
    await server.gateway.close({ grace: 60_000 })
    for (const client of [slow, quick]) {
      assert.equal(await client.ended(), 'complete')
      assert.equal(client.parser.retry, 1_000)
    }
    tap.end()
    await producing.done
  },
)

test('streams - kill -9 of the producer: an error event for those under way, 409 for who resumes', async () => {
  await using t = await setup()
  const lockerOptions = { lease: 1_000 }
  const server = await serve(createGateway({ redis: t.redis, lockerOptions }))
  await using producer = await Child.fork<StreamHandlers>(
    new URL('../../support/stream-child.ts', import.meta.url),
  )
  try {
    await producer.call('open', { redis: t.redis, ...lockerOptions })
    await producer.call('read', 'k', { id: 'p' })
    await producer.next('run')
    await producer.call('push', 'k', 'a', 'b')
    const client = await EventClient.open(`${server.url}/streams/k`)
    const ids = [(await client.next()).id, (await client.next()).id]
    await producer.kill()
    assert.equal(await client.ended(), 'complete')
    const { event, data } = client.events.at(-1) ?? {}
    assert.equal(event, 'error')
    assert.equal(JSON.parse(data ?? '').error, 'stream interrupted')
    for (const id of ids)
      assertProblem(
        await server.call('GET', '/streams/k', { headers: { 'last-event-id': id } }),
        409,
        'stream interrupted',
      )
    assertProblem(await server.call('GET', '/streams/k'), 404, 'no such stream')
  } finally {
    await server.close()
  }
})

test('streams - Redis is killed: the stream ends with a problem, and the next one is served', async () => {
  await using t = await setup()
  const lockerOptions = { lease: 1_000, unavailableAfter: 500 }
  const server = await serve(createGateway({ redis: t.redis, lockerOptions }))
  await using locker = new Locker({ redis: t.redis, ...lockerOptions })
  try {
    const tap = new Tap<number>().push(1)
    const producing = reading(locker.stream('k', tap.work))
    await reached(producing, 1)
    const client = await EventClient.open(`${server.url}/streams/k`)
    await client.next()
    await t.server.kill()
    tap.push(2)
    assert.equal(await client.ended(), 'complete')
    const { event, data } = client.events.at(-1) ?? {}
    assert.equal(event, 'error')
    assert.match(JSON.parse(data ?? '').error, /^(?:store is unavailable|stream interrupted)$/)
    await producing.done
    await t.server.restart()
    await until(async () => (await all(locker.stream('k', () => [3]))).length === 1, { what: 'Redis' })
    const next = await until(
      async () => {
        const client = await EventClient.open(`${server.url}/streams/k`)
        return client.status === 200 && client
      },
      { what: 'the gateway to reach Redis' },
    )
    await next.ended()
    assert.deepEqual(chunksOf(next), [3])
  } finally {
    await server.close()
  }
})
