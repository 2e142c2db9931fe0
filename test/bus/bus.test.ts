// The class Bus: its options, connect and disconnect, events, and what it says in a census.

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { inspect } from 'node:util'
import { Cluster, Redis } from 'ioredis'
import { BUS_DEFAULTS, Bus, type BusOptions, MemoryBus } from '../../src/bus/index.ts'
import { Connection } from '../../src/kernel/index.ts'
import { busServers } from '../support/bus-servers.ts'
import { ManualClock } from '../support/manual-clock.ts'
import { setup } from '../support/setup.ts'
import { rejectionOf, soon, timed, until } from '../support/wait.ts'

const NO_NUMBERS = [-1, Number.NaN, '5', null, {}, true, 5n]

/** For each option: the expected type, and invalid values. */
const WRONG: Record<string, [RegExp, unknown[]]> = {
  prefix: [/1 to 64 of A-Z/, ['', 'a b', '{tag}', 'x'.repeat(65), 5, null]],
  unavailableAfter: [/a number of milliseconds from 1 and up/, [0, ...NO_NUMBERS, Number.POSITIVE_INFINITY]],
  maxMessage: [/a whole number from 1 to 16777216/, [0, 1.5, 2 ** 25, ...NO_NUMBERS]],
  store: [/a MemoryBus/, ['memory', {}, null]],
  codec: [/codec/, [null, 'json', {}]],
  existingOnly: [/a list of instances/, ['redis://localhost', {}, null]],
}

/** Records the events of a bus. */
function eventsOf(bus: Bus): string[] {
  const events: string[] = []
  bus.on('online', () => events.push('online'))
  bus.on('offline', () => events.push('offline'))
  bus.on('degraded', (instance) => events.push(`degraded ${instance}`))
  bus.on('restored', (instance) => events.push(`restored ${instance}`))
  return events
}

function codeOf(error: unknown): unknown {
  return (error as { code?: unknown }).code
}

