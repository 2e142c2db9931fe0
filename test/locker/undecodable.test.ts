// A value that another codec encoded is a miss: it is computed again and overwritten. It never fails until its ttl ends.

import assert from 'node:assert/strict'
import diagnostics from 'node:diagnostics_channel'
import { describe, test } from 'node:test'
import pDefer from 'p-defer'
import { type Codec, channelName, Lease, type Locker } from '../../src/index.ts'
import { jsonCodec } from '../../src/kernel/codec/codec.ts'
import { HEADER_LENGTH } from '../../src/locker/store/redis/wire.ts'
import { HttpCache } from '../../src/memoize/index.ts'
import { lockersIn, withAndWithoutCache } from '../support/lockers.ts'
import { onBothStores } from '../support/stores.ts'
import { all, reached, reading, Tap } from '../support/stream-scene.ts'
import { until } from '../support/wait.ts'

/** JSON after a letter: a codec decodes only values with its own letter. */
const otherCodec: Codec = {
  encode: (value) => Buffer.from(`o${JSON.stringify(value)}`),
  decode(bytes) {
    if (bytes[0] !== 0x6f) throw new Error('of another codec')
    return JSON.parse(bytes.toString('utf8', 1))
  },
}

/** A work that counts its runs. */
function counter(result: string) {
  const work = Object.assign(() => `${result} ${++work.runs}`, { runs: 0 })
  return work
}

withAndWithoutCache(
  'undecodable - a value is computed again and overwritten, by run and request',
  async (world, options) => {
    const one = await world.open(options)
    const other = await world.open({ ...options, codec: otherCodec })
    const [mine, yours] = [counter('one'), counter('other')]
    const heard: unknown[] = []
    const listener = (event: unknown) => heard.push(event)
    diagnostics.subscribe(channelName('undecodable'), listener)
    assert.equal(await one.run('key', mine), 'one 1')
    assert.deepEqual(
      await Promise.all([1, 2, 3].map(() => other.run('key', yours))),
      Array(3).fill('other 1'),
    )
    assert.equal(await other.run('key', yours), 'other 1')
    diagnostics.unsubscribe(channelName('undecodable'), listener)
    assert.deepEqual([one.stats().undecodable, other.stats().undecodable], [0, 1])
    assert.deepEqual(
      heard.map((event) => (event as { key: string }).key),
      ['key'],
    )
    const dropped = async () => (await one.run('key', mine)) === 'one 2'
    await until(dropped, { what: 'the value to be overwritten' })
    await until(() => other.stats().cached === 0, { what: 'the message to arrive' })
    const ticket = await other.request('key')
    assert.ok(ticket instanceof Lease, 'the lease is granted to the next caller')
    await ticket.publish('other 2')
    assert.equal(await other.run('key', yours), 'other 2')
  },
)

withAndWithoutCache(
  'undecodable - runMany computes undecodable keys together with missing ones',
  async (world, options) => {
    const one = await world.open(options)
    const other = await world.open({ ...options, codec: otherCodec })
    const keys = ['a', 'b', 'c']
    await one.runMany(['a', 'b'], (asked) => asked.map((key) => `one ${key}`))
    const rounds: string[][] = []
    const work = (asked: string[]) => {
      rounds.push(asked)
      return asked.map((key) => `other ${key}`)
    }
    for (let time = 0; time < 3; time++) {
      assert.deepEqual(await other.runMany(keys, work), ['other a', 'other b', 'other c'])
    }
    assert.deepEqual(rounds.flat().sort(), keys, 'each once')
    assert.equal(other.stats().undecodable, 2)
  },
)

withAndWithoutCache(
  'undecodable - memoized functions with two codecs each receive their own result',
  async (world, options) => {
    const memoized = (locker: Locker, name: string) =>
      locker.memoize(async (id: number) => `${name} ${id}`, { key: (id) => `f:${id}` })
    const one = memoized(await world.open({ ...options, cache: false }), 'one')
    const other = memoized(await world.open({ ...options, cache: false, codec: otherCodec }), 'other')
    for (let time = 0; time < 3; time++)
      assert.deepEqual([await one(1), await other(1)], ['one 1', 'other 1'])
  },
)

withAndWithoutCache(
  'undecodable - a waiter for a work of another codec runs its own work, once',
  async (world, options) => {
    const one = await world.open(options)
    const other = await world.open({ ...options, codec: otherCodec })
    const gate = pDefer<string>()
    const running = one.run('key', () => gate.promise, { ttl: 0 })
    await until(async () => (await one.peek('key')).status === 'locked', { what: 'the claim' })
    const yours = counter('other')
    const waits = other.run('key', yours)
    await until(async () => (await one.peek('key')).lock?.parked === 1, { what: 'the park' })
    gate.resolve('one')
    assert.deepEqual(await Promise.all([running, waits]), ['one', 'other 1'])
  },
)

