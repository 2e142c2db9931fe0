import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { describe, test } from 'node:test'
import { UnavailableError } from '../../src/errors.ts'
import type { Codec } from '../../src/kernel/codec/codec.ts'
import { upTo } from '../support/bus-scene.ts'
import { BusWire, hear, type Received, type WiredBus } from '../support/bus-wire.ts'
import { until } from '../support/wait.ts'

const INBOX = 'soloflight:1:inbox:'
const SIGNALS = ['m', 'r', 'c', 'h']
const LETTERS = [...'mrchakqswvenlpdiox?*1 \0']

const valuesOf = (received: readonly Received[]) => received.map(({ value }) => value)

/** The addresses that are attached to a queue, as anybody can read them. */
async function addressesOf(s: BusWire, name = 'q'): Promise<string[]> {
  const members = (await s.t.server.call('ZRANGE', `soloflight:1:b{${name}}L`, 0, -1)) as unknown[]
  return members.map((member) => String(member).slice(1))
}

/** Publishes to the inbox of an address, as anybody can who knows it. */
async function forger(s: BusWire): Promise<(address: string, text: string | Buffer) => Promise<unknown>> {
  const client = await s.t.client()
  return (address, text) => {
    const message = Buffer.concat([Buffer.from(`1${address.slice(22)}`), Buffer.from(text)])
    return client.publish(INBOX + address.slice(0, 22), message as unknown as string)
  }
}

/** What the server has done for scripts so far. */
async function scripts(s: BusWire): Promise<number> {
  return (await s.t.server.commandStats())['evalsha'] ?? 0
}

async function exchange(
  producer: Awaited<ReturnType<WiredBus['queue']>>,
  received: Received[],
): Promise<void> {
  received.length = 0
  await Promise.all(upTo(100).map((value) => producer.queue.push(value)))
  await until(() => received.length >= 100, { what: 'the messages' })
  assert.deepEqual(valuesOf(received), upTo(100))
}

describe('hostile messages', { concurrency: 2 }, () => {
  test('U3 inbox - forged and malformed signals of every kind: nothing crashes or is lost, messages go on in order', async () => {
    await using s = await BusWire.start()
    const [a, b] = [await s.open(), await s.open()]
    const producer = await a.queue()
    const { queue, received } = await b.consumer({ reliable: true, prefetch: 10 })
    const events: string[] = []
    for (const event of ['closed', 'detached'] as const) queue.on(event, () => events.push(event))
    const forge = await forger(s)
    const all: Promise<unknown>[] = []
    const addresses = await addressesOf(s)
    assert.ok(addresses.length >= 2)
    for (const address of addresses) {
      for (const letter of LETTERS) {
        all.push(forge(address, letter), forge(address, `${letter}\n`), forge(address, `${letter} ${letter}`))
        for (let n = 0; n < 20; n++)
          all.push(forge(address, Buffer.concat([Buffer.from(letter), randomBytes(n)])))
      }
      all.push(
        forge(address, ''),
        forge(address, 'm'.repeat(1_000_000)),
        forge(address, randomBytes(100_000)),
      )
      all.push(forge(address.slice(0, 30), 'm'), forge(`${address}x`, 'c'))
    }
    await Promise.all(all)
    await exchange(producer, received)
    assert.deepEqual(events, [])
    assert.ok(queue.isAttached() && queue.isConsuming())
  })

  test('U3 inbox - forged signals to a channel: its peers stay, and nobody is said to have come or gone', async () => {
    await using s = await BusWire.start()
    const [a, b] = [await s.open(), await s.open()]
    const [local, remote] = [a.bus.channel('chat'), b.bus.channel('chat')]
    const events: string[] = []
    for (const event of ['disconnect', 'remote:connect', 'remote:disconnect', 'end'] as const)
      local.on(event, () => events.push(event))
    const received: unknown[] = []
    remote.on('message', (value) => received.push(value))
    await Promise.all([local.connect(), remote.listen()])
    await until(() => events.length === 1, { what: 'the peer' })
    const forge = await forger(s)
    const keys = ((await s.t.server.call('KEYS', 'soloflight:1:b{*L')) as unknown[]).map(String)
    assert.equal(keys.length, 2)
    for (const key of keys) {
      for (const member of (await s.t.server.call('ZRANGE', key, 0, -1)) as unknown[])
        for (const signal of SIGNALS) await forge(String(member).slice(1), signal)
    }
    await Promise.all(upTo(50).map((value) => local.send(value)))
    await until(() => received.length >= 50, { what: 'the messages' })
    assert.deepEqual(received, upTo(50))
    assert.deepEqual(events, ['remote:connect'])
  })

  test('L5 inbox - a flood of 10,000 forged signals makes few commands, and no message is lost', async () => {
    await using s = await BusWire.start()
    const [a, b] = [await s.open(), await s.open()]
    const producer = await a.queue()
    const { received } = await b.consumer()
    const forge = await forger(s)
    const addresses = await addressesOf(s)
    const before = await scripts(s)
    const pushed = Promise.all(upTo(100).map((value) => producer.queue.push(value)))
    for (let n = 0; n < 10_000; n += 500) {
      const batch = upTo(500).map((k) =>
        forge(addresses[k % addresses.length] as string, SIGNALS[(n + k) % SIGNALS.length] as string),
      )
      await Promise.all(batch)
    }
    await pushed
    await until(() => received.length >= 100, { what: 'the messages' })
    await exchange(producer, received)
    const run = (await scripts(s)) - before
    assert.ok(run < 5000, `${run} scripts for 10,000 signals`)
  })
})

