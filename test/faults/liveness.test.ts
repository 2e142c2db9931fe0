import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { Connection, Locker } from '../../src/index.ts'
import { cutOff, LONG, onCommands, type Scene, scene, settledBy } from '../support/locker-scene.ts'
import { EPSILON, leaseOf, parked } from '../support/lockers.ts'
import { setup } from '../support/setup.ts'
import { took, until } from '../support/wait.ts'

describe('Redis is away', () => {
  const LEASE = 500
  const UNAVAILABLE_AFTER = 600
  /** Shorter and longer than it takes to detect that Redis is away; the last never ends within the test. */
  const TIMEOUTS = [200, 1200, Number.POSITIVE_INFINITY]

  const faults: Record<string, (s: Scene) => unknown> = {
    frozen: ({ t }) => t.server.freeze(),
    killed: ({ t }) => t.server.kill(),
    'black-holed': ({ t }) => t.proxy.blackhole(true),
    'black-holed for commands only': ({ t }) => t.proxy.blackhole(true, onCommands),
    refused: async ({ t }) => {
      await t.proxy.refuse(true)
      t.proxy.cut()
    },
  }

  for (const [name, strike] of Object.entries(faults)) {
    test(`L1 ${name} - every waiter is settled once, by its deadline`, {
      timeout: 30_000,
    }, async () => {
      await using s = await scene({ lease: LEASE, unavailableAfter: UNAVAILABLE_AFTER })
      const held = await leaseOf(s.other, 'held')
      held.signal.addEventListener('abort', () => {})
      const wait = (key: string, timeout: number) =>
        settledBy(s.locker.run(key, () => new Promise(() => {}), { timeout })).then((end) => ({
          ...end,
          timeout,
          key,
        }))
      // One key is held by another process, one by a work of this process that never ends.
      const waiting = TIMEOUTS.flatMap((timeout) => [wait('held', timeout), wait('own', timeout)])
      await parked(s.other, 'held')
      await until(() => s.locker.stats().held === 1, { what: 'the local work to run' })
      await strike(s)
      waiting.push(...TIMEOUTS.map((timeout) => wait('fresh', timeout)))
      // The claim that is sent when the lease has ended fails in time.
      const bound = LEASE + 2 * UNAVAILABLE_AFTER
      for (const { outcome, ms, timeout, key } of await Promise.all(waiting)) {
        const what = `${key} with ${timeout}: ${outcome} after ${ms} ms`
        assert.ok(['E_TIMEOUT', 'E_UNAVAILABLE'].includes(outcome), what)
        assert.ok(ms < Math.min(timeout, bound) + EPSILON, what)
        if (timeout < UNAVAILABLE_AFTER) assert.equal(outcome, 'E_TIMEOUT', what)
        if (timeout > bound) assert.equal(outcome, 'E_UNAVAILABLE', what)
      }
      assert.equal(s.locker.stats().waiters, 0)
      if (name === 'frozen') s.t.server.thaw()
      if (name === 'killed') await s.t.server.restart()
    })
  }

  test('L1 signal - a waiter leaves at its signal although Redis is silent', async () => {
    await using s = await scene()
    await s.t.server.freeze()
    const signal = AbortSignal.timeout(100)
    const { outcome, ms } = await settledBy(s.locker.run('k', () => 'v', { signal }))
    assert.equal(outcome, 'E_ABORTED')
    assert.ok(ms < 100 + EPSILON)
    s.t.server.thaw()
  })

  test('L1 close - while Redis is silent: waiters are rejected, and close resolves', async () => {
    await using s = await scene({ unavailableAfter: UNAVAILABLE_AFTER })
    const running = settledBy(s.locker.run('own', () => new Promise(() => {})))
    await until(() => s.locker.stats().held === 1, { what: 'the local work to run' })
    await s.t.server.freeze()
    const fresh = settledBy(s.locker.run('fresh', () => 'v'))
    assert.ok((await took(() => s.locker.close({ grace: 0 }))) < 2 * UNAVAILABLE_AFTER + EPSILON)
    for (const { outcome } of await Promise.all([running, fresh])) assert.equal(outcome, 'E_CLOSED')
    s.t.server.thaw()
  })

  test('L1 close - does not wait for leases of another locker on the same connection', async () => {
    await using t = await setup()
    await using connection = new Connection(t.redis)
    await using holder = new Locker({ redis: connection })
    const locker = new Locker({ redis: connection })
    const lease = await leaseOf(holder)
    const closed = settledBy(locker.close({ grace: 0 }))
    const { ms } = await Promise.race([
      closed,
      settledBy(new Promise((resolve) => setTimeout(resolve, 4 * EPSILON))),
    ])
    await lease.publish('v')
    await closed
    assert.ok(ms < EPSILON, `it took ${ms} ms`)
  })

  test('L1 close - while a publish fails: the lease is discarded', async () => {
    await using s = await scene({ unavailableAfter: UNAVAILABLE_AFTER })
    const lease = await leaseOf(s.locker)
    await cutOff(s)
    const published = settledBy(lease.publish('v'))
    const closed = settledBy(s.locker.close({ grace: 0 }))
    assert.equal((await published).outcome, 'E_UNAVAILABLE')
    await s.t.proxy.refuse(false)
    const { ms } = await Promise.race([
      closed,
      settledBy(new Promise((resolve) => setTimeout(resolve, 8 * EPSILON))),
    ])
    if (!lease.signal.aborted) await lease.release()
    // Attempts to connect are at most a second apart.
    assert.ok(ms < 1000 + 2 * UNAVAILABLE_AFTER + EPSILON, `it took ${ms} ms`)
  })
})

