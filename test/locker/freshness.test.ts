import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import pDefer from 'p-defer'
import { type Locker, RemoteError } from '../../src/index.ts'
import { expired, lockersIn, withAndWithoutCache } from '../support/lockers.ts'
import { soon, until } from '../support/wait.ts'

/** A work that the test ends, and that counts its runs. */
function counted() {
  let runs = 0
  let gate = pDefer<void>()
  gate.resolve()
  return {
    get runs() {
      return runs
    },
    hold() {
      gate = pDefer<void>()
    },
    end: () => gate.resolve(),
    fail: () => gate.reject(new Error('broken')),
    work: async () => {
      const run = ++runs
      await gate.promise
      return `value ${run}`
    },
  }
}

const SWR = { ttl: 60, staleWhileRevalidate: 60_000 }
const SIE = { ttl: 60, staleIfError: 60_000 }

/** Two lockers that have seen a result which is expired now. */
async function stale(
  one: Locker,
  other: Locker,
  c: ReturnType<typeof counted>,
  options: object,
): Promise<void> {
  await one.run('k', c.work, options)
  await other.run('k', c.work, options)
  assert.equal(c.runs, 1)
  await expired(one, 'k')
}

describe('staleWhileRevalidate', () => {
  withAndWithoutCache(
    'freshness - one processor refreshes while all callers are served the stale value',
    async (world, options) => {
      const [one, other] = [await world.open(options), await world.open(options)]
      const c = counted()
      await stale(one, other, c, SWR)
      c.hold()
      for (let round = 0; round < 3; round++) {
        const asked = [one, other, one, other].map((locker) => locker.run('k', c.work, SWR))
        assert.deepEqual(await Promise.all(asked), Array(4).fill('value 1'))
      }
      await until(() => c.runs === 2, { what: 'the refresh' })
      assert.equal(await soon(other.run('k', c.work, SWR)), 'value 1')
      assert.ok(one.stats().stale + other.stats().stale >= 13, 'stale results are counted')
      c.end()
      const renewed = async () => (await one.peek('k')).status === 'done'
      await until(renewed, { what: 'the new result' })
      assert.deepEqual(await Promise.all([one, other].map((locker) => locker.run('k', c.work))), [
        'value 2',
        'value 2',
      ])
      assert.equal(c.runs, 2)
    },
  )

  withAndWithoutCache('freshness - a refresh that fails keeps the stale value', async (world, options) => {
    const [one, other] = [await world.open(options), await world.open(options)]
    const c = counted()
    await stale(one, other, c, SWR)
    const broken = () => Promise.reject(new Error('broken'))
    for (let round = 0; round < 5; round++) {
      for (const locker of [one, other]) assert.equal(await locker.run('k', broken, SWR), 'value 1')
    }
    // A caller without options waits for the running refresh, and would receive its failure.
    await until(() => one.stats().flights + other.stats().flights === 0, { what: 'the refreshes to end' })
    await assert.rejects(one.run('k', broken, { ttl: 60 }), RemoteError)
    assert.equal(await one.run('k', c.work, { ttl: 60_000 }), 'value 2')
  })

  withAndWithoutCache(
    'freshness - a caller that accepts no stale value waits for the new one',
    async (world, options) => {
      const [one, other] = [await world.open(options), await world.open(options)]
      const c = counted()
      await stale(one, other, c, SWR)
      c.hold()
      assert.equal(await one.run('k', c.work, SWR), 'value 1')
      await until(() => c.runs === 2, { what: 'the refresh' })
      const strict = [one, other].map((locker) => locker.run('k', c.work, { ttl: 60_000 }))
      const refresh = one.run('k', c.work, { ...SWR, refresh: true })
      assert.equal(await soon(Promise.race([...strict, refresh]), 100), 'pending')
      c.end()
      assert.deepEqual(await Promise.all(strict), ['value 2', 'value 2'])
      assert.equal(await refresh, 'value 3')
    },
  )

  withAndWithoutCache(
    'freshness - a value that has been stale for longer is not served',
    async (world, options) => {
      const locker = await world.open(options)
      const c = counted()
      const short = { ttl: 30, staleWhileRevalidate: 30 }
      await locker.run('k', c.work, short)
      const gone = async () => (await locker.peek('k')).value === undefined
      await until(gone, { what: 'the stale value to expire', every: 5 })
      assert.equal(await locker.run('k', c.work, short), 'value 2')
    },
  )

  withAndWithoutCache(
    'S4 freshness - an invalidated value is not served, stale or fresh',
    async (world, options) => {
      const [one, other] = [await world.open(options), await world.open(options)]
      const c = counted()
      await stale(one, other, c, SWR)
      await other.invalidate('k')
      assert.equal(await other.run('k', c.work, SWR), 'value 2')
      const followed = async () => (await one.run('k', c.work, SWR)) === 'value 2'
      await until(followed, { what: 'the other cache to be updated' })
      assert.equal(c.runs, 2)
    },
  )

  test('freshness - a stale value in several caches is refreshed once and pushed to all of them', async () => {
    await using world = await lockersIn('redis')
    const lockers = [await world.open(), await world.open(), await world.open()]
    const c = counted()
    await Promise.all(lockers.map((locker) => locker.run('k', c.work, SWR)))
    const sum = (name: 'parks' | 'grants') => lockers.reduce((all, locker) => all + locker.stats()[name], 0)
    const before = { parks: sum('parks'), grants: sum('grants') }
    await expired(lockers[0] as Locker, 'k')
    c.hold()
    const serve = async () => {
      const served = await Promise.all(lockers.map((locker) => locker.run('k', c.work, SWR)))
      assert.deepEqual(served, Array(3).fill('value 1'))
      return sum('parks') === before.parks + 2
    }
    await until(serve, { what: 'the others to wait for the refresh' })
    for (let round = 0; round < 20; round++) await serve()
    assert.deepEqual([sum('parks'), sum('grants')], [before.parks + 2, before.grants + 1])
    c.end()
    const fresh = () => Promise.all(lockers.map((locker) => locker.run('k', c.work, SWR)))
    await until(async () => (await fresh()).every((value) => value === 'value 2'), { what: 'the new value' })
    assert.equal(c.runs, 2)
  })
})

