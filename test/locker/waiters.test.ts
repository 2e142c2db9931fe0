import assert from 'node:assert/strict'
import pDefer from 'p-defer'
import { AbortedError, TimeoutError } from '../../src/index.ts'
import { EPSILON, inBothStores, leaseOf } from '../support/lockers.ts'
import { until } from '../support/wait.ts'

inBothStores('L1 waiters - timeout ends one waiter in time, and the work goes on', async (w) => {
  const [one, other] = [w.create(), w.create({ timeout: 250 })]
  const gate = pDefer<string>()
  const first = one.run('key', () => gate.promise, { timeout: Number.POSITIVE_INFINITY })
  await until(async () => (await one.peek('key')).status === 'locked', { what: 'the claim' })
  const from = performance.now()
  const ends = [
    one.run('key', () => 'x', { timeout: 100 }),
    other.run('key', () => 'x'),
    other.request('key'),
  ]
  const limits = [100, 250, 250]
  await Promise.all(
    ends.map(async (end, index) => {
      await assert.rejects(end, (error: TimeoutError) => {
        assert.ok(error instanceof TimeoutError)
        assert.equal(error.key, 'key')
        const limit = limits[index] ?? 0
        const waited = performance.now() - from
        assert.ok(waited >= limit - 2 && waited < limit + EPSILON, `${waited} ms`)
        return true
      })
    }),
  )
  assert.deepEqual([one.stats().timeouts, other.stats().timeouts], [1, 2])
  gate.resolve('done')
  assert.equal(await first, 'done')
  assert.equal(await other.run('key', () => 'anew'), 'done')
})

inBothStores('L1 waiters - a signal ends only its own waiter, with its reason', async (w) => {
  const [one, other] = [w.create(), w.create()]
  const gate = pDefer<string>()
  const leaver = new AbortController()
  const first = one.run('key', () => gate.promise, { signal: leaver.signal })
  await until(async () => (await one.peek('key')).status === 'locked', { what: 'the claim' })
  const stays = [one.run('key', () => 'x'), other.run('key', () => 'x')]
  const leaves = [
    other.run('key', () => 'x', { signal: leaver.signal }),
    other.request('key', { signal: leaver.signal }),
  ]
  const reason = new Error('the user went home')
  leaver.abort(reason)
  for (const left of [first, ...leaves]) {
    await assert.rejects(left, (error: AbortedError) => {
      assert.ok(error instanceof AbortedError)
      assert.equal(error.cause, reason)
      return true
    })
  }
  await assert.rejects(
    one.run('key', () => 'x', { signal: leaver.signal }),
    AbortedError,
  )
  gate.resolve('done')
  assert.deepEqual(await Promise.all(stays), ['done', 'done'])
  assert.equal(one.stats().waiters, 0)
})

inBothStores('L4 waiters - the last waiter that leaves removes its process from the record', async (w) => {
  const [one, other] = [w.create(), w.create()]
  const lease = await leaseOf(one, 'key')
  const leaver = new AbortController()
  const waits = [1, 2].map(() => other.run('key', () => 'x', { signal: leaver.signal }))
  await until(async () => (await one.peek('key')).lock?.parked === 1, { what: 'the park' })
  leaver.abort()
  await Promise.allSettled(waits)
  await until(async () => (await one.peek('key')).lock?.parked === 0, { what: 'the park to be removed' })
  await lease.publish('done')
})
