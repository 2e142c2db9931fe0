import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import pDefer from 'p-defer'
import { AbortedError, DeadlockError, Locker, type ManyContext, RemoteError } from '../../src/index.ts'
import { RedisCluster } from '../support/cluster.ts'
import { LockerProcesses } from '../support/locker-process.ts'
import { lockersIn, withAndWithoutCache } from '../support/lockers.ts'
import { setup } from '../support/setup.ts'
import { until } from '../support/wait.ts'

/** A work over many keys that records its calls. */
function noted(ms = 20) {
  const rounds: string[][] = []
  return {
    rounds,
    work: async (keys: string[]) => {
      rounds.push(keys)
      await sleep(ms)
      return keys.map((key) => key.toUpperCase())
    },
  }
}

const letters = (text: string): string[] => [...text]

withAndWithoutCache(
  'runMany - the work is called once with the granted keys, the other results are awaited',
  async (world, options) => {
    const [one, other] = [await world.open(options), await world.open(options)]
    const { rounds, work } = noted(50)
    await one.run('x', () => 'kept')
    const asked = [
      one.runMany(letters('abcx'), work),
      one.runMany(letters('cd'), work),
      other.runMany(letters('dabe'), work),
      other.run('a', async () => (await work(['a']))[0]).then((result) => [result]),
    ]
    const [first, second, third, fourth] = await Promise.all(asked)
    assert.deepEqual(
      [first, second, third],
      [
        ['A', 'B', 'C', 'kept'],
        ['C', 'D'],
        ['D', 'A', 'B', 'E'],
      ],
    )
    assert.deepEqual(fourth, ['A'])
    const keys = rounds.flat()
    assert.equal(keys.length, new Set(keys).size, `computed ${rounds.join(' ')}`)
    assert.ok(rounds.length <= 4, `${rounds.length} rounds`)
    assert.deepEqual(await other.runMany(letters('xabcde'), work), ['kept', 'A', 'B', 'C', 'D', 'E'])
    assert.deepEqual(keys, rounds.flat())
  },
)

withAndWithoutCache(
  'runMany - a key that is listed twice is computed once, and no key calls no work',
  async (world, options) => {
    const locker = await world.open(options)
    const { rounds, work } = noted(1)
    assert.deepEqual(await locker.runMany(letters('abab'), work), ['A', 'B', 'A', 'B'])
    assert.deepEqual(await locker.runMany([], work), [])
    assert.deepEqual(rounds, [letters('ab')])
  },
)

withAndWithoutCache(
  'runMany - results may be a Map, and an error in it fails its key only',
  async (world, options) => {
    const [one, other] = [await world.open(options), await world.open(options)]
    const failing = () =>
      new Map<string, number | Error>([
        ['a', 1],
        ['b', new Error('no b')],
      ])
    await assert.rejects(
      one.runMany(['a', 'b'], failing),
      (error: RemoteError) => error.remote.message === 'no b',
    )
    assert.equal(await other.run('a', () => 2), 1)
    await assert.rejects(
      one.runMany(['c', 'd'], () => new Map([['c', 1]])),
      RemoteError,
    )
    await assert.rejects(
      one.runMany(['e', 'f'], () => [1]),
      /2 results/,
    )
    const thrown = one.runMany(['g', 'h'], () => Promise.reject(new Error('all')))
    await assert.rejects(thrown, (error: RemoteError) => error.remote.message === 'all')
  },
)

withAndWithoutCache(
  'runMany - promises among the results are awaited, and a rejection fails its key only',
  async (world, options) => {
    const locker = await world.open(options)
    const lengths: number[] = await locker.runMany(['a', 'bb'], (keys) => keys.map(async (key) => key.length))
    assert.deepEqual(lengths, [1, 2])
    const work = (keys: string[]) =>
      keys.map((key) => (key === 'd' ? Promise.reject(new Error('no d')) : key))
    await assert.rejects(
      locker.runMany(['c', 'd'], work),
      (error: RemoteError) => error.remote.message === 'no d',
    )
    assert.equal(await locker.run('c', () => 'again'), 'c')
  },
)

withAndWithoutCache(
  'runMany - the context has the options of each key, and a signal',
  async (world, options) => {
    const locker = await world.open(options)
    const seen: number[] = []
    await locker.runMany(['a', 'b'], (keys, context: ManyContext) => {
      context.of('a').setTtl(200)
      context.of('b').noStore()
      seen.push(...keys.map((key) => context.of(key).fence))
      assert.equal(context.signal.aborted, false)
      assert.throws(() => context.of('z'))
      return keys
    })
    assert.ok(seen.every((fence) => fence > 0) && seen.length === 2, `fences ${seen}`)
    const { value } = await locker.peek('a')
    assert.ok(value && value.ttlLeft <= 200, `kept for ${value?.ttlLeft} ms`)
    assert.equal((await locker.peek('b')).status, 'free')
  },
)

