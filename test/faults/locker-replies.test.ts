import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { RemoteError } from '../../src/index.ts'
import { recordKey } from '../../src/kernel/keys.ts'
import { lockerScripts } from '../../src/locker/store/redis/scripts/index.ts'
import { onCommands, type Scene, scene } from '../support/locker-scene.ts'
import { leaseOf, parked } from '../support/lockers.ts'
import { until } from '../support/wait.ts'

/** Number of bytes of the reply that arrive before the connection ends. The shortest reply has 4 bytes. */
const OFFSETS = [0, 1, 3, 5, 9, 14, 26]

type Name = keyof typeof lockerScripts

/** Cuts the next reply to this script, or to a plain read, after `offset` bytes. The returned function awaits that. */
function lose({ t }: Scene, name: Name | 'read', bytes: number): () => Promise<boolean> {
  const command = name === 'read' ? /^HGET / : new RegExp(`^EVALSHA ${lockerScripts[name].sha1} `)
  const fault = t.proxy.swallowReplyAfter(command, bytes)
  // The connection also ends after a shorter reply.
  return () => until(() => fault.hits === 1, { what: `the reply to ${name} to be lost` })
}

async function fenceOf({ t }: Scene, key: string): Promise<number> {
  return Number(await t.server.call('HGET', recordKey('soloflight', key), 'f'))
}

