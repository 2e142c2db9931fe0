import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { Locker, StreamInterruptedError, UnavailableError } from '../../src/index.ts'
import { logScripts } from '../../src/locker/stream/log/redis-log-store.ts'
import { RedisCluster } from '../support/cluster.ts'
import { cutOff, onSubscription, scene } from '../support/locker-scene.ts'
import { EPSILON } from '../support/lockers.ts'
import { setup } from '../support/setup.ts'
import { all, onRedis, reached, reading, some, Tap } from '../support/stream-scene.ts'
import { took, until } from '../support/wait.ts'

/** The keys of all logs. */
async function logs(client: { keys(pattern: string): Promise<string[]> }): Promise<string[]> {
  return client.keys('*:x/*')
}

describe('stream - messages', () => {
  test('L3 a lost message delays a chunk by one poll interval at most', async () => {
    const lease = 1_000
    await using s = await scene({ lease })
    const tap = new Tap<number>().push(1)
    const producing = reading(s.other.stream('k', tap.work))
    await reached(producing, 1)
    const stream = s.locker.stream('k', tap.work)
    assert.deepEqual(await some(stream, 1), [1])
    const next = stream.next()
    // The follower is registered, and its subscription is lost without an event.
    await sleep(50)
    s.t.proxy.blackhole(true, onSubscription)
    tap.push(2)
    const ms = await took(async () => assert.deepEqual(await next, { done: false, value: 2 }))
    assert.ok(ms < lease + EPSILON, `it took ${ms} ms`)
    tap.end()
    assert.deepEqual(await all(stream), [])
  })

  test('L3 all subscriptions are killed: chunks that were missed are read when they are restored', async () => {
    await using s = await scene()
    const tap = new Tap<number>().push(0)
    const producing = reading(s.other.stream('k', tap.work))
    await reached(producing, 1)
    const under = reading(s.locker.stream('k', tap.work))
    await reached(under, 1)
    for (let number = 1; number <= 20; number++) {
      if (number % 5 === 0) await s.t.server.call('CLIENT', 'KILL', 'TYPE', 'pubsub')
      tap.push(number)
      await sleep(5)
    }
    const ms = await took(() => reached(under, 21))
    assert.ok(ms < 2_000, `it took ${ms} ms`)
    tap.end()
    const numbers = Array.from({ length: 21 }, (_, number) => number)
    assert.deepEqual(await under.done, { chunks: numbers, error: undefined })
    assert.deepEqual(await producing.done, { chunks: numbers, error: undefined })
  })

  test('forged messages change nothing', async () => {
    await using world = await onRedis()
    const { here, there, t } = world
    const tap = new Tap<string>().push('a')
    const producing = reading(here.stream('k', tap.work))
    await reached(producing, 1)
    const under = reading(there.stream('k', tap.work))
    await reached(under, 1)
    const client = await t.client()
    const [log = ''] = await logs(client)
    const groups = (await client.xinfo('GROUPS', log)) as string[][]
    const park = String(groups[0]?.[1])
    const channel = `soloflight:1:inbox:${park.slice(0, 22)}`
    const nonce = park.slice(22)
    for (const message of [
      'c',
      'c 1',
      'c -1 1\nx',
      'c 1 5\nx',
      'c NaN 1\nx',
      'c 1e9 1\nx',
      'c 1000000 1\nx',
      'c 0 1\nx',
      'm',
      'm -1',
      'm 5',
      'm 9007199254740991',
      'm 99999999999999999999',
      'z 1 1\nx',
      `c 1 ${'1 '.repeat(5)}\nx`,
    ])
      assert.equal(await client.publish(channel, `1${nonce}${message}`), 1, message)
    // Chunks that a forged message announced are not read for again and again.
    await t.server.resetStats()
    await sleep(200)
    const { evalsha = 0 } = await t.server.commandStats()
    assert.ok(evalsha < 20, `${evalsha} reads of chunks that do not exist`)
    tap.push('b', 'c').end()
    assert.deepEqual(await under.done, { chunks: ['a', 'b', 'c'], error: undefined })
    assert.deepEqual(await producing.done, { chunks: ['a', 'b', 'c'], error: undefined })
  })
})