describe('options', () => {
  for (const [name, [expected, values]] of Object.entries(WRONG)) {
    test(`${name} - invalid values are refused`, () => {
      for (const value of values) {
        const make = () => new Bus({ [name]: value } as BusOptions)
        assert.throws(
          make,
          (error) => error instanceof TypeError && expected.test(error.message),
          inspect(value),
        )
      }
    })
  }

  test('an unknown option is refused, with the nearest known one', () => {
    assert.throws(() => new Bus({ unavailableAfer: 5 } as BusOptions), /did you mean `unavailableAfter`/)
  })

  test('redis - a list must have 1 to 64 different instances', () => {
    const url = 'redis://localhost:6379'
    const wrong: [unknown, RegExp][] = [
      [[], /one instance at least/],
      [[undefined], /`redis\[0\]`/],
      [[url, null], /`redis\[1\]`/],
      [Array(65).fill(url), /up to 64/],
      [[url, 5], /Expected `redis`/],
      [[url, 'http://localhost'], /Expected `redis`/],
      [[url, `${url}/0`], /different instances.*localhost:6379\/0 twice/],
      [[url, 'redis://user:secret@LOCALHOST'], /different instances.*localhost:6379\/0 twice/],
      [[url, { host: 'localhost' }], /different instances/],
      [[url, new Connection(url)], /different instances/],
    ]
    for (const [redis, expected] of wrong) {
      const make = () => new Bus({ redis } as BusOptions)
      assert.throws(
        make,
        (error) => error instanceof TypeError && expected.test(error.message),
        inspect(redis),
      )
    }
    assert.throws(() => new Bus({ redis: [url], existingOnly: [url] }), /different instances/)
    assert.throws(() => new Bus({ existingOnly: [url] }), /only beside `redis`/)
    assert.throws(() => new Bus({ redis: [url], store: new MemoryBus() }), /either `redis` or `store`/)
    const clock = new ManualClock()
    assert.throws(() => new Bus({ store: new MemoryBus(), clock }), /Expected `clock`/)
  })

  test('a refused list leaves the clients and connections that it names as they are', async () => {
    await using t = await setup()
    const client = await t.client()
    assert.throws(() => new Bus({ redis: [client, t.redis] }), /different instances/)
    assert.equal(await client.ping(), 'PONG')
  })

  test('BUS_DEFAULTS - what is documented', () => {
    assert.deepEqual(BUS_DEFAULTS, {
      prefix: 'soloflight',
      unavailableAfter: 2_000,
      maxMessage: 1_048_576,
    })
  })

  test('names - an address without credentials, the same for every way to give it', () => {
    const lazy = { lazyConnect: true }
    const names: [ConstructorParameters<typeof Connection>[0], string][] = [
      ['redis://user:secret@Host.example:7000/3', 'host.example:7000/3'],
      [new URL('rediss://:secret@host.example'), 'host.example:6379/0'],
      [{ host: 'host.example', port: 7000, db: 3, password: 'secret' }, 'host.example:7000/3'],
      [new Redis('redis://user:secret@host.example:7000/3', lazy), 'host.example:7000/3'],
      ['redis://[::1]:7000', '[::1]:7000/0'],
      ['/run/redis.sock', '/run/redis.sock/0'],
      ['unix:///run/redis.sock', '/run/redis.sock/0'],
      [{ sentinels: [{ host: 'one', port: 26379 }], name: 'primary', db: 1 }, 'primary/1'],
      [
        new Cluster(['redis://:secret@two.example:7001', { host: 'one.example', port: 7000 }, 7002], lazy),
        'localhost:7002,one.example:7000,two.example:7001',
      ],
    ]
    for (const [source, name] of names) assert.equal(new Connection(source).address, name)
  })

  test('names of queues and services - any well-formed text of 1 to 256 characters that does not begin with NUL', async () => {
    await using bus = new Bus()
    for (const name of ['', 'x'.repeat(257), '\ud800', '\0a', 5, null, undefined, {}]) {
      assert.throws(() => bus.queue(name as string), TypeError)
      assert.throws(() => bus.service(name as string), TypeError)
      assert.ok((await rejectionOf(bus.connection(name as string))) instanceof TypeError)
    }
  })

  test('hostile names - each is a queue of its own, over two instances', async () => {
    await using t = await busServers(2)
    const bus = t.open()
    const names = [
      '{a}',
      'a',
      'a}',
      '{',
      ' ',
      '\n',
      'a\0',
      '*',
      'a:b',
      'a/b',
      '__proto__',
      'ä',
      '日本',
      'x'.repeat(256),
    ]
    for (const [index, name] of names.entries()) {
      const queue = bus.queue<number>(name)
      assert.equal(await queue.attach(), false, inspect(name))
      await queue.push(index)
    }
    const other = t.open()
    for (const [index, name] of names.entries()) {
      const queue = other.queue<number>(name)
      assert.equal(await queue.attach(), true, inspect(name))
      for await (const { value } of queue) {
        assert.equal(value, index)
        break
      }
    }
  })
})

test('connect - resolves when all instances are connected; a second one is refused', async () => {
  await using t = await busServers(2)
  const bus = t.open()
  const events = eventsOf(bus)
  assert.equal(bus.isOnline(), false)
  const connecting = bus.connect()
  assert.equal(codeOf(await rejectionOf(bus.connect())), 'E_ALREADY_ATTACHED')
  await connecting
  assert.equal(codeOf(await rejectionOf(bus.connect())), 'E_ALREADY_ATTACHED')
  assert.equal(bus.isOnline(), true)
  for (const name of t.names) assert.equal(bus.isOnline(name), true)
  assert.equal(bus.isOnline('elsewhere:6379/0'), false)
  assert.deepEqual(events, ['online'])
})