describe('staleIfError', () => {
  withAndWithoutCache(
    'freshness - every caller receives the stale value instead of the failure',
    async (world, options) => {
      const [one, other] = [await world.open(options), await world.open(options)]
      const c = counted()
      await stale(one, other, c, SIE)
      c.hold()
      const asked = [one, other, one].map((locker) => locker.run('k', c.work, SIE))
      const without = other.run('k', c.work, { ttl: 60 })
      assert.equal(await soon(Promise.race([...asked, without.catch(() => 0)]), 100), 'pending')
      c.fail()
      assert.deepEqual(await Promise.all(asked), Array(3).fill('value 1'))
      await assert.rejects(without, RemoteError)
    },
  )

  withAndWithoutCache('freshness - also while a failure is kept', async (world, options) => {
    const [one, other] = [await world.open(options), await world.open(options)]
    const c = counted()
    await stale(one, other, c, SIE)
    const broken = () => Promise.reject(new Error('broken'))
    assert.equal(await one.run('k', broken, { ...SIE, errorTtl: 60_000 }), 'value 1')
    assert.equal(await other.run('k', c.work, SIE), 'value 1')
    await assert.rejects(other.run('k', c.work), RemoteError)
    assert.equal(c.runs, 1)
  })
})

describe('softTimeout', () => {
  withAndWithoutCache(
    'freshness - after softTimeout a waiter receives the stale value, and the work goes on',
    async (world, options) => {
      const [one, other] = [await world.open(options), await world.open(options)]
      const c = counted()
      await stale(one, other, c, SIE)
      c.hold()
      const since = performance.now()
      const soft = [one, other].map((locker) => locker.run('k', c.work, { ...SIE, softTimeout: 80 }))
      assert.deepEqual(await Promise.all(soft), ['value 1', 'value 1'])
      assert.ok(performance.now() - since >= 79, 'they have waited')
      c.end()
      await until(async () => (await one.peek('k')).status === 'done', { what: 'the result of the work' })
      assert.equal(await other.run('k', c.work), 'value 2')
    },
  )

  withAndWithoutCache(
    'freshness - without a stale value, softTimeout has no effect',
    async (world, options) => {
      const one = await world.open(options)
      const c = counted()
      c.hold()
      const asked = one.run('k', c.work, { ...SIE, softTimeout: 20 })
      assert.equal(await soon(asked, 120), 'pending')
      c.end()
      assert.equal(await asked, 'value 1')
    },
  )
})