describe('hostile contents', { concurrency: 2 }, () => {
  const WRONG: Record<string, readonly [command: string, ...args: (string | number)[]]> = {
    string: ['SET', 'x'],
    list: ['RPUSH', 'x'],
    hash: ['HSET', 'e', 'x'],
    stream: ['XADD', '*', 'a', 'b'],
    zset: ['ZADD', 1, 'x'],
  }
  const WRITE = `
redis.call('DEL', KEYS[1])
redis.call(ARGV[1], KEYS[1], unpack(ARGV, 2))
redis.call('PEXPIRE', KEYS[1], 60000)`
  const KEYS = ['Q', 'S', 'L', 'I', 'T', 'W', 'M', 'C']

  test('U3 keys of wrong types, written by hand - typed errors, other queues go on, and so does this one afterwards', async () => {
    await using s = await BusWire.start()
    const [a, b] = [await s.open({ unavailableAfter: 1000 }), await s.open({ unavailableAfter: 1000 })]
    const producer = await a.queue()
    const { received } = await b.consumer({ reliable: true, prefetch: 5 })
    const other = await a.queue('other')
    const { received: others } = await b.consumer({}, 'other')
    for (const letter of KEYS) {
      for (const [type, [command, ...args]] of Object.entries(WRONG)) {
        const key = `soloflight:1:b{q}${letter}`
        await s.t.server.call('EVAL', WRITE, 1, key, command, ...args)
        const error = await producer.queue.push('any').then(
          () => undefined,
          (reason: unknown) => reason,
        )
        if (error !== undefined)
          assert.ok(error instanceof UnavailableError, `${letter} as ${type}: ${error}`)
        await producer.queue.count().catch((reason: unknown) => assert.ok(reason instanceof UnavailableError))
      }
      await exchange(other, others)
    }
    const keys = ((await s.t.server.call('KEYS', 'soloflight:1:b{q}*')) as unknown[]).map(String)
    if (keys.length > 0) await s.t.server.call('DEL', ...keys)
    await until(() => producer.queue.push('after'), { what: 'the queue', every: 50 })
    await until(() => valuesOf(received).includes('after'), { what: 'the message' })
  })

  test('U3 Q - fields that are none, written by hand: typed errors or a queue, and no crash', async () => {
    await using s = await BusWire.start()
    const a = await s.open({ unavailableAfter: 1000 })
    const { queue } = await a.queue()
    const key = 'soloflight:1:b{q}Q'
    const attached = ((await s.t.server.call('HKEYS', key)) as unknown[]).map(String)
    for (const field of attached) {
      const kept = String(await s.t.server.call('HGET', key, field))
      for (const value of ['', 'x', '-1', '1e400', 'nan', '9007199254740993', '0 0 0 0/x', '\0']) {
        await s.t.server.call('HSET', key, field, value)
        for (const call of [() => queue.count(), () => queue.find(), () => queue.push(1)])
          await call().catch((error: unknown) => assert.match(String(error), /Error: /))
        if (!queue.isAttached()) await queue.attach()
        await s.t.server.call('HSET', key, field, kept)
        await s.t.server.call('PEXPIRE', key, 60_000)
      }
    }
  })

  test('U3 names and keys of every kind - each is a queue of its own, and messages arrive with their keys', async () => {
    await using s = await BusWire.start()
    const [a, b] = [await s.open(), await s.open()]
    const names = [
      '__proto__',
      'constructor',
      '{',
      '}',
      '{}',
      '{a}{b}',
      'a\0b',
      'a\r\nb',
      ' ',
      '*',
      '?[a]',
      'é',
      '日本',
      '😀',
    ]
    names.push(
      'x'.repeat(256),
      '%',
      '%00',
      'Q',
      'n',
      '"',
      '\\',
      "'",
      '{x}Q',
      'x}L',
      '0',
      '-1',
      'a/b',
      'a b c',
    )
    const queues = await Promise.all(
      names.map(async (name) => ({ name, producer: await a.queue(name), consumer: await b.queue(name) })),
    )
    for (const { name, producer, consumer } of queues) {
      const keys: (string | undefined)[] = []
      consumer.queue.on('message', (_, __, { key }) => keys.push(key))
      await consumer.queue.consume({ reliable: true, prefetch: 100 })
      for (const key of names) await producer.queue.push(name, { key })
      await until(() => keys.length === names.length, { what: 'the messages' })
      assert.deepEqual(keys, names)
      assert.deepEqual([...new Set(valuesOf(consumer.received))], [name])
      await producer.queue.metadata({ [name]: name })
      assert.deepEqual(await producer.queue.metadata(name), name)
    }
    for (const name of ['', '\0', '\0a', 'x'.repeat(257), '\ud800', 1, null, undefined, {}])
      assert.throws(() => a.bus.queue(name as string), TypeError)
    for (const key of ['', 'x'.repeat(257), '\udfff', 1, null, {}])
      await assert.rejects(
        queues[0]?.producer.queue.push(1, { key: key as string }) as Promise<number>,
        TypeError,
      )
  })

  const CODEC: Codec = {
    id: 'odd',
    encode: (value) => Buffer.from(`\xff{${JSON.stringify(value)}`, 'latin1'),
    decode: (bytes) => JSON.parse(bytes.toString('latin1').slice(2)) as unknown,
  } as Codec

  for (const options of [
    {},
    { reliable: true },
    { exclusive: true, reliable: true, prefetch: 5 },
    { remove: false },
  ]) {
    test(`U3 messages of another codec, ${JSON.stringify(options)} - they are told and passed over, and do not come again`, async () => {
      using telemetry = hear('undecodable')
      await using s = await BusWire.start()
      const name = `codec ${JSON.stringify(options)}`
      const [a, b, c] = [await s.open(), await s.open({ codec: CODEC }), await s.open()]
      const [{ queue: json }, { queue: odd }] = [await a.queue(name), await b.queue(name)]
      const { received, queue } = await c.consumer({ lease: 1000, ...options }, name)
      for (const value of upTo(30)) await (value % 3 === 0 ? odd : json).push(value)
      await until(() => valuesOf(received).includes(29), { what: 'the messages' })
      assert.deepEqual(
        valuesOf(received),
        upTo(30).filter((value) => value % 3 !== 0),
      )
      const told = () => telemetry.heard.filter(({ key }) => key === name)
      await until(() => told().length >= 10, { what: 'all to be told' })
      if (!('remove' in options))
        await until(async () => (await json.count()) === 0, { what: 'an empty queue' })
      await queue.stop()
      assert.deepEqual(
        told().map(({ fence }) => fence),
        upTo(10).map((n) => 3 * n),
      )
      if (!('remove' in options)) assert.equal(await json.count(), 0)
    })
  }

  test('U3 a forged stream entry - consumption does not loop on it, and goes on when it is removed', async () => {
    await using s = await BusWire.start()
    const a = await s.open({ unavailableAfter: 1000 })
    const { queue } = await a.queue()
    await queue.push(1)
    await s.t.server.call('XADD', 'soloflight:1:b{q}S', 2, 'zzz', 'garbage')
    await s.t.server.call('HSET', 'soloflight:1:b{q}Q', 'l', 2)
    const { received } = await a.consumer({ reliable: true, prefetch: 5 })
    const before = await scripts(s)
    await new Promise((resolve) => setTimeout(resolve, 1000))
    assert.ok((await scripts(s)) - before < 100)
    await s.t.server.call('XDEL', 'soloflight:1:b{q}S', 2)
    await queue.push(3)
    await until(() => valuesOf(received).includes(3), { what: 'the messages', timeout: 15_000 })
  })
})