withAndWithoutCache(
  'undecodable - two concurrent callers with different codecs end after one work each',
  async (world, options) => {
    const one = await world.open({ ...options, ttl: 0 })
    const other = await world.open({ ...options, ttl: 0, codec: otherCodec })
    const [mine, yours] = [counter('one'), counter('other')]
    for (let round = 1; round <= 20; round++) {
      const calls = [
        one.run('key', mine),
        other.run('key', yours),
        one.run('key', mine),
        other.run('key', yours),
      ]
      await Promise.all(calls)
      assert.ok(
        mine.runs <= 2 * round && yours.runs <= 2 * round,
        `${mine.runs} and ${yours.runs} in ${round}`,
      )
    }
  },
)

withAndWithoutCache(
  'undecodable - a value that its own codec cannot decode is an error, not a loop',
  async (world, options) => {
    const decode = () => {
      throw new Error('never')
    }
    const locker = await world.open({ ...options, codec: { ...otherCodec, decode } })
    const work = counter('x')
    await assert.rejects(locker.run('key', work), { code: 'E_CODEC' })
    assert.equal(work.runs, 1)
    await assert.rejects(locker.run('key', work), { code: 'E_CODEC' })
    assert.equal(work.runs, 2)
  },
)

describe('undecodable streams', () => {
  for (const kind of ['memory', 'redis'] as const) {
    test(`a complete stream is produced again for all, in ${kind}`, async () => {
      await using world = await lockersIn(kind)
      const one = await world.open()
      const other = await world.open({ codec: otherCodec })
      const [mine, yours] = [new Tap<number>().push(1, 2).end(), new Tap<number>().push(3, 4).end()]
      assert.deepEqual(await all(one.stream('k', mine.work)), [1, 2])
      const readers = [1, 2].map(() => all(other.stream('k', yours.work)))
      assert.deepEqual(await Promise.all(readers), [
        [3, 4],
        [3, 4],
      ])
      assert.deepEqual(await all(other.stream('k', yours.work)), [3, 4])
      assert.equal(yours.runs.length, 1)
      assert.ok(other.stats().undecodable >= 1, 'it was counted')
      await until(() => one.stats().cached === 0, { what: 'the message to arrive' })
      assert.deepEqual(await all(one.stream('k', mine.work)), [1, 2])
      assert.equal(mine.runs.length, 2)
    })

    test(`a process with another codec produces its own stream beside a running one, in ${kind}`, async () => {
      await using world = await lockersIn(kind)
      const one = await world.open()
      const other = await world.open({ codec: otherCodec })
      const mine = new Tap<number>().push(1)
      const first = reading(one.stream('k', mine.work))
      await reached(first, 1)
      const yours = new Tap<number>().push(3, 4).end()
      assert.deepEqual(await all(other.stream('k', yours.work)), [3, 4])
      mine.push(2).end()
      assert.deepEqual(await first.done, { chunks: [1, 2], error: undefined })
    })
  }
})

test('undecodable - an undecodable response is fetched from the origin again, and kept', async () => {
  await using world = await lockersIn('redis')
  const client = await world.t?.client()
  const locker = await world.open({ cache: false })
  const cache = new HttpCache(locker)
  const request = { method: 'GET', url: '/page', headers: { host: 'example.org' } }
  let asked = 0
  const origin = () => ({
    status: 200,
    headers: { 'cache-control': 'max-age=60' },
    body: Buffer.from(`${++asked}`),
  })
  const ask = async (headers = {}) =>
    String((await cache.handle({ ...request, headers: { ...request.headers, ...headers } }, origin)).body)
  assert.deepEqual([await ask(), await ask()], ['1', '1'])
  const spoil = async () => {
    const [record] = (await client?.keys('soloflight:1:w*')) ?? []
    assert.ok(record, 'there is a record')
    const value = await client?.hgetBuffer(record, 'v')
    await client?.hset(
      record,
      'v',
      Buffer.concat([value?.subarray(0, HEADER_LENGTH) ?? Buffer.alloc(0), jsonCodec.encode('x')]),
    )
  }
  await spoil()
  assert.deepEqual([await ask(), await ask()], ['2', '2'])
  await spoil()
  // A request with only-if-cached finds no response.
  const answer = await cache.handle(
    { ...request, headers: { ...request.headers, 'cache-control': 'only-if-cached' } },
    origin,
  )
  assert.equal(answer.status, 504)
  assert.deepEqual([await ask(), locker.stats().undecodable], ['3', 3])
})

onBothStores(
  'undecodable - an undecodable result of a job fails its submitter with CodecError: the job is not run again',
  async (world) => {
    const one = world.open<{ work: (n: number) => string }>()
    const other = world.open<{ work: (n: number) => string }>({ codec: otherCodec })
    let runs = 0
    one.process('work', () => `run ${++runs}`)
    assert.equal(await one.submit('work', 1), 'run 1')
    await assert.rejects(other.submit('work', 1), { code: 'E_CODEC' })
    assert.equal(await one.submit('work', 1), 'run 1')
  },
)
