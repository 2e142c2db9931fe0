import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import pDefer from 'p-defer'
import { Lease, Locker } from '../../src/index.ts'
import { jsonCodec } from '../../src/kernel/index.ts'
import { namespaceFor } from '../../src/locker/locker.ts'
import { LockerProcesses, told } from '../support/locker-process.ts'
import { cutOff, LONG, onCommands, scene, settledBy } from '../support/locker-scene.ts'
import { EPSILON, leaseOf, parked } from '../support/lockers.ts'
import { setup } from '../support/setup.ts'
import { took, until } from '../support/wait.ts'

const LEASE = 600

describe('the server loses state', () => {
  test('SCRIPT FLUSH - at any time: no call is affected', async () => {
    await using s = await scene({ lease: 300, ttl: 20 })
    let going = true
    const flushing = (async () => {
      while (going) await s.t.server.call('SCRIPT', 'FLUSH')
    })()
    const keys = Array.from({ length: 200 }, (_, index) => `k.${index}`)
    for (const locker of [s.locker, s.other]) {
      const results = await Promise.all(keys.map((key) => locker.run(key, () => key)))
      assert.deepEqual(results, keys)
    }
    const lease = await leaseOf(s.locker)
    const next = leaseOf(s.other)
    await parked(s.other)
    await sleep(2 * 300)
    assert.equal(lease.signal.aborted, false)
    await lease.release()
    await (await next).publish('v')
    await s.locker.invalidate('k')
    assert.equal(await s.locker.run('k', () => 'new'), 'new')
    going = false
    await flushing
  })

  for (const [name, forget] of [
    ['FLUSHALL', (s) => s.t.server.call('FLUSHALL')],
    ['restart', (s) => s.t.server.restart()],
  ] as [string, (s: Awaited<ReturnType<typeof scene>>) => Promise<unknown>][]) {
    test(`S2 ${name} - during a flight: the holder loses the lease, one waiter takes over within a lease, for all`, async () => {
      await using s = await scene({ lease: LEASE })
      const old = await leaseOf(s.other)
      const fences: number[] = []
      const works = [s.locker, s.other].map((locker) =>
        locker.run('k', ({ fence }) => {
          fences.push(fence)
          return `new ${fence}`
        }),
      )
      await parked(s.other)
      await forget(s)
      const ms = await took(async () => {
        const [one, other] = await Promise.all(works)
        assert.equal(one, other)
      })
      // The restart and the reconnection take some time.
      assert.ok(ms < LEASE + 3 * EPSILON, `it took ${ms} ms`)
      assert.equal(fences.length, 1)
      assert.ok((fences[0] ?? 0) > old.fence, 'S1')
      await until(() => old.signal.aborted, { what: 'the signal' })
      await assert.rejects(old.publish('old'), { code: 'E_LEASE_LOST' })
    })
  }

  test('L1 restart - with persistence, during a flight: the holder goes on, and the waiters receive its result', async () => {
    await using t = await setup({ persistence: true })
    const common = { redis: t.redis, lease: 3000, cache: false } as const
    await using holder = new Locker(common)
    await using waiter = new Locker(common)
    const lease = await leaseOf(holder)
    const result = waiter.run('k', () => 'anew')
    await parked(holder)
    await t.server.restart()
    let left = Number.POSITIVE_INFINITY
    const renewed = async () => {
      const before = left
      left = (await holder.peek('k')).lock?.leaseLeft ?? 0
      return left > before
    }
    await until(renewed, { what: 'the next renewal' })
    assert.equal(lease.signal.aborted, false)
    await lease.publish('v')
    assert.ok((await took(async () => assert.equal(await result, 'v'))) < 1000 + EPSILON)
    assert.equal(waiter.stats().works, 0)
    await t.server.restart()
    assert.equal(await waiter.run('k', () => 'anew'), 'v')
  })
})

describe('the server is frozen', () => {
  test('L1 frozen - for longer than a lease: at most one takeover, and all callers receive the same result', async () => {
    await using t = await setup()
    const options = { redis: t.redis, lease: LEASE, cache: false, unavailableAfter: 5000 } as const
    await using processes = await LockerProcesses.start(options, options, options)
    const results = processes.all.map((child) => child.call('run', 'k', { ms: 200 }))
    await Promise.race(processes.all.map((child) => told(child, 'grant')))
    await t.server.freeze()
    await sleep(2 * LEASE)
    t.server.thaw()
    const values = await Promise.all(results)
    assert.equal(new Set(values).size, 1)
    const histories = await Promise.all(processes.all.map((child) => child.call('history')))
    const entries = histories.flat()
    const fences = entries.filter(({ what }) => what === 'grant').map(({ fence }) => fence)
    assert.equal(new Set(fences).size, fences.length, 'S1')
    assert.ok(fences.length <= 2, `${fences.length} grants`)
    assert.equal(entries.filter(({ what }) => what === 'accepted').length, 1)
  })

  test('S5 frozen - the signal aborts although no waiter can take over yet; then one does, and the old holder cannot publish', async () => {
    await using s = await scene({ lease: LEASE, unavailableAfter: 5000 })
    const old = await leaseOf(s.locker)
    const next = s.other.request('k')
    await parked(s.other)
    await s.t.server.freeze()
    const frozenAt = performance.now()
    await until(() => old.signal.aborted, { what: 'the signal' })
    assert.ok(performance.now() - frozenAt < LEASE)
    await sleep(LEASE)
    s.t.server.thaw()
    const taken = await next
    assert.ok(taken instanceof Lease && taken.fence > old.fence)
    await assert.rejects(old.publish('old'), { code: 'E_LEASE_LOST' })
    await taken.publish('new')
  })

  test('L1 frozen - for less than unavailableAfter: a call waits, and is served', async () => {
    await using s = await scene({ unavailableAfter: 3000 })
    await s.t.server.freeze()
    const result = settledBy(s.locker.run('k', () => 'v'))
    await sleep(500)
    s.t.server.thaw()
    const { outcome, ms } = await result
    assert.equal(outcome, 'result')
    assert.ok(ms < 500 + EPSILON)
  })
})