describe('stream - replies', () => {
  test('S6 the reply of an append is lost: its chunks are in the log once', async () => {
    await using s = await scene()
    const tap = new Tap<number>().push(0)
    const producing = reading(s.locker.stream('k', tap.work))
    await reached(producing, 1)
    const under = reading(s.other.stream('k', tap.work))
    await reached(under, 1)
    const fault = s.t.proxy.swallowReply(new RegExp(`^EVALSHA ${logScripts.append.sha1} `), { times: 2 })
    for (let number = 1; number <= 10; number++) {
      tap.push(number)
      await sleep(20)
    }
    tap.end()
    const numbers = Array.from({ length: 11 }, (_, number) => number)
    assert.deepEqual(await under.done, { chunks: numbers, error: undefined })
    assert.deepEqual(await producing.done, { chunks: numbers, error: undefined })
    assert.equal(fault.hits, 2)
    assert.deepEqual(await all(s.other.stream('k', tap.work)), numbers)
    assert.equal(tap.runs.length, 1)
  })

  test('S6 the reply of a read is lost: no chunk is lost or repeated', async () => {
    await using s = await scene()
    const numbers = Array.from({ length: 1_000 }, (_, number) => number)
    assert.equal((await all(s.other.stream('k', () => numbers))).length, 1_000)
    const fault = s.t.proxy.swallowReply(new RegExp(`^EVALSHA ${logScripts.read.sha1} `), { times: 2 })
    assert.deepEqual(await all(s.locker.stream('k', () => [])), numbers)
    assert.equal(fault.hits, 2)
  })
})