describe('decisions of the work', () => {
  withAndWithoutCache('freshness - setTtl', async (world, options) => {
    const locker = await world.open(options)
    await locker.run('k', ({ setTtl }) => setTtl(200))
    const { value } = await locker.peek('k')
    assert.ok(value && value.ttlLeft > 0 && value.ttlLeft <= 200, `kept for ${value?.ttlLeft} ms`)
    await assert.rejects(
      locker.run('bad', ({ setTtl }) => setTtl(-1)),
      RemoteError,
    )
  })

  withAndWithoutCache(
    'freshness - noStore: waiters receive the result, and later callers bypass the lock',
    async (world, options) => {
      const [one, other] = [await world.open(options), await world.open(options)]
      const c = counted()
      c.hold()
      const asked = [one, other, one].map((locker) =>
        locker.run('k', ({ noStore }) => {
          noStore()
          return c.work()
        }),
      )
      await until(() => c.runs === 1 && one.stats().parks + other.stats().parks === 1, {
        what: 'the others to wait',
      })
      c.end()
      assert.deepEqual(await Promise.all(asked), Array(3).fill('value 1'))
      assert.notEqual((await one.peek('k')).status, 'done')
      c.hold()
      const beside = [one, other, one, other].map((locker) =>
        locker.run('k', ({ noStore, shared, fence }) => {
          noStore()
          assert.deepEqual([shared, fence], [false, 0])
          return c.work()
        }),
      )
      await until(() => c.runs === 5, { what: 'all works at once' })
      c.end()
      assert.equal(new Set(await Promise.all(beside)).size, 4)
    },
  )

  withAndWithoutCache('freshness - noStore: an earlier result stays', async (world, options) => {
    const one = await world.open(options)
    const c = counted()
    await one.run('k', c.work, SWR)
    await one.run('k', ({ noStore }) => noStore({ bypassFor: 0 }), { refresh: true })
    assert.equal(await one.run('k', c.work, SWR), 'value 1')
    assert.equal(c.runs, 1)
  })

  withAndWithoutCache(
    'freshness - noStore: the first result that is kept ends the bypass',
    async (world, options) => {
      const [one, other] = [await world.open(options), await world.open(options)]
      const c = counted()
      await one.run('k', ({ noStore }) => noStore())
      assert.equal(await one.run('k', c.work), 'value 1')
      await until(async () => (await one.peek('k')).status === 'done', { what: 'the kept result' })
      assert.equal(await other.run('k', c.work), 'value 1')
      assert.equal(c.runs, 1)
    },
  )

  withAndWithoutCache(
    'S4 freshness - noStore: a result of a work that started before an invalidation is not kept after it',
    async (world, options) => {
      const [one, other] = [await world.open(options), await world.open(options)]
      const c = counted()
      await one.run('k', ({ noStore }) => noStore())
      c.hold()
      const beside = one.run('k', c.work)
      await until(() => c.runs === 1, { what: 'the work' })
      await other.invalidate('k')
      c.end()
      assert.equal(await beside, 'value 1')
      assert.equal(await other.run('k', c.work), 'value 2')
      assert.equal(await one.run('k', c.work), 'value 2')
    },
  )

  withAndWithoutCache('freshness - noStore: request still grants the lease', async (world, options) => {
    const [one, other] = [await world.open(options), await world.open(options)]
    await one.run('k', ({ noStore }) => noStore())
    const ticket = await other.request('k')
    assert.equal(ticket.status, 'locked')
    const waiting = one.run('k', () => 'own')
    if (ticket.status === 'locked') await ticket.publish('published')
    assert.equal(await waiting, 'published')
  })
})

