import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { Connection, Locker, type RunOptions } from '../../src/index.ts'
import { type Clock, systemClock } from '../../src/kernel/time.ts'
import { WorkScheduler } from '../../src/kernel/work-scheduler.ts'
import { lockerScripts } from '../../src/locker/store/redis/scripts/index.ts'
import type { Monitor } from '../support/monitor.ts'
import { setup } from '../support/setup.ts'
import { until } from '../support/wait.ts'

describe('claim burst', () => {
  /** Number of claims that the server has received. */
  async function claimsIn(monitor: Monitor): Promise<number> {
    const lines = await monitor.lines()
    const counts = lines
      .filter(({ args }) => args[0] === lockerScripts.claim.sha1)
      .map(({ args }) => Number(args[1]))
    return counts.reduce((total, count) => total + count, 0)
  }

  const burst = (locker: Locker, count: number, options: RunOptions = {}) =>
    Promise.allSettled(Array.from({ length: count }, (_, n) => locker.run(`key:${n}`, () => 1, options)))

  test('few claims are sent until Redis has answered the first', async () => {
    await using t = await setup({ proxy: true })
    // Short timers never fire, so the slowness of Redis has no effect.
    const after: Clock['after'] = (ms, run, background) =>
      ms < 100 ? { cancel: () => {} } : systemClock.after(ms, run, background)
    await using locker = new Locker({
      redis: t.proxy.options,
      unavailableAfter: 20_000,
      clock: { now: systemClock.now, after },
    })
    await locker.ready()
    await locker.run('warm', () => 0)
    await using monitor = await t.server.monitor()
    t.proxy.delay(3_000, { direction: 'down' })
    // All claims start in one tick, with refresh, so nothing is read first.
    const settled = burst(locker, 200, { refresh: true })
    assert.equal(await until(() => claimsIn(monitor), { what: 'the first claims' }), 16)
    await sleep(200)
    assert.equal(await claimsIn(monitor), 16)
    t.proxy.delay(0)
    assert.ok((await settled).every(({ status }) => status === 'fulfilled'))
  })

  test('all claims are sent when Redis is slow but answers', async () => {
    await using t = await setup({ proxy: true })
    await using locker = new Locker({ redis: t.proxy.options, unavailableAfter: 20_000 })
    await locker.ready()
    await locker.run('warm', () => 0)
    await using monitor = await t.server.monitor()
    t.proxy.delay(300, { direction: 'down' })
    const settled = burst(locker, 200)
    await until(async () => (await claimsIn(monitor)) > 0, { what: 'the first claims' })
    t.proxy.delay(8_000, { direction: 'down' })
    await until(async () => (await claimsIn(monitor)) === 200, { what: 'all claims' })
    t.proxy.delay(0)
    assert.ok((await settled).every(({ status }) => status === 'fulfilled'))
  })

  test('a call with a short unavailableAfter does not wait behind calls with a long one', async () => {
    await using t = await setup({ proxy: true })
    await using connection = new Connection(t.proxy.options)
    await using patient = new Locker({ redis: connection, unavailableAfter: 20_000 })
    await using hasty = new Locker({ redis: connection, unavailableAfter: 300 })
    await hasty.ready()
    t.proxy.stall(true)
    const refresh = { refresh: true }
    const others = burst(patient, 100, refresh)
    const began = performance.now()
    await assert.rejects(
      hasty.run('other', () => 1, refresh),
      { code: 'E_UNAVAILABLE' },
    )
    assert.ok(performance.now() - began < 5_000, `after ${performance.now() - began} ms`)
    t.proxy.stall(false)
    await others
  })

  test('when the client is disconnected, every call of a large burst fails', async () => {
    await using t = await setup()
    const client = await t.client()
    await using locker = new Locker({ redis: client })
    await locker.ready()
    const settled = burst(locker, 50_000, { refresh: true })
    await new Promise((turn) => setImmediate(turn))
    client.disconnect()
    const reasons = (await settled).map((each) => (each.status === 'rejected' ? each.reason.code : undefined))
    assert.deepEqual([...new Set(reasons)], ['E_UNAVAILABLE'])
  })

  test('no more claims are sent while works of the process keep its CPU busy', async () => {
    await using t = await setup({ proxy: true })
    const after: Clock['after'] = (ms, run, background) =>
      ms < 100 ? { cancel: () => {} } : systemClock.after(ms, run, background)
    const clock: Clock = { now: systemClock.now, after }
    await using locker = new Locker({ redis: t.proxy.options, unavailableAfter: 20_000, clock })
    await locker.ready()
    await locker.run('warm', () => 0)
    await using monitor = await t.server.monitor()
    // Works of another layer: one starts whenever one has ended.
    const works = new WorkScheduler(Number.POSITIVE_INFINITY, clock)
    let busy = true
    const compute = () =>
      works.schedule((slot) => {
        const end = performance.now() + 3
        while (performance.now() < end);
        slot.release()
        if (busy) compute()
      })
    for (let n = 0; n < 5; n++) compute()
    try {
      t.proxy.delay(2_000, { direction: 'down' })
      const settled = burst(locker, 200, { refresh: true })
      await until(async () => (await claimsIn(monitor)) > 16, { what: 'the second claims' })
      await sleep(200)
      assert.equal(await claimsIn(monitor), 32, 'one claim for each answer, not two')
      t.proxy.delay(0)
      assert.ok((await settled).every(({ status }) => status === 'fulfilled'))
    } finally {
      busy = false
      t.proxy.delay(0)
      await locker.close({ grace: 0 })
    }
  })
})