withAndWithoutCache('runMany - refresh computes all keys again', async (world, options) => {
  const locker = await world.open(options)
  const { rounds, work } = noted(1)
  await locker.runMany(letters('ab'), work)
  await locker.runMany(letters('ab'), work, { refresh: true })
  assert.deepEqual(rounds, [letters('ab'), letters('ab')])
})

withAndWithoutCache('runMany - an abort ends only its own caller', async (world, options) => {
  const [one, other] = [await world.open(options), await world.open(options)]
  const gate = pDefer<void>()
  const work = async (keys: string[]) => {
    await gate.promise
    return keys
  }
  const abort = new AbortController()
  const aborted = one.runMany(letters('abc'), work, { signal: abort.signal })
  const waiting = other.runMany(letters('abc'), work)
  await until(() => other.stats().parks + one.stats().parks >= 3, { what: 'the other to wait' })
  abort.abort()
  await assert.rejects(aborted, AbortedError)
  gate.resolve()
  assert.deepEqual(await waiting, letters('abc'))
})

withAndWithoutCache(
  'runMany - a work that requests a key that it computes fails with DeadlockError',
  async (world, options) => {
    const locker = await world.open(options)
    const work = async (keys: string[]) => [await locker.run('b', () => 1), ...keys.slice(1)]
    await assert.rejects(
      locker.runMany(letters('ab'), work, { timeout: 5000 }),
      (error: RemoteError) => error.remote.code === new DeadlockError('').code,
    )
  },
)

withAndWithoutCache(
  'runMany - one work over many keys counts once for `concurrency`',
  async (world, options) => {
    const locker = await world.open({ ...options, concurrency: 1 })
    const { rounds, work } = noted(1)
    assert.equal((await locker.runMany(letters('abcdefgh'), work)).length, 8)
    assert.equal(rounds.length, 1)
  },
)

test('runMany - a key costs one plain read, and the claims of missing keys are batched', async () => {
  await using world = await lockersIn('redis')
  const locker = await world.open({ cache: false })
  const keys = Array.from({ length: 32 }, (_, index) => `k${index}`)
  const work = (some: string[]) => some
  await locker.runMany(['warm'], work)
  const server = world.t?.server
  assert.ok(server, 'a server')
  await using monitor = await server.monitor()
  const asked = async () => {
    const before = (await monitor.lines()).length
    assert.deepEqual(await locker.runMany(keys, work), keys)
    const lines = (await monitor.lines()).slice(before)
    const count = (command: string) => lines.filter((line) => line.command === command).length
    return { reads: count('hget'), scripts: count('evalsha') + count('eval') }
  }
  const { reads, scripts } = await asked()
  assert.equal(reads, 32)
  // One script settles each key; replies that arrive together are followed by one claim of up to 16 keys.
  assert.ok(scripts <= 32 + 16, `${scripts} scripts`)
  assert.deepEqual(await asked(), { reads: 32, scripts: 0 })
})

test('L2 runMany - a processor that dies is replaced, in another call of the work', async () => {
  await using t = await setup()
  const options = { redis: t.redis, lease: 500, timeout: 20_000, cache: false } as const
  await using processes = await LockerProcesses.start(options)
  await using locker = new Locker({ redis: t.redis, cache: false, lease: 500 })
  const child = processes.at(0)
  child.call('run', 'b').catch(() => {})
  await until(async () => (await locker.peek('b')).status === 'locked', { what: 'the other to hold b' })
  const { rounds, work } = noted(1)
  const results = locker.runMany(letters('abc'), work)
  await until(() => rounds.length === 1, { what: 'the first round' })
  await child.kill()
  assert.deepEqual(await results, letters('ABC'))
  assert.deepEqual(rounds, [letters('ac'), letters('b')])
})