test('connect - in memory it resolves too', async () => {
  const bus = new Bus()
  const events = eventsOf(bus)
  await bus.connect()
  await bus.disconnect()
  assert.deepEqual(events, ['online', 'offline'])
})

test('connect - rejects in time, naming what is missing; `online` comes later', async () => {
  await using t = await busServers(2)
  const [lost] = t.servers
  const [lostName = ''] = t.names
  await lost?.kill()
  const bus = t.open({ unavailableAfter: 500 })
  const events = eventsOf(bus)
  const { error, ms } = await timed(() => bus.connect())
  assert.equal(codeOf(error), 'E_UNAVAILABLE')
  assert.ok((error as Error).message.endsWith(`: ${lostName}`), String(error))
  assert.ok(ms >= 490 && ms < 1_000, `${ms} ms`)
  assert.deepEqual([bus.isOnline(), bus.isOnline(lostName)], [false, false])
  await lost?.restart()
  await until(() => events.includes('online'), { what: 'online' })
  await bus.connect()
  assert.deepEqual(events, [`degraded ${lostName}`, `restored ${lostName}`, 'online'])
})

test('events - one pair for an outage of all, whatever the order in which they come back', async () => {
  await using t = await busServers(2)
  const bus = t.open()
  const events = eventsOf(bus)
  await bus.connect()
  const [one, two] = t.servers
  await one?.kill()
  await until(() => events.length === 2, { what: 'degraded' })
  assert.equal(bus.isOnline(), true)
  await two?.kill()
  await until(() => events.includes('offline'), { what: 'offline' })
  assert.equal(bus.isOnline(), false)
  await two?.restart()
  await until(() => events.includes(`restored ${t.names[1]}`), { what: 'restored' })
  assert.equal(bus.isOnline(), false)
  await one?.restart()
  await until(() => events.filter((event) => event === 'online').length === 2, { what: 'online' })
  const [first = '', second = ''] = t.names
  const outage = [
    `degraded ${first}`,
    `degraded ${second}`,
    'offline',
    `restored ${second}`,
    `restored ${first}`,
  ]
  assert.deepEqual(events, ['online', ...outage, 'online'])
})

test('without connect - the first use connects, and `online` comes', async () => {
  await using t = await busServers(2)
  const bus = t.open()
  const events = eventsOf(bus)
  await bus.queue('queue').attach()
  await until(() => events.includes('online'), { what: 'online' })
  await bus.connect()
  assert.deepEqual(events, ['online'])
})

test('disconnect - detaches queues, emits `offline` once, closes own connections; connect works again', async () => {
  await using t = await setup()
  const bus = new Bus({ redis: t.redis })
  const events = eventsOf(bus)
  await bus.connect()
  const queue = bus.queue<string>('queue')
  await queue.attach()
  await queue.push('kept')
  await Promise.all([bus.disconnect(), bus.disconnect()])
  await bus.disconnect()
  assert.equal(queue.isAttached(), false)
  assert.deepEqual(events, ['online', 'offline'])
  await until(async () => (await t.server.connectedClients()).length === 0, { what: 'no connection' })
  assert.equal(codeOf(await rejectionOf(queue.attach())), 'E_CLOSED')
  assert.equal(codeOf(await rejectionOf(bus.connection('queue'))), 'E_CLOSED')
  assert.equal(codeOf(await rejectionOf(bus.service('service').connect())), 'E_CLOSED')

  await bus.connect()
  assert.equal(await queue.attach(), true)
  assert.equal(await queue.count(), 1)
  await bus.disconnect()
  assert.deepEqual(events, ['online', 'offline', 'online', 'offline'])
})

test('disconnect - a connect that waits rejects; one after it connects', async () => {
  await using t = await busServers(1)
  await t.servers[0]?.kill()
  const bus = t.open({ unavailableAfter: 20_000 })
  const connecting = rejectionOf(bus.connect())
  const disconnecting = bus.disconnect()
  const again = bus.connect()
  assert.equal(codeOf(await connecting), 'E_CLOSED')
  await disconnecting
  await t.servers[0]?.restart()
  await again
  assert.equal(bus.isOnline(), true)
})

