import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Locker, OverloadedError, UnavailableError } from '../../src/index.ts'
import { lockersIn, withAndWithoutCache } from '../support/lockers.ts'
import { until } from '../support/wait.ts'

withAndWithoutCache(
  'memoize - memoized functions of different versions do not share results',
  async (world, options) => {
    const [one, other] = [await world.open(options), await world.open(options)]
    const calls: string[] = []
    const shaped = (version: number | string | undefined) => (id: string) => {
      calls.push(`${version} ${id}`)
      return { version, id }
    }
    const key = (id: string) => `item:${id}`
    const old = one.memoize(shaped(1), { key, version: 1 })
    const renewed = other.memoize(shaped(2), { key, version: 2 })
    const plain = other.memoize(shaped(undefined), { key })
    for (let round = 0; round < 2; round++) {
      assert.deepEqual(await old('a'), { version: 1, id: 'a' })
      assert.deepEqual(await renewed('a'), { version: 2, id: 'a' })
      assert.deepEqual(await plain('a'), { version: undefined, id: 'a' })
    }
    assert.deepEqual(calls, ['1 a', '2 a', 'undefined a'])
    await renewed.invalidate('a')
    await Promise.all([old('a'), renewed('a'), plain('a')])
    assert.deepEqual(calls.slice(3), ['2 a'])
  },
)

withAndWithoutCache('memoize - hostile keys and versions do not collide', async (world, options) => {
  const one = await world.open(options)
  const pairs = [
    ['1', '2:x'],
    ['12', ':x'],
    ['1\0', 'x'],
    ['1', '\0x'],
    ['v', 'k'],
  ] as const
  for (const [version, key] of pairs) {
    const cached = one.memoize(() => `${version}|${key}`, { key: () => key, version })
    assert.equal(await cached(), `${version}|${key}`)
  }
  for (const [version, key] of pairs) {
    const again = one.memoize(() => 'computed again', { key: () => key, version })
    assert.equal(await again(), `${version}|${key}`)
    for (const name of [key, `\0v${version.length}:${version}${key}`, `${version.length}:${version}${key}`])
      assert.equal(await one.run(name, () => name), name)
  }
})

withAndWithoutCache('memoize - invalidate, refresh and tags by arguments', async (world, options) => {
  const [one, other] = [await world.open(options), await world.open(options)]
  let count = 0
  const cached = one.memoize((_user: string, _page: number) => ++count, {
    key: (user, page) => `${user}:${page}`,
    tags: (user) => [`user:${user}`],
  })
  assert.deepEqual([await cached('a', 1), await cached('a', 2), await cached('b', 1)], [1, 2, 3])
  await other.invalidateTags('user:a')
  const followed = async () => (await cached('a', 1)) > 3
  await until(followed, { what: 'the invalidation in the other process' })
  assert.equal(await cached('b', 1), 3)
  await cached.invalidate('b', 1)
  const after = await cached('b', 1)
  assert.ok(after > 3, `computed anew: ${after}`)
  assert.equal(await cached.refresh('b', 1), after + 1)
  assert.equal(await cached('b', 1), after + 1)
})

test('memoize - wrong options are rejected', async () => {
  await using world = await lockersIn('memory')
  const locker = await world.open()
  const key = () => 'k'
  for (const wrong of [
    { version: '' },
    { version: {} },
    { version: Number.NaN },
    { tags: 'a' },
    { ttl: '1' },
  ]) {
    assert.throws(() => locker.memoize(() => 1, { key, ...(wrong as object) }), TypeError)
  }
  assert.throws(() => locker.memoize(() => 1, {} as never), TypeError)
})

test('maxUnshared - while Redis is away, no more than maxUnshared works run', async () => {
  await using world = await lockersIn('redis')
  const locker = await world.open({ unavailableAfter: 300, onUnavailable: 'local', maxUnshared: 2 })
  await world.t?.server.kill()
  const ends: (() => void)[] = []
  const work = () => new Promise<number>((resolve) => ends.push(() => resolve(1)))
  const asked = ['a', 'b', 'c', 'd'].map((key) => locker.run(key, work))
  const settled = Promise.allSettled(asked)
  await until(() => ends.length === 2, { what: 'two works' })
  await assert.rejects(Promise.any(asked.slice(2)), AggregateError)
  for (const end of ends) end()
  const refused = (await settled).filter(({ status }) => status === 'rejected') as PromiseRejectedResult[]
  assert.deepEqual(
    refused.map(({ reason }) => reason instanceof OverloadedError),
    [true, true],
  )
  await assert.rejects(locker.run('e', work, { onUnavailable: 'fail' }), UnavailableError)
})

test('memoize - a key that is not a string is rejected by every method', async () => {
  await using locker = new Locker()
  for (const version of [undefined, 2]) {
    const named = locker.memoize((id: unknown) => `${id}`, { key: (id) => id as string, version })
    for (const id of [undefined, 42, '', null]) {
      for (const call of [named, named.invalidate, named.refresh]) await assert.rejects(call(id), TypeError)
    }
  }
})