describe('a reply is lost with the connection', () => {
  test('S6 claim - the retry receives the same grant', async () => {
    await using s = await scene()
    for (const bytes of OFFSETS) {
      const key = `claim.${bytes}`
      const isLost = lose(s, 'claim', bytes)
      const lease = await leaseOf(s.locker, key)
      assert.ok(await isLost())
      assert.equal(lease.fence, await fenceOf(s, key))
      await lease.publish(bytes)
      assert.equal(await s.other.run(key, () => 'anew'), bytes)
    }
  })

  test('S6 claim - of a waiter: it parks once, and is notified', async () => {
    await using s = await scene()
    for (const bytes of OFFSETS) {
      const key = `park.${bytes}`
      const lease = await leaseOf(s.other, key)
      const isLost = lose(s, 'claim', bytes)
      const result = s.locker.run(key, () => 'anew')
      assert.ok(await isLost())
      await parked(s.other, key, 1)
      await lease.publish(bytes)
      assert.equal(await result, bytes)
    }
  })

  test('S6 read - of a value', async () => {
    await using s = await scene()
    await s.other.run('k', () => 'there')
    for (const bytes of OFFSETS) {
      const isLost = lose(s, 'read', bytes)
      assert.equal(await s.locker.run('k', () => 'anew'), 'there')
      assert.ok(await isLost())
    }
  })

  test('S6 claim - of many keys at once: each is granted once', async () => {
    await using s = await scene()
    for (const bytes of [0, 700]) {
      const keys = Array.from({ length: 200 }, (_, index) => `batch.${bytes}.${index}`)
      const isLost = lose(s, 'claim', bytes)
      const fences = await Promise.all(keys.map((key) => s.locker.run(key, ({ fence }) => fence)))
      assert.ok(await isLost())
      for (const [index, key] of keys.entries()) assert.equal(await fenceOf(s, key), fences[index])
    }
    assert.equal(s.locker.stats().works, 400)
  })

  test('S6 claim - the server has lost the script as well: it is sent again with its source', async () => {
    await using s = await scene()
    for (const bytes of [0, 5]) {
      await s.t.server.call('SCRIPT', 'FLUSH')
      const byDigest = lose(s, 'claim', bytes)
      const byText = s.t.proxy.swallowReplyAfter(/^EVAL /, bytes)
      const lease = await leaseOf(s.locker, `text.${bytes}`)
      assert.ok(await byDigest())
      await byText.struck
      assert.equal(lease.fence, await fenceOf(s, `text.${bytes}`))
    }
  })

  test('S6 renew - the lease is kept', async () => {
    await using s = await scene({ lease: 900 })
    const held = await leaseOf(s.locker, 'k')
    for (const bytes of OFFSETS.filter((offset) => offset < 12)) {
      const isLost = lose(s, 'renew', bytes)
      assert.ok(await isLost())
      // The next renewal follows the reply to the renewal that was sent again.
      const renewed = () => {
        const last = s.t.proxy.connections.findLast(onCommands)
        return last?.commands.filter((name) => name === 'EVALSHA').length === 2
      }
      await until(renewed, { what: 'the next renewal' })
    }
    assert.equal(held.signal.aborted, false)
    const { lock } = await s.other.peek('k')
    assert.equal(lock?.fence, held.fence)
    await held.publish('v')
  })

  test('S6 publish - the value is accepted once, and publish resolves', async () => {
    await using s = await scene()
    for (const bytes of OFFSETS) {
      const key = `publish.${bytes}`
      const lease = await leaseOf(s.locker, key)
      const result = s.other.run(key, () => 'anew')
      await parked(s.other, key, 1)
      const isLost = lose(s, 'settle', bytes)
      await lease.publish(bytes)
      assert.ok(await isLost())
      assert.equal(await result, bytes)
      const { value } = await s.other.peek(key)
      assert.equal(value?.fence, lease.fence)
    }
    assert.equal(s.other.stats().works, 0)
  })

  test('S6 publish - in `run`: the work runs once, every caller receives its result', async () => {
    await using s = await scene()
    for (const bytes of OFFSETS) {
      const isLost = lose(s, 'settle', bytes)
      const [one, another] = await Promise.all(
        [1, 2].map(() => s.locker.run(`run.${bytes}`, () => ({ bytes }))),
      )
      assert.ok(await isLost())
      assert.deepEqual([one, another], [{ bytes }, { bytes }])
    }
    assert.equal(s.locker.stats().works, OFFSETS.length)
  })

  test('S6 publish - of a result with ttl 0: a later grant is not affected', async () => {
    await using s = await scene({ ttl: 0 })
    const lease = await leaseOf(s.locker, 'k')
    const result = s.other.run('k', () => 'anew')
    await parked(s.other, 'k', 1)
    const isLost = lose(s, 'settle', 0)
    const published = lease.publish('first')
    assert.ok(await isLost())
    assert.equal(await result, 'first')
    const next = await leaseOf(s.other, 'k')
    await published
    assert.equal((await s.other.peek('k')).lock?.fence, next.fence)
    await next.publish('second')
  })

  test('S6 fail - every waiter receives the failure, once', async () => {
    await using s = await scene()
    for (const bytes of OFFSETS) {
      const key = `fail.${bytes}`
      const lease = await leaseOf(s.locker, key)
      const rejected = assert.rejects(
        s.other.run(key, () => 'anew'),
        RemoteError,
      )
      await parked(s.other, key, 1)
      const isLost = lose(s, 'settle', bytes)
      await lease.fail(new Error('no paper'))
      assert.ok(await isLost())
      await rejected
    }
  })

  test('S6 release - one waiter is notified, and its lease is not affected', async () => {
    await using s = await scene()
    for (const bytes of OFFSETS) {
      const key = `release.${bytes}`
      const lease = await leaseOf(s.locker, key)
      const next = leaseOf(s.other, key)
      await parked(s.other, key, 1)
      const isLost = lose(s, 'release', bytes)
      await lease.release()
      assert.ok(await isLost())
      const taken = await next
      assert.equal(await fenceOf(s, key), taken.fence)
      await taken.publish(bytes)
    }
  })

  test('S6 release - to a waiter of the same process: one new grant', async () => {
    await using s = await scene()
    for (const bytes of OFFSETS) {
      const key = `regrant.${bytes}`
      const lease = await leaseOf(s.locker, key)
      const next = leaseOf(s.locker, key)
      const isLost = lose(s, 'release', bytes)
      await lease.release()
      assert.ok(await isLost())
      const { fence } = await next
      assert.ok(fence > lease.fence)
      assert.equal(await fenceOf(s, key), fence)
      await (await next).publish(bytes)
      assert.equal(await s.other.run(key, () => 'anew'), bytes)
    }
  })

  test('S6 unpark - the park is removed once, and the other waiters are notified', async () => {
    await using s = await scene()
    for (const bytes of OFFSETS.filter((offset) => offset < 4)) {
      const key = `unpark.${bytes}`
      const lease = await leaseOf(s.other, key)
      const leaves = new AbortController()
      const leaving = assert.rejects(
        s.locker.run(key, () => 'anew', { signal: leaves.signal }),
        { code: 'E_ABORTED' },
      )
      await parked(s.other, key, 1)
      const isLost = lose(s, 'unpark', bytes)
      leaves.abort()
      await leaving
      assert.ok(await isLost())
      const stays = s.locker.run(key, () => 'anew')
      await parked(s.other, key, 1)
      await lease.publish(bytes)
      assert.equal(await stays, bytes)
    }
  })

  test('S6 invalidate - once acknowledged, no earlier result is served', async () => {
    await using s = await scene()
    for (const bytes of OFFSETS.filter((offset) => offset < 4)) {
      const key = `invalidate.${bytes}`
      await s.other.run(key, () => 'old')
      const isLost = lose(s, 'invalidate', bytes)
      await s.locker.invalidate(key)
      assert.ok(await isLost())
      assert.equal(await s.other.run(key, () => 'new'), 'new')
    }
  })

  test('S6 cut - a connection that ends in the middle of any command: the work runs once', async () => {
    await using s = await scene()
    for (const bytes of [1, 40, 90, 150, 210]) {
      const fault = s.t.proxy.cutAfter(bytes, 'up', { only: onCommands })
      assert.equal(await s.locker.run(`cut.${bytes}`, () => bytes), bytes)
      await fault.struck
      assert.equal(await s.other.run(`cut.${bytes}`, () => 'anew'), bytes)
    }
    assert.equal(s.locker.stats().works, 5)
  })
})
