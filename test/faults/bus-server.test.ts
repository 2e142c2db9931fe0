import assert from 'node:assert/strict'
import { mkdir, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import type { ConsumeOptions } from '../../src/bus/index.ts'
import { UnavailableError } from '../../src/errors.ts'
import { BusLoad } from '../support/bus-load.ts'
import { upTo } from '../support/bus-scene.ts'
import { BusWire, hear, type Received, type WiredBus } from '../support/bus-wire.ts'
import { EPSILON } from '../support/lockers.ts'
import { timed, until } from '../support/wait.ts'

/** A call fails when Redis has not answered for so long, ms. */
const PATIENCE = 1500

const KINDS: readonly ConsumeOptions[] = [
  { prefetch: 10 },
  { reliable: true, prefetch: 10 },
  { exclusive: true, reliable: true, prefetch: 10 },
  { remove: false },
]
const nameOf = (options: ConsumeOptions) => JSON.stringify(options)

const valuesOf = (received: readonly Received[]) => received.map(({ value }) => value)

function assertUnavailable(
  { error, ms }: { error?: unknown; ms: number },
  what: string,
  requests = 1,
): UnavailableError {
  assert.ok(error instanceof UnavailableError, `${what}: ${error}`)
  assert.ok(ms < requests * PATIENCE + EPSILON, `${what} took ${ms} ms`)
  return error
}

function assertAscends(values: readonly unknown[]): void {
  const numbers = values as number[]
  const late = numbers.findIndex((value, index) => index > 0 && value <= (numbers[index - 1] ?? 0))
  assert.equal(late, -1, `${numbers[late]} after ${numbers[late - 1]}`)
}

interface Outage {
  name: string
  begin(s: BusWire, wired: readonly WiredBus[]): Promise<unknown>
  end(s: BusWire, wired: readonly WiredBus[]): Promise<unknown>
}

const OUTAGES: readonly Outage[] = [
  {
    name: 'Redis is stopped',
    begin: (s) => s.t.server.stop(),
    end: (s) => s.t.server.restart(),
  },
  {
    name: 'Redis stands still',
    begin: (s) => s.t.server.freeze(),
    end: async (s) => s.t.server.thaw(),
  },
  {
    name: 'the network loses everything',
    begin: async (_, wired) => {
      for (const { proxy } of wired) proxy.blackhole(true)
    },
    end: async (_, wired) => {
      for (const { proxy } of wired) proxy.blackhole(false)
    },
  },
]

for (const { name, begin, end } of OUTAGES) {
  describe(`the server is away - ${name}`, { concurrency: 2 }, () => {
    test(`B4 ${name} - push, ack, attach, sendTo and close reject in time, and say whether they were sent`, async () => {
      await using s = await BusWire.start({ persistence: true })
      const a = await s.open({ unavailableAfter: PATIENCE })
      const { queue } = await a.queue()
      const { queue: consuming } = await a.queue()
      const ids: number[] = []
      consuming.on('message', (_, id) => ids.push(id))
      await consuming.consume({ reliable: true, lease: 30_000 })
      await queue.push('held')
      await until(() => ids.length === 1, { what: 'the message' })
      const channel = a.bus.channel('chat')
      await channel.sendTo('role', 1)
      const { queue: closing } = await a.queue('closing')

      await begin(s, [a])
      if (name === 'Redis is stopped') await until(() => !a.bus.isOnline(), { what: 'the loss' })
      const calls: Record<string, () => Promise<unknown>> = {
        push: () => queue.push('a'),
        ack: () => consuming.ack(1),
        attach: () => a.bus.queue('other').attach(),
        sendTo: () => channel.sendTo('role', 'a'),
        count: () => queue.count(),
        close: () => closing.close(),
      }
      const outcomes = await Promise.all(
        Object.entries(calls).map(async ([what, call]) => ({ what, ...(await timed(call)) })),
      )
      const isSent = outcomes.map((outcome) => assertUnavailable(outcome, outcome.what).sent)
      if (name === 'Redis is stopped') assert.deepEqual([...new Set(isSent)], [false])
      const later = assertUnavailable(await timed(() => queue.push('b')), 'a later push')

      await end(s, [a])
      await until(() => queue.push('after'), { what: 'Redis', every: 50 })
      const read: unknown[] = []
      const { queue: reader } = await a.queue()
      reader.on('message', (value) => read.push(value))
      await reader.consume({ remove: false })
      await until(() => read.includes('after'), { what: 'the messages' })
      if (!isSent[0]) assert.ok(!read.includes('a'))
      if (!later.sent) assert.ok(!read.includes('b'))
      assert.equal(read.filter((value) => value === 'after').length, 1)
      // The acknowledgement is made up for.
      await until(async () => (await consuming.ack(1).catch(() => 'no')) === undefined, { what: 'the ack' })
      await consuming.stop()
      assert.equal(await queue.count(), read.filter((value) => value !== 'held').length)
    })

    test(`B1 B2 B3 ${name} - for less than the leases: consumption goes on by itself, nothing is lost or comes twice`, async () => {
      await using s = await BusWire.start({ persistence: true })
      const a = await s.open({ unavailableAfter: PATIENCE })
      const consumers = await Promise.all(
        KINDS.map(async (options) => {
          const wired = await s.open({ unavailableAfter: PATIENCE })
          return { options, wired, ...(await wired.consumer({ lease: 30_000, ...options }, nameOf(options))) }
        }),
      )
      const producers = await Promise.all(KINDS.map(async (each) => (await a.queue(nameOf(each))).queue))
      for (const queue of producers) await Promise.all(upTo(30).map((value) => queue.push(value)))
      const all = (count: number) =>
        until(() => consumers.every(({ received }) => received.length >= count), { what: 'the messages' })
      await all(30)

      const wired = [a, ...consumers.map((each) => each.wired)]
      await begin(s, wired)
      await sleep(2 * PATIENCE)
      await end(s, wired)
      await until(() => producers[0]?.count(), { what: 'Redis' }).catch(() => {})
      for (const queue of producers) {
        await until(() => queue.push(31), { what: 'a push', every: 50 })
        await Promise.all(upTo(29, 32).map((value) => queue.push(value)))
      }
      await all(60)
      for (const { received, options } of consumers) {
        assert.deepEqual(valuesOf(received), upTo(60), nameOf(options))
        assert.ok(received.every(({ redelivered }) => redelivered === 0))
        assert.ok(received.every(({ fence }) => fence === (options.exclusive ? 1 : undefined)))
      }
    })

    test(`B2 B3 ${name} - for longer than the leases: consumption goes on by itself, what was held comes again`, async () => {
      await using s = await BusWire.start({ persistence: true })
      const [a, b] = [
        await s.open({ unavailableAfter: PATIENCE }),
        await s.open({ unavailableAfter: PATIENCE }),
      ]
      const { queue } = await a.queue()
      const { queue: consuming } = await b.queue()
      const received: { value: unknown; redelivered: number; fence: number | undefined }[] = []
      consuming.on('message', (value, _, { redelivered, fence }) =>
        received.push({ value, redelivered, fence }),
      )
      await consuming.consume({ reliable: true, exclusive: true, prefetch: 10, lease: 1000 })
      await Promise.all(upTo(3).map((value) => queue.push(value)))
      await until(() => received.length === 3, { what: 'the messages' })
      await begin(s, [a, b])
      await sleep(1500)
      await end(s, [a, b])
      await until(() => queue.push(4), { what: 'a push', every: 50 })
      await until(() => received.length >= 7, { what: 'the messages' })
      const [first] = received
      assert.deepEqual(
        received.slice(3).map(({ value, redelivered }) => [value, redelivered]),
        [
          [1, 1],
          [2, 1],
          [3, 1],
          [4, 0],
        ],
      )
      for (const { fence } of received.slice(3)) assert.ok(Number(fence) > Number(first?.fence))
      await consuming.ack(4)
      assert.equal(await queue.count(), 0)
    })
  })
}

describe('the server loses state', { concurrency: 2 }, () => {
  for (const how of ['FLUSHALL', 'restart'] as const) {
    for (const options of KINDS) {
      test(`B1 B2 B3 ${how} - while ${nameOf(options)} consumes: the queue is made again by itself, pushes and consumption go on`, async () => {
        using telemetry = hear('attachment')
        await using s = await BusWire.start()
        const [a, b] = [await s.open(), await s.open()]
        const name = `${how} ${nameOf(options)}`
        // A reader learns of it when it renews its attachment.
        const { queue } = await a.queue(name, { ttl: 4000 })
        const { received } = await b.consumer({ lease: 2000, ...options }, name, 4000)
        await using load = new BusLoad(queue)
        for (let round = 0; round < 3; round++) {
          await load.more(100)
          if (how === 'FLUSHALL') await s.t.server.call('FLUSHALL')
          else await s.t.server.restart()
          await load.more(100)
          const last = load.pushed.at(-1)
          await until(() => valuesOf(received).includes(last), { what: 'the messages', timeout: 8000 })
        }
        await load.stop()
        const last = load.pushed.at(-1)
        await until(() => valuesOf(received).includes(last), { what: 'the messages', timeout: 8000 })
        assertAscends(valuesOf(received))
        load.assertPushed(valuesOf(received))
        const codes = how === 'FLUSHALL' ? [] : ['E_UNAVAILABLE']
        for (const code of load.codes) assert.ok(codes.includes(code), code)
        const remade = telemetry.heard.filter(({ change, queue: of }) => change === 'remade' && of === name)
        assert.ok(remade.length >= 6, `${remade.length} times remade`)
      })
    }
  }

  test('FLUSHALL - of a queue that nobody uses: its attachments make it again at their next renewals', async () => {
    using telemetry = hear('attachment')
    await using s = await BusWire.start()
    const [a, b] = [await s.open(), await s.open()]
    const [{ queue }, { queue: other }] = [
      await a.queue('idle', { ttl: 1500 }),
      await b.queue('idle', { ttl: 1500 }),
    ]
    await s.t.server.call('FLUSHALL')
    const remade = () =>
      telemetry.heard.filter((each) => each.change === 'remade' && each.queue === 'idle').length === 2
    await until(remade, { what: 'the renewals' })
    assert.ok(queue.isAttached() && other.isAttached())
    assert.equal(await queue.push(1), 1)
    assert.equal(await other.push(1), 2)
  })

  test('FLUSHALL - of a channel: both roles go on, and messages arrive', async () => {
    await using s = await BusWire.start()
    const [a, b] = [await s.open(), await s.open()]
    const [local, remote] = [a.bus.channel('chat'), b.bus.channel('chat')]
    const received: unknown[] = []
    remote.on('message', (value) => received.push(value))
    await Promise.all([local.connect({ lease: 1500 }), remote.listen({ lease: 1500 })])
    for (let round = 0; round < 3; round++) {
      await local.send(`before ${round}`)
      await until(() => received.includes(`before ${round}`), { what: 'the message' })
      await s.t.server.call('FLUSHALL')
      const isSent = () =>
        local.send(`after ${round}`).then(
          () => true,
          () => false,
        )
      await until(isSent, { what: 'the channel' })
      await until(() => received.includes(`after ${round}`), { what: 'the message' })
      await until(() => local.isAttached() && remote.isAttached(), { what: 'both roles' })
    }
    assert.equal(new Set(received).size, received.length)
  })

  test('away for longer than the ttl - the queue has expired: it is made again by itself', async () => {
    await using s = await BusWire.start()
    const a = await s.open({ unavailableAfter: PATIENCE })
    const { queue } = await a.queue('q', { ttl: 1000 })
    const { received } = await a.consumer({ lease: 1000 }, 'q', 1000)
    await queue.push(1)
    await until(() => received.length === 1, { what: 'the message' })
    await a.cut()
    await sleep(2000)
    await a.mend()
    await until(() => queue.push(2), { what: 'a push', every: 50 })
    await until(() => received.length === 2, { what: 'the message' })
  })

  test('close - while another process was away: it is told when it is back', async () => {
    await using s = await BusWire.start()
    const [a, b] = [await s.open(), await s.open({ unavailableAfter: PATIENCE })]
    const { queue } = await a.queue('q', { ttl: 3000 })
    const { queue: other } = await b.consumer({ lease: 1000 }, 'q', 3000)
    const events: string[] = []
    for (const event of ['closed', 'detached'] as const) other.on(event, () => events.push(event))
    other.on('consuming', (on) => events.push(`consuming ${on}`))
    await b.cut()
    await queue.close()
    await sleep(1500)
    await b.mend()
    await until(() => events.includes('closed'), { what: 'closed' })
    assert.deepEqual(events, ['consuming false', 'closed'])
    assert.equal(other.isAttached(), false)
    assert.equal(await other.attach(), false)
  })

  test('SCRIPT FLUSH - at any time, under load: no message is lost or comes twice', async () => {
    await using s = await BusWire.start()
    const [a, b] = [await s.open(), await s.open()]
    const { queue } = await a.queue()
    const { received } = await b.consumer({ reliable: true, prefetch: 10, lease: 20_000 })
    let isOver = false
    const flushing = (async () => {
      while (!isOver) await s.t.server.call('SCRIPT', 'FLUSH')
    })()
    await using load = new BusLoad(queue)
    try {
      await load.more(1000)
    } finally {
      isOver = true
      await flushing
    }
    await load.stop()
    assert.equal(load.codes.size, 0)
    await until(() => received.length >= load.pushed.length, { what: 'the messages' })
    assert.deepEqual(valuesOf(received), upTo(load.pushed.length))
  })

  for (const options of KINDS) {
    test(`B1 B2 B4 restart with persistence - kill -9 under load, ${nameOf(options)}: nothing that was acknowledged is lost, nothing comes twice`, async () => {
      await using s = await BusWire.start({ persistence: true })
      const [a, b] = [await s.open(), await s.open()]
      const { queue } = await a.queue()
      const { queue: consuming } = await b.queue()
      const received: Received[] = []
      const acked = new Set<number>()
      consuming.on('message', (value, id, { redelivered, fence }) => {
        assert.ok(!acked.has(id), `${id} was acknowledged`)
        received.push({ value, id, redelivered, fence })
        if (options.reliable)
          consuming.ack(id).then(
            () => acked.add(id),
            () => {},
          )
      })
      await consuming.consume({ lease: 30_000, ...options })
      await using load = new BusLoad(queue)
      for (let round = 0; round < 3; round++) {
        await load.more(200)
        await s.t.server.restart()
      }
      await load.more(200)
      await load.stop()
      for (const code of load.codes) assert.equal(code, 'E_UNAVAILABLE')
      const all = () => {
        const values = new Set(valuesOf(received))
        return load.pushed.every((value) => values.has(value))
      }
      await until(all, { what: 'all messages', timeout: 10_000 })
      load.assertPushed(valuesOf(received))
      assertAscends(valuesOf(received))
    })
  }
})

/** Makes background saves fail: a folder stands in the place of the file. */
async function breakSaving({ server }: BusWire['t']): Promise<void> {
  await mkdir(join(dirname(server.path), 'dump.rdb'))
  await server.call('CONFIG', 'SET', 'save', '3600 1')
  await server.call('BGSAVE')
  const fact = async () =>
    String(await server.call('INFO', 'persistence')).includes('rdb_last_bgsave_status:err')
  await until(fact, { what: 'a failed save' })
}

async function mendSaving({ server }: BusWire['t']): Promise<void> {
  await rm(join(dirname(server.path), 'dump.rdb'), { recursive: true })
  await server.call('BGSAVE')
  const fact = async () =>
    String(await server.call('INFO', 'persistence')).includes('rdb_last_bgsave_status:ok')
  await until(fact, { what: 'a save' })
}

interface Refusal {
  name: string
  begin(t: BusWire['t']): Promise<unknown>
  end(t: BusWire['t']): Promise<unknown>
}

const REFUSALS: readonly Refusal[] = [
  {
    name: 'OOM',
    begin: ({ server }) => server.call('CONFIG', 'SET', 'maxmemory', 1),
    end: ({ server }) => server.call('CONFIG', 'SET', 'maxmemory', 0),
  },
  { name: 'MISCONF', begin: breakSaving, end: mendSaving },
  {
    name: 'READONLY',
    begin: ({ server }) => server.call('REPLICAOF', '127.0.0.1', 1),
    end: ({ server }) => server.call('REPLICAOF', 'NO', 'ONE'),
  },
  {
    name: 'NOPERM',
    begin: ({ server }) => server.call('ACL', 'SETUSER', 'default', '-evalsha'),
    end: ({ server }) => server.call('ACL', 'SETUSER', 'default', '+evalsha'),
  },
]

/** Scripts that one process sends in a second at most while the server refuses them. */
const MAX_ATTEMPTS = 60

async function scriptsRun({ server }: BusWire['t']): Promise<number> {
  const stats = await server.commandStats()
  const info = String(await server.call('INFO', 'commandstats'))
  const refused = /cmdstat_evalsha:.*rejected_calls=(\d+)/.exec(info)?.[1] ?? 0
  return (stats['evalsha'] ?? 0) + Number(refused)
}

describe('the server refuses', { concurrency: 2 }, () => {
  for (const { name, begin, end } of REFUSALS) {
    for (const isLost of [false, true]) {
      test(`B4 ${name}${isLost ? ' after FLUSHALL' : ''} - typed errors in time, few attempts, and it goes on when that ends`, async () => {
        await using s = await BusWire.start()
        const [a, b] = [
          await s.open({ unavailableAfter: PATIENCE }),
          await s.open({ unavailableAfter: PATIENCE }),
        ]
        // It does not expire while it cannot be renewed.
        const { queue } = await a.queue()
        const { received } = await b.consumer({ reliable: true, prefetch: 5, lease: 1000 })
        await Promise.all(upTo(10).map((value) => queue.push(value)))
        await until(() => received.length === 10, { what: 'the messages' })
        if (isLost) await s.t.server.call('FLUSHALL')
        // The consumer makes the queue again, in which the producer is not attached.
        const isRemade = async () => Number(await s.t.server.call('EXISTS', 'soloflight:1:b{q}Q')) === 1
        await until(isRemade, { what: 'the queue', every: 1 })
        await begin(s.t)
        try {
          // It pushes, and attaches again: two requests.
          assertUnavailable(await timed(() => queue.push('refused')), 'push', 2)
          const attached = await timed(() => a.bus.queue('other').attach())
          // A script that has removed something may write, even if there is no memory.
          if (name !== 'OOM' || attached.error) assertUnavailable(attached, 'attach', 2)
          const before = await scriptsRun(s.t)
          await sleep(1000)
          const attempts = (await scriptsRun(s.t)) - before
          assert.ok(attempts < 2 * MAX_ATTEMPTS, `${attempts} attempts in a second`)
        } finally {
          await end(s.t)
        }
        received.length = 0
        await until(() => queue.push(11), { what: 'a push', every: 50 })
        await Promise.all(upTo(9, 12).map((value) => queue.push(value)))
        await until(() => valuesOf(received).includes(20), { what: 'the messages' })
        assert.deepEqual(
          valuesOf(received).filter((value) => Number(value) > 10),
          upTo(10, 11),
        )
      })
    }
  }
})