describe('stream - the server', () => {
  test('with `local`, a reader that has all chunks receives the end although Redis is gone by then', async () => {
    await using s = await scene({ unavailableAfter: 300 })
    const tap = new Tap<number>().push(1, 2)
    const read = reading(s.locker.stream('k', tap.work, { onUnavailable: 'local' }))
    await reached(read, 2)
    await s.t.server.freeze()
    tap.end()
    assert.deepEqual(await read.done, { chunks: [1, 2], error: undefined })
    s.t.server.thaw()
  })

  test('Redis is killed and restarted with its data: no chunk is lost or repeated', async () => {
    await using t = await setup({ persistence: true })
    const lockers = [1, 2].map(() => new Locker({ redis: t.redis, unavailableAfter: 10_000, cache: false }))
    const [here, there] = lockers as [Locker, Locker]
    await Promise.all([here.peek('warm'), there.peek('warm')])
    const tap = new Tap<number>()
    const readings = [reading(here.stream('k', tap.work))]
    tap.push(0)
    await reached(readings[0] as never, 1)
    readings.push(reading(there.stream('k', tap.work)))
    await reached(readings[1] as never, 1)
    let number = 0
    const pushing = (async () => {
      while (number < 100) {
        tap.push(++number)
        await sleep(10)
      }
      tap.end()
    })()
    for (let time = 0; time < 2; time++) {
      await sleep(200)
      await t.server.kill()
      await sleep(50)
      await t.server.restart()
    }
    await pushing
    const numbers = Array.from({ length: 101 }, (_, at) => at)
    for (const { done } of readings) assert.deepEqual(await done, { chunks: numbers, error: undefined })
    assert.deepEqual(await all(there.stream('k', tap.work)), numbers)
    assert.equal(tap.runs.length, 1)
    await Promise.all(lockers.map((locker) => locker.close({ grace: 0 })))
  })

  for (const [what, lose] of [
    ['restarted without its data', (t: Awaited<ReturnType<typeof setup>>) => t.server.restart()],
    ['flushed', (t: Awaited<ReturnType<typeof setup>>) => t.server.call('FLUSHALL')],
  ] as const) {
    test(`Redis is ${what}: readers are interrupted, and later callers produce again`, async () => {
      await using world = await onRedis({ lease: 1_000, unavailableAfter: 5_000 })
      const { here, there, t } = world
      const tap = new Tap<number>().push(1)
      const readings = [reading(here.stream('k', tap.work))]
      await reached(readings[0] as never, 1)
      readings.push(reading(there.stream('k', tap.work)))
      await reached(readings[1] as never, 1)
      await lose(t)
      tap.push(2)
      const ms = await took(async () => {
        for (const { done } of readings) {
          const { chunks, error } = await done
          assert.ok(error instanceof StreamInterruptedError, String(error))
          assert.ok(chunks.length <= 2, `${chunks}`)
        }
      })
      assert.ok(ms < 2_000 + EPSILON, `it took ${ms} ms`)
      const again = new Tap<number>().push(7).end()
      assert.deepEqual(await all(there.stream('k', again.work)), [7])
      assert.deepEqual(await all(here.stream('k', again.work)), [7])
      assert.equal(again.runs.length, 1)
    })
  }

  test('L1 Redis is silent: every waiting reader fails in time', async () => {
    await using world = await onRedis({ unavailableAfter: 500, lease: 30_000 })
    const { here, there, t } = world
    const tap = new Tap<number>().push(1)
    const readings = [reading(here.stream('k', tap.work))]
    await reached(readings[0] as never, 1)
    readings.push(reading(there.stream('k', tap.work)))
    await reached(readings[1] as never, 1)
    await t.server.freeze()
    const late = reading(there.stream('other', tap.work))
    tap.push(2)
    const ms = await took(async () => {
      for (const { done } of [...readings, late]) {
        const { error } = await done
        assert.ok(error instanceof UnavailableError, String(error))
        assert.ok(error.key, 'it names the key')
      }
    })
    t.server.thaw()
    // The lost subscription is detected within 2 s; then the record is read.
    assert.ok(ms < 2_000 + 500 + 2 * EPSILON, `it took ${ms} ms`)
  })

  test('only the log of a complete stream is lost: it is produced again', async () => {
    await using world = await onRedis()
    const { here, there, t } = world
    const tap = new Tap<number>().push(1, 2).end()
    assert.deepEqual(await all(here.stream('k', tap.work)), [1, 2])
    const client = await t.client()
    assert.equal(await client.del(await logs(client)), 1)
    assert.deepEqual(await all(there.stream('k', tap.work)), [1, 2])
    assert.equal(tap.runs.length, 2)
  })

  test('the log of a running stream is lost: readers are interrupted at the next chunk', async () => {
    await using world = await onRedis({ lease: 30_000 })
    const { here, there, t } = world
    const tap = new Tap<number>().push(1)
    const readings = [reading(here.stream('k', tap.work))]
    await reached(readings[0] as never, 1)
    readings.push(reading(there.stream('k', tap.work)))
    await reached(readings[1] as never, 1)
    const client = await t.client()
    assert.equal(await client.del(await logs(client)), 1)
    tap.push(2)
    for (const { done } of readings) {
      const { chunks, error } = await done
      assert.ok(error instanceof StreamInterruptedError, String(error))
      assert.deepEqual(chunks, [1])
    }
    assert.equal(tap.returned, 1)
    assert.deepEqual(await all(there.stream('k', () => [7])), [7])
  })

  test('the record is lost: an end that it has not accepted does not count', async () => {
    await using world = await onRedis({ lease: 30_000 })
    const { here, there, t } = world
    const tap = new Tap<number>().push(1)
    const readings = [reading(here.stream('k', tap.work))]
    await reached(readings[0] as never, 1)
    readings.push(reading(there.stream('k', tap.work)))
    await reached(readings[1] as never, 1)
    const client = await t.client()
    for (const key of await client.keys('*')) if (!key.includes(':x/')) await client.del(key)
    tap.push(2).end()
    const { error } = await (readings[0] as (typeof readings)[0]).done
    assert.ok(error instanceof StreamInterruptedError, String(error))
    await there.close({ grace: 0 })
    await (readings[1] as (typeof readings)[0]).done
  })

  test('a log that will never be complete is discarded', async () => {
    await using world = await onRedis()
    const locker = world.open()
    const tap = new Tap<number>().push(1)
    const mine = reading(locker.stream('k', tap.work))
    await reached(mine, 1)
    const client = await world.t.client()
    assert.equal((await logs(client)).length, 1)
    await locker.close({ grace: 0 })
    await until(async () => (await logs(client)).length === 0, { what: 'the log to be discarded' })
  })

  test('Redis is out of memory: the readers fail', async () => {
    await using world = await onRedis({ unavailableAfter: 500 })
    const { here, t } = world
    const tap = new Tap<number>().push(1)
    const mine = reading(here.stream('k', tap.work))
    await reached(mine, 1)
    await t.server.call('CONFIG', 'SET', 'maxmemory', '1')
    tap.push(2)
    const { error } = await mine.done
    assert.ok(error instanceof UnavailableError, String(error))
    await t.server.call('CONFIG', 'SET', 'maxmemory', '0')
    assert.deepEqual(await all(here.stream('k', () => [3])), [3])
  })

  test('L5 every key expires after the longest ttl', async () => {
    await using world = await onRedis()
    const { here, there, t } = world
    const ttl = 5_000
    const tap = new Tap<number>().push(1)
    const readings = [here, there].map((locker) => reading(locker.stream('running', tap.work, { ttl })))
    await Promise.all(readings.map((reader) => reached(reader, 1)))
    await all(here.stream('complete', () => [1], { ttl }))
    await reading(here.stream('failed', () => Promise.reject(new Error()), { ttl })).done
    // A log that is read before the first append.
    const empty = new Tap<number>()
    const waiting = [here, there].map((locker) => reading(locker.stream('waiting', empty.work, { ttl })))
    const client = await t.client()
    await until(async () => (await logs(client)).length === 3, { what: 'all logs' })
    for (const key of await client.keys('*')) {
      const left = await client.pttl(key)
      assert.ok(left > 0 && left <= ttl + 61_000, `${key}: ${left}`)
    }
    tap.end()
    empty.end()
    await Promise.all([...readings, ...waiting].map(({ done }) => done))
  })
})