describe('without Redis, `onUnavailable: local`', () => {
  const local = { onUnavailable: 'local', unavailableAfter: 300 } as const

  test('local - the work runs once in each process, unshared, and is shared again when Redis is back', async () => {
    await using t = await setup({ proxy: true })
    const options = { redis: t.redis, lease: LONG, cache: false, ...local } as const
    await using processes = await LockerProcesses.start(options, options)
    await t.proxy.refuse(true)
    const results = await Promise.all(
      processes.all.flatMap((child) => [1, 2, 3].map(() => child.call('run', 'k', { ms: 50 }))),
    )
    const expected = processes.all.flatMap(({ pid }) => [1, 2, 3].map(() => `${pid}/0`))
    assert.deepEqual(results, expected)
    const ticket = await processes.at(0).call('request', 'k')
    assert.deepEqual(ticket, { status: 'locked', fence: 0, shared: false })
    const joined = processes.at(0).call('request', 'k')
    await processes.at(0).call('publish', 0, 'v')
    assert.deepEqual(await joined, { status: 'done', result: 'v' })
    for (const child of processes.all) assert.ok((await child.call('stats')).unshared >= 1)
    await t.proxy.refuse(false)
    const isShared = async () => {
      const values = await Promise.all(processes.all.map((child) => child.call('run', 'again', { ms: 0 })))
      await processes.at(0).call('invalidate', 'again')
      return values[0] === values[1]
    }
    await until(isShared, { what: 'results to be shared again' })
  })

  test('local - a server that thaws: its late grants are released', async () => {
    await using s = await scene(local)
    await s.t.server.freeze()
    assert.equal(await s.locker.run('k', ({ shared }) => shared), false)
    s.t.server.thaw()
    assert.ok(
      (await took(async () => assert.equal(await s.other.run('k', ({ shared }) => shared), true))) <
        2 * EPSILON,
    )
    assert.equal(await s.locker.run('k', () => 'anew'), true)
  })

  test('local - a result that could not be published is for this process alone, and not stale', async () => {
    await using s = await scene({ ...local, staleWhileRevalidate: LONG })
    const entries = namespaceFor<string>(s.locker, 'y', jsonCodec)
    const entry = await entries.run('k', async () => {
      await cutOff(s)
      return 'made'
    })
    const { value, fence, unshared, stale } = entry
    assert.deepEqual(
      { value, fence, unshared, stale },
      { value: 'made', fence: 0, unshared: true, stale: false },
    )
  })

  test('local - an unshared work that fails, and one that is released', async () => {
    await using s = await scene(local)
    await cutOff(s)
    const failed = [1, 2].map(() => s.locker.run('failed', () => Promise.reject(new Error('no paper'))))
    for (const each of failed) await assert.rejects(each, { code: 'E_REMOTE', message: 'no paper' })
    const lease = await leaseOf(s.locker)
    assert.equal(lease.shared, false)
    const next = leaseOf(s.locker)
    await lease.release()
    await (await next).publish('v')
    assert.equal(s.locker.stats().held, 0)
  })

  test('L2 local - a late park behind another process does not consume the hint of a release', async () => {
    await using s = await scene(local)
    await using third = new Locker({ redis: s.t.server.options, lease: LONG, cache: false })
    await third.run('warm', () => true)
    const lease = await leaseOf(s.other)
    s.t.proxy.delay(600, { direction: 'down', only: onCommands })
    const end = pDefer<string>()
    // A refresh claims without reading first.
    const alone = s.locker.run('k', () => end.promise, { refresh: true })
    await parked(s.other)
    const next = third.run('k', () => 'next')
    await parked(s.other, 'k', 2)
    await until(() => s.locker.stats().unshared === 1, { what: 'the work to run unshared' })
    await until(() => s.locker.stats().pendingCommands === 0, { what: 'the late reply' })
    s.t.proxy.delay(0)
    end.resolve('alone')
    assert.equal(await alone, 'alone')
    await lease.release()
    const waited = Promise.race([next, sleep(4 * EPSILON)])
    assert.ok((await took(async () => assert.equal(await waited, 'next'))) < EPSILON)
  })
})