withAndWithoutCache(
  'L2 runMany - keys that another process releases are computed in one more call of the work',
  async (world, options) => {
    const [one, other] = [await world.open(options), await world.open(options)]
    const keys = letters('abcdefghijklmnopqrst')
    const held = await Promise.all(keys.map((key) => other.request(key)))
    const { rounds, work } = noted(1)
    const results = one.runMany([...keys, 'z'], work)
    await until(() => one.stats().parks === 20 && rounds.length === 1, { what: 'them to wait' })
    for (const lease of held) if (lease.status === 'locked') void lease.release()
    assert.deepEqual(
      await results,
      [...keys, 'z'].map((key) => key.toUpperCase()),
    )
    assert.deepEqual(rounds[0], ['z'])
    assert.ok(rounds.length <= 5, `${rounds.length} rounds`)
  },
)

test('runMany - the tags of all keys are read at once', async () => {
  await using world = await lockersIn('redis')
  const locker = await world.open({ cache: false })
  const keys = Array.from({ length: 64 }, (_, index) => `k${index}`)
  await locker.runMany(['warm'], (some) => some, { tags: ['T'] })
  const server = world.t?.server
  assert.ok(server, 'a server')
  await using monitor = await server.monitor()
  await locker.runMany(keys, (some) => some, { tags: ['T'] })
  const lines = await monitor.lines()
  // The tag is read with the first reads, and in each of the 4 scripts that claim 64 keys; 64 scripts settle them.
  const scripts = lines.filter(({ command }) => command.startsWith('eval')).length
  assert.ok(scripts <= 1 + 2 * 4 + 64, `${scripts} scripts`)
})

test('runMany - keys on different nodes of a cluster', async () => {
  await using cluster = await RedisCluster.start({ masters: 3 })
  await using one = new Locker({ redis: await cluster.client() })
  await using other = new Locker({ redis: await cluster.client(), cache: false })
  const keys = Array.from({ length: 30 }, (_, index) => `k${index}`)
  const { rounds, work } = noted()
  const [first, second] = await Promise.all([one, other].map((locker) => locker.runMany(keys, work)))
  assert.deepEqual(first, second)
  assert.equal(rounds.flat().length, 30)
  assert.deepEqual(await other.runMany(keys, work), first)
  assert.deepEqual(await other.runMany(keys, work), first)
})

test('runMany - invalid arguments are refused', async () => {
  await using world = await lockersIn('memory')
  const locker = await world.open()
  await assert.rejects(
    locker.runMany('ab' as unknown as string[], () => []),
    TypeError,
  )
  await assert.rejects(
    locker.runMany(['a', ''], () => []),
    TypeError,
  )
  await assert.rejects(locker.runMany(['a'], undefined as never), TypeError)
  await assert.rejects(
    locker.runMany(['a'], () => [], { ttl: -1 }),
    TypeError,
  )
  const abort = new AbortController()
  abort.abort()
  await assert.rejects(
    locker.runMany(['a'], () => [1], { signal: abort.signal }),
    AbortedError,
  )
})

withAndWithoutCache(
  'runMany - stale results are served at once, and refreshed in one call of the work',
  async (world, options) => {
    const locker = await world.open(options)
    const { rounds, work } = noted(1)
    const swr = { ttl: 30, staleWhileRevalidate: 60_000 }
    const keys = letters('abcdefghij')
    await locker.runMany(keys, work, swr)
    await until(async () => (await locker.peek('j')).status !== 'done', { what: 'the results to expire' })
    const since = performance.now()
    const slow = async (some: string[]) => {
      await sleep(200)
      return work(some)
    }
    assert.equal((await locker.runMany(keys, slow, swr)).length, 10)
    assert.ok(performance.now() - since < 190, 'no caller waited')
    await until(() => rounds.length > 1, { what: 'the refresh' })
    assert.deepEqual(rounds[1]?.sort(), keys)
  },
)

test('L1 runMany - timeout and signal apply during the first read, too', async () => {
  await using world = await lockersIn('redis')
  const locker = await world.open({ cache: false })
  const keys = letters('abcdef')
  const work = (some: string[]) => some
  for (let round = 0; round < 3; round++) await locker.runMany(keys, work)
  const server = world.t?.server
  assert.ok(server, 'a server')
  await server.freeze()
  const took = async (promise: Promise<unknown>) => {
    const since = performance.now()
    await assert.rejects(promise, (error: Error) =>
      /E_(TIMEOUT|ABORTED)/.test(String((error as { code?: string }).code)),
    )
    return performance.now() - since
  }
  const leaves = new AbortController()
  setTimeout(() => leaves.abort(), 100)
  const [late, left] = await Promise.all([
    took(locker.runMany(keys, work, { timeout: 150 })),
    took(locker.runMany(keys, work, { signal: leaves.signal })),
  ])
  await server.thaw()
  assert.ok(late < 900 && left < 900, `${late} and ${left} ms`)
})