describe('stream - onUnavailable local', () => {
  test('while Redis is away a stream is produced once in this process, for this process', async () => {
    await using s = await scene({ unavailableAfter: 300, onUnavailable: 'local' })
    await cutOff(s)
    const tap = new Tap<number>().push(1)
    const readings = [1, 2].map(() => reading(s.locker.stream('k', tap.work)))
    await Promise.all(readings.map((reader) => reached(reader, 1)))
    const late = reading(s.locker.stream('k', tap.work))
    await reached(late, 1)
    assert.deepEqual([tap.runs.length, tap.runs[0]?.shared, tap.runs[0]?.fence], [1, false, 0])
    tap.push(2).end()
    for (const { done } of [...readings, late])
      assert.deepEqual(await done, { chunks: [1, 2], error: undefined })
    assert.equal(tap.runs.length, 1)
    // The unshared stream is not kept.
    await s.t.proxy.clear()
    assert.deepEqual(await all(s.other.stream('k', () => [7])), [7])
  })

  test('Redis goes away: readers that received nothing produce locally, the others fail', async () => {
    await using s = await scene({ unavailableAfter: 300, onUnavailable: 'local' })
    const tap = new Tap<number>().push(1)
    const producing = reading(s.other.stream('under', tap.work))
    await reached(producing, 1)
    const under = reading(s.locker.stream('under', tap.work))
    await reached(under, 1)
    const remote = new Tap<number>()
    const holder = reading(s.other.stream('at 0', remote.work))
    await until(() => remote.runs.length === 1, { what: 'the work' })
    const local = new Tap<number>().push(7).end()
    const atZero = reading(s.locker.stream('at 0', local.work))
    await until(async () => (await s.other.stats()).flights > 0, { what: 'a flight' })
    await sleep(100)
    await cutOff(s)
    assert.deepEqual(await atZero.done, { chunks: [7], error: undefined })
    assert.equal(local.runs[0]?.shared, false)
    const { error } = await under.done
    assert.ok(error instanceof StreamInterruptedError || error instanceof UnavailableError, String(error))
    tap.end()
    remote.end()
    await Promise.all([producing.done, holder.done])
  })
})

describe('stream - a cluster', () => {
  test('records and logs on different nodes: live and replayed', async () => {
    await using cluster = await RedisCluster.start()
    const open = async () => new Locker({ redis: await cluster.client(), lease: 1_000, cache: false })
    const [here, there] = [await open(), await open()]
    const keys = Array.from({ length: 12 }, (_, number) => `key ${number}`)
    const taps = keys.map(() => new Tap<string>())
    const readings = keys.flatMap((key, at) =>
      [here, there].map((locker) => reading(locker.stream(key, (taps[at] as Tap<string>).work))),
    )
    for (const [at, tap] of taps.entries()) tap.push(`${at}`)
    await Promise.all(readings.map((reader) => reached(reader, 1)))
    const ms = await took(async () => {
      for (const tap of taps) tap.push('live')
      await Promise.all(readings.map((reader) => reached(reader, 2)))
    })
    assert.ok(ms < 900, `live chunks took ${ms} ms: no message arrived`)
    for (const tap of taps) tap.end()
    for (const [at, { done }] of readings.entries())
      assert.deepEqual(await done, { chunks: [`${Math.floor(at / 2)}`, 'live'], error: undefined })
    for (const [at, key] of keys.entries())
      assert.deepEqual(await all(there.stream(key, () => [])), [`${at}`, 'live'])
    assert.ok(
      taps.every(({ runs }) => runs.length === 1),
      'each stream was produced once',
    )
    const slots = new Set<unknown>()
    for (const node of cluster.nodes)
      for (const key of (await node.call('KEYS', '*:x/*')) as string[]) slots.add(await cluster.slotOf(key))
    assert.ok(slots.size > 6, `logs are spread over ${slots.size} slots`)
    await Promise.all([here.close(), there.close()])
  })
})
