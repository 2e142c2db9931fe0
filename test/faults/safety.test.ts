import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { type Lease, LeaseLostError } from '../../src/index.ts'
import { recordKey } from '../../src/kernel/keys.ts'
import type { Entry } from '../support/locker-child.ts'
import { LockerProcesses, machineNow, told } from '../support/locker-process.ts'
import { scene } from '../support/locker-scene.ts'
import { leaseOf } from '../support/lockers.ts'
import { setup } from '../support/setup.ts'
import { until } from '../support/wait.ts'

const RECORD = recordKey('soloflight', 'k')

describe('fences', () => {
  test('S1 fence - strictly increases, however a grant ends', async () => {
    await using s = await scene({ lease: 300 })
    let last = 0
    const newer = (lease: Lease) => {
      assert.ok(lease.fence > last, `${lease.fence} after ${last}`)
      assert.ok(Number.isSafeInteger(lease.fence))
      last = lease.fence
      return lease
    }
    for (const locker of [s.locker, s.other, s.locker]) {
      await newer(await leaseOf(locker)).release()
      await newer(await leaseOf(locker)).fail(new Error('no paper'))
      await newer(await leaseOf(locker)).publish('v', { ttl: 0 })
      await newer(await leaseOf(locker)).publish('v')
      await locker.invalidate('k')
      const first = newer(await leaseOf(locker))
      const next = leaseOf(locker)
      await first.release()
      await newer(await next).release()
    }
  })

  test('S1 fence - strictly increases after FLUSHALL and after a restart without data', async () => {
    // The next renewal tells a holder that its record is lost.
    await using s = await scene({ lease: 300 })
    let last = 0
    const forget = [
      () => s.t.server.call('FLUSHALL'),
      () => s.t.server.restart(),
      () => s.t.server.call('DEL', RECORD),
    ]
    for (const lose of [...forget, ...forget]) {
      for (const locker of [s.locker, s.other]) {
        const { fence } = await leaseOf(locker)
        assert.ok(fence > last, `${fence} after ${last}`)
        last = fence
        await lose()
      }
    }
  })

  test('S1 fence - is not taken from a forged message', async () => {
    await using s = await scene()
    const { fence } = await leaseOf(s.locker)
    await s.t.server.call('PUBLISH', 'soloflight:1:all', `19007199254740990 ${RECORD}`)
    await s.t.server.call('FLUSHALL')
    const next = await leaseOf(s.other)
    assert.ok(next.fence > fence && next.fence < Number.MAX_SAFE_INTEGER / 2)
  })
})

describe('publish', () => {
  test('S2 publish - under the current grant only: not after a takeover, nor after the record was lost', async () => {
    await using s = await scene()
    for (const lose of ['DEL', 'PEXPIRE'] as const) {
      const old = await leaseOf(s.locker)
      await s.t.server.call(lose, RECORD, ...(lose === 'PEXPIRE' ? [0] : []))
      await assert.rejects(old.publish('lost'), LeaseLostError)
      assert.ok(old.signal.aborted)
      const next = await leaseOf(s.other)
      await assert.rejects(old.publish('lost'), LeaseLostError)
      await next.publish('next')
      assert.equal(await s.locker.run('k', () => 'anew'), 'next')
      await s.locker.invalidate('k')
    }
  })

  test('S2 publish - a grant is settled once', async () => {
    await using s = await scene()
    const lease = await leaseOf(s.locker)
    await lease.publish('one')
    await assert.rejects(lease.publish('another'), LeaseLostError)
    await assert.rejects(lease.fail(new Error('no paper')), LeaseLostError)
    await assert.rejects(lease.release(), LeaseLostError)
    assert.equal(await s.other.run('k', () => 'anew'), 'one')
  })
})