describe('a grant without a waiter', () => {
  /** Slows the claim of `locker` down, or its reply. A refresh claims without reading first. */
  async function claimingScene(
    direction: 'up' | 'down',
    ms: number,
    unavailableAfter = 5000,
  ): Promise<Scene> {
    const s = await scene({ unavailableAfter })
    s.t.proxy.delay(ms, { direction, only: onCommands })
    return s
  }

  const free = (s: Scene) => async () => (await s.other.peek('k')).status === 'free'
  const locked = (s: Scene) => async () => (await s.other.peek('k')).status === 'locked'

  for (const direction of ['up', 'down'] as const) {
    test(`L4 abort - while the claim is under way (${direction}): the grant is released`, async () => {
      await using s = await claimingScene(direction, 150)
      const leaves = new AbortController()
      const asked = s.locker.run('k', () => assert.fail('the work ran without a caller'), {
        signal: leaves.signal,
        refresh: true,
      })
      const left = assert.rejects(asked, { code: 'E_ABORTED' })
      leaves.abort()
      await left
      await until(locked(s), { what: 'the grant' })
      await until(free(s), { what: 'the release' })
      assert.equal(s.locker.stats().works, 0)
    })
  }

  test('L4 abort - in the same tick as the call', async () => {
    await using s = await scene()
    const leaves = new AbortController()
    const left = settledBy(s.locker.run('k', () => 'v', { signal: leaves.signal }))
    leaves.abort()
    assert.equal((await left).outcome, 'E_ABORTED')
    await until(free(s), { what: 'the key to be free' })
  })

  test('L4 abort - while the value is read: nothing is claimed', async () => {
    await using s = await claimingScene('down', 150)
    const leaves = new AbortController()
    const left = settledBy(s.locker.run('k', () => 'v', { signal: leaves.signal }))
    await until(
      async () => (await s.t.server.call('INFO', 'commandstats'))?.toString().includes('cmdstat_hget:'),
      {
        what: 'the read',
      },
    )
    leaves.abort()
    assert.equal((await left).outcome, 'E_ABORTED')
    await s.locker.close()
    assert.equal(s.locker.stats().grants, 0)
    assert.equal(await s.t.server.call('EXISTS', 'soloflight:1:k/k'), 0)
  })

  test('L4 timeout - while the claim is under way', async () => {
    await using s = await claimingScene('down', 300)
    const asked = s.locker.run('k', () => assert.fail('the work ran without a caller'), {
      timeout: 50,
      refresh: true,
    })
    await assert.rejects(asked, { code: 'E_TIMEOUT' })
    await until(locked(s), { what: 'the grant' })
    await until(free(s), { what: 'the release' })
  })

  test('L4 late - a reply that arrives after the call has failed', async () => {
    await using s = await claimingScene('down', 600, 200)
    await assert.rejects(
      s.locker.run('k', () => 'v', { refresh: true }),
      { code: 'E_UNAVAILABLE' },
    )
    await until(locked(s), { what: 'the grant' })
    const next = s.other.run('k', () => 'next')
    assert.ok((await took(async () => assert.equal(await next, 'next'))) < 2 * 600 + EPSILON)
  })

  test('L4 frozen - claims that a frozen Redis grants after the thaw are released', async () => {
    await using s = await scene({ unavailableAfter: 200 })
    await s.t.server.freeze()
    const keys = Array.from({ length: 100 }, (_, index) => `k.${index}`)
    const asked = keys.map((key) => settledBy(s.locker.request(key)))
    for (const { outcome } of await Promise.all(asked)) assert.equal(outcome, 'E_UNAVAILABLE')
    s.t.server.thaw()
    const results = Promise.all(keys.map((key) => s.other.run(key, () => key)))
    assert.ok((await took(async () => assert.deepEqual(await results, keys))) < 2 * EPSILON)
  })

  test('L4 abort - of the first caller: the grant passes to the next waiter of the process', async () => {
    await using s = await claimingScene('down', 150)
    const leaves = new AbortController()
    const left = assert.rejects(
      s.locker.run('k', () => 'first', { signal: leaves.signal }),
      { code: 'E_ABORTED' },
    )
    const stays = s.locker.run('k', () => 'second')
    leaves.abort()
    await left
    assert.equal(await stays, 'second')
    assert.equal(s.locker.stats().grants, 1)
  })

  test('L4 parked - a release does not notify a waiter that has left', async () => {
    await using s = await scene()
    const lease = await leaseOf(s.other)
    const leaves = new AbortController()
    const left = assert.rejects(s.locker.request('k', { signal: leaves.signal }), { code: 'E_ABORTED' })
    await parked(s.other)
    await using third = new Locker({ redis: s.t.server.options, lease: LONG, cache: false })
    const next = third.run('k', () => 'next')
    await parked(s.other, 'k', 2)
    leaves.abort()
    await Promise.all([left, lease.release()])
    assert.ok((await took(async () => assert.equal(await next, 'next'))) < EPSILON)
  })

  test('L4 publish - a publish that failed does not keep the lease: others take over', async () => {
    await using s = await scene({ unavailableAfter: 300 })
    let end = (_value: string) => {}
    const result = settledBy(s.locker.run('k', () => new Promise((resolve) => (end = resolve))))
    await until(() => s.locker.stats().held === 1, { what: 'the work to run' })
    await cutOff(s)
    end('v')
    assert.equal((await result).outcome, 'E_UNAVAILABLE')
    await s.t.proxy.refuse(false)
    await until(() => s.locker.stats().held === 0, { what: 'the lease to be discarded' })
  })
})