test('disconnect - the last call counts: one after a connect that has not begun ends that', async () => {
  await using t = await busServers(1)
  const bus = t.open()
  await bus.connect()
  void bus.disconnect()
  const connecting = rejectionOf(bus.connect())
  await bus.disconnect()
  assert.equal(codeOf(await connecting), 'E_CLOSED')
  assert.equal(bus.isOnline(), false)
})

test('disconnect - clients and connections of the user stay open', async () => {
  await using t = await busServers(2)
  const client = new Redis(t.urls[0] ?? '')
  await using connection = new Connection(t.urls[1] ?? '')
  const bus = new Bus({ redis: [client, connection] })
  await bus.connect()
  await bus.queue('queue').attach()
  await bus.disconnect()
  assert.equal(await client.ping(), 'PONG')
  client.disconnect()
  assert.equal(connection.connected, true)
})

test('disconnect - a frozen instance holds it up for the grace only', async () => {
  await using t = await busServers(1)
  const bus = t.open({ unavailableAfter: 10_000 })
  await bus.queue('queue').attach()
  await t.servers[0]?.freeze()
  const { ms } = await timed(() => bus.disconnect({ grace: 300 }))
  t.servers[0]?.thaw()
  assert.ok(ms >= 290 && ms < 2_000, `${ms} ms`)
  assert.throws(() => bus.disconnect({ grace: -1 }), TypeError)
})

test('a listener that throws, and none at all, do no harm', async () => {
  await using t = await busServers(1)
  const bus = t.open({ unavailableAfter: 300 })
  await bus.connect()
  await t.servers[0]?.kill()
  assert.equal(codeOf(await rejectionOf(bus.queue('queue').attach())), 'E_UNAVAILABLE')
  await until(() => !bus.isOnline(), { what: 'offline' })
})

test('census - what is attached, at the instance where it is, and nothing afterwards', async () => {
  await using t = await busServers(2)
  const bus = t.open()
  // So many that both instances get some, whatever their ports are.
  const names = ['one', ...Array.from({ length: 39 }, (_, n) => `queue ${n}`)]
  const queues = names.map((name) => bus.queue<string>(name))
  for (const queue of queues) await queue.attach()
  await queues[0]?.push('message')
  await queues[0]?.consume({ max: 1 })
  await until(() => queues[0]?.consumed() === 1, { what: 'the message' })
  const [first, second] = await Promise.all(
    t.urls.map(async (url) => {
      await using connection = new Connection(url)
      const { answers } = await connection.census({ layer: 'bus' })
      return answers.flatMap(({ items }) => items)
    }),
  )
  const items = [...(first ?? []), ...(second ?? [])]
  assert.deepEqual(items.map(({ queue }) => queue).sort(), [...names].sort())
  assert.ok(first && second && first.length > 0 && second.length > 0)
  const one = items.find(({ queue }) => queue === 'one') ?? assert.fail()
  const { since, ...rest } = one
  assert.deepEqual(rest, { prefix: 'soloflight', queue: 'one', consuming: false, pushed: 1, consumed: 1 })
  assert.ok(Math.abs(Number(since) - Date.now()) < 60_000)
  for (const queue of queues) await queue.detach()
  await using connection = new Connection(t.urls[0] ?? '')
  const { answers } = await connection.census({ layer: 'bus' })
  assert.deepEqual(
    answers.flatMap(({ items }) => items),
    [],
  )
})

test('a bus that was never used holds nothing: a process with one ends by itself', async () => {
  const bus = new Bus({ redis: 'redis://127.0.0.1:1' })
  assert.equal(bus.isOnline(), false)
  assert.notEqual(await soon(bus.disconnect()), 'pending')
})