describe('the signal of a lease', () => {
  const lease = 1500

  test('S5 signal - aborts within a lease after Redis was last reached, and before another grant', async () => {
    await using t = await setup({ proxy: true })
    await using processes = await LockerProcesses.start(
      { redis: t.redis, lease },
      { redis: t.server.options, lease },
    )
    const [cutOff, successor] = [processes.at(0), processes.at(1)]
    const old = await cutOff.call('request', 'k')
    assert.ok(old.status === 'locked')
    const taken = successor.call('request', 'k')
    // Later renewals do not arrive.
    t.proxy.blackhole(true)
    const cutOffAt = machineNow()
    const lost = await told(cutOff, 'lost')
    assert.ok(lost.at - cutOffAt < lease, `it fired after ${lost.at - cutOffAt} ms`)
    const next = await taken
    assert.ok(next.status === 'locked' && next.fence > old.fence)
    const granted = await told(successor, 'grant')
    assert.ok(lost.at < granted.at)
    await t.proxy.clear()
    await assert.rejects(cutOff.call('publish', old.fence, 'old'), { code: 'E_LEASE_LOST' })
  })

  test('S5 signal - aborts in time also while a publish is under way', async () => {
    await using s = await scene({ lease, unavailableAfter: 5000 })
    const held = await leaseOf(s.locker)
    s.t.proxy.blackhole(true)
    const cutOffAt = performance.now()
    const published = held.publish('v').catch(() => {})
    await until(() => held.signal.aborted, { what: 'the signal', timeout: 2 * lease })
    assert.ok(performance.now() - cutOffAt < lease)
    await s.t.proxy.clear()
    await published
  })

  test('S5 signal - aborts in time also after a publish that failed', async () => {
    await using s = await scene({ lease, unavailableAfter: 300 })
    const held = await leaseOf(s.locker)
    s.t.proxy.blackhole(true)
    const cutOffAt = performance.now()
    await assert.rejects(held.publish('v'), { code: 'E_UNAVAILABLE' })
    await until(() => held.signal.aborted, { what: 'the signal', timeout: 2 * lease })
    assert.ok(performance.now() - cutOffAt < lease)
  })
})

describe('campaign', () => {
  const TIMEOUT = 4000
  /** Longest freeze of a process, ms. */
  const FROZEN = 600

  /** The history of one key over all processes, in the order of time. */
  function check(entries: readonly Entry[]): void {
    const computed = new Set<number>()
    const accepted = new Set<number>()
    // A frozen process records its grant late, so the order of grants holds only within a process.
    const lastOf = new Map<number, number>()
    // For each call, the newest result that any caller had received when it started.
    const newestAt = new Map<number, number>()
    let newest = 0
    for (const { what, at, since = 0, pid, fence = 0, value } of entries) {
      if (what === 'grant') {
        assert.ok(!computed.has(fence), `S1: ${fence} was granted twice`)
        assert.ok(fence > (lastOf.get(pid) ?? 0), `S1: ${fence} was granted after ${lastOf.get(pid)}`)
        computed.add(fence)
        lastOf.set(pid, fence)
      }
      if (what === 'accepted') {
        assert.ok(!accepted.has(fence), `S3: ${fence} was accepted twice`)
        accepted.add(fence)
      }
      if (what === 'asked') newestAt.set(at, newest)
      if (what === 'delivered' || what === 'failed') {
        assert.ok(at - since < TIMEOUT + FROZEN + 500, `L1: it was settled after ${at - since} ms`)
      }
      if (what !== 'delivered') continue
      const from = Number(String(value).split('/')[1])
      assert.ok(computed.has(from), `S3: ${value} was delivered, and never computed`)
      assert.ok(from >= (newestAt.get(since) ?? 0), `S4: ${value} was delivered, a newer one had been before`)
      newest = Math.max(newest, from)
    }
  }

  test('S1 S4 L1 campaign - processes are frozen, connections killed and cut: the histories are consistent', async () => {
    await using t = await setup({ proxy: true })
    const options = { redis: t.redis, lease: 300, ttl: 40, cache: false } as const
    await using processes = await LockerProcesses.start(options, options, options)
    const end = performance.now() + 6000
    const settled: PromiseSettledResult<unknown>[] = []
    const ask = async (index: number, key: string) => {
      while (performance.now() < end) {
        const [outcome] = await Promise.allSettled([
          processes.at(index).call('run', key, { ms: 15, timeout: TIMEOUT }),
        ])
        if (outcome) settled.push(outcome)
      }
    }
    const harm = async () => {
      for (let round = 0; performance.now() < end; round += 1) {
        const victim = processes.at(round % 3)
        await victim.freeze()
        if (round % 2) await t.server.call('CLIENT', 'KILL', 'TYPE', round % 4 === 1 ? 'pubsub' : 'normal')
        await new Promise((resolve) => setTimeout(resolve, 100 + ((round * 173) % (FROZEN - 100))))
        victim.thaw()
        t.proxy.cut()
        if (round % 5 === 4) await t.server.call('SCRIPT', 'FLUSH')
      }
    }
    const callers = [0, 1, 2].flatMap((index) => ['a', 'a', 'b', 'c'].map((key) => ask(index, key)))
    await Promise.all([harm(), ...callers])
    const refused = settled.filter(({ status }) => status === 'rejected')
    // A process that was frozen may fail because Redis did not answer in time.
    for (const { reason } of refused as PromiseRejectedResult[])
      assert.equal(reason.code, 'E_UNAVAILABLE', reason)
    assert.ok(settled.length - refused.length > 100, `only ${settled.length - refused.length} calls`)
    const histories = await Promise.all(processes.all.map((child) => child.call('history')))
    const entries = histories.flat().sort((a, b) => a.at - b.at)
    for (const key of ['a', 'b', 'c']) check(entries.filter((entry) => entry.key === key))
  })
})