describe('callers with different options', () => {
  withAndWithoutCache(
    'freshness - each caller is served by its own options, whichever came first',
    async (world, options) => {
      const [one, other] = [await world.open(options), await world.open(options)]
      const c = counted()
      await stale(one, other, c, SIE)
      c.hold()
      // The first caller of the process accepts no stale value; callers that join it do.
      const asked = [one, other].map((locker) => ({
        // A waiter in another process may be notified first.
        plain: assert.rejects(locker.run('k', c.work, { ttl: 60 }), RemoteError),
        soft: locker.run('k', c.work, { ...SIE, softTimeout: 50 }),
        patient: locker.run('k', c.work, SIE),
      }))
      for (const { soft } of asked) assert.equal(await soft, 'value 1')
      c.fail()
      for (const { plain, patient } of asked) {
        assert.equal(await patient, 'value 1')
        await plain
      }
    },
  )

  withAndWithoutCache('freshness - a background refresh makes no caller wait', async (world, options) => {
    const one = await world.open(options)
    const c = counted()
    const brief = { ttl: 30, staleWhileRevalidate: 60, staleIfError: 60_000, softTimeout: 50 }
    await one.run('k', c.work, brief)
    await expired(one, 'k')
    c.hold()
    assert.equal(await one.run('k', c.work, brief), 'value 1')
    await until(() => c.runs === 2, { what: 'the refresh' })
    // Stale for longer than staleWhileRevalidate: now softTimeout and staleIfError decide.
    await new Promise((resolve) => setTimeout(resolve, 80))
    assert.equal(await one.run('k', c.work, brief), 'value 1')
    const patient = one.run('k', c.work, { ...brief, softTimeout: Number.POSITIVE_INFINITY })
    c.fail()
    assert.equal(await patient, 'value 1')
  })

  withAndWithoutCache(
    'freshness - a kept failure does not end the serving of the stale value',
    async (world, options) => {
      const [one, other] = [await world.open(options), await world.open(options)]
      const c = counted()
      await stale(one, other, c, SWR)
      const broken = () => Promise.reject(new Error('broken'))
      for (let round = 0; round < 3; round++) {
        for (const locker of [one, other])
          assert.equal(await locker.run('k', broken, { ...SWR, errorTtl: 60_000 }), 'value 1')
      }
    },
  )

  withAndWithoutCache(
    'freshness - during a bypass, a failing work falls back to the stale value',
    async (world, options) => {
      const one = await world.open(options)
      const c = counted()
      await one.run('k', c.work, SIE)
      await expired(one, 'k')
      await one.run('k', ({ noStore }) => noStore(), { refresh: true })
      const broken = () => Promise.reject(new Error('broken'))
      assert.equal(await one.run('k', broken, SIE), 'value 1')
      await assert.rejects(one.run('k', broken), RemoteError)
    },
  )

  withAndWithoutCache('freshness - a fractional lease works with all options', async (world, options) => {
    const one = await world.open(options)
    assert.equal(await one.run('k', () => 1, { ...SWR, lease: 1000.5, refresh: true }), 1)
  })
})

test('freshness - a caller that accepts no stale value waits, and does not poll', async () => {
  await using world = await lockersIn('redis')
  const [one, other] = [await world.open({ cache: false }), await world.open({ cache: false })]
  const c = counted()
  await stale(one, other, c, SWR)
  await new Promise((resolve) => setTimeout(resolve, 50))
  c.hold()
  assert.equal(await one.run('k', c.work, SWR), 'value 1')
  await until(() => c.runs === 2, { what: 'the refresh' })
  const served = other.run('k', c.work, SWR)
  const waits = other.run('k', c.work, { ...SWR, staleWhileRevalidate: 20 })
  assert.equal(await served, 'value 1')
  const server = world.t?.server
  assert.ok(server, 'a server')
  await using monitor = await server.monitor()
  assert.equal(await soon(waits, 300), 'pending')
  const lines = await monitor.lines()
  assert.ok(lines.filter(({ command }) => command.startsWith('eval')).length <= 3, 'it waits for a message')
  c.end()
  assert.equal(await waits, 'value 2')
})
