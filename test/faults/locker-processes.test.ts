import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { Locker, LockTimeoutError } from '../../src/index.ts'
import { recordKey } from '../../src/kernel/keys.ts'
import type { Entry } from '../support/locker-child.ts'
import { type LockerProcess, LockerProcesses, machineNow, told } from '../support/locker-process.ts'
import { LONG, loadScripts } from '../support/locker-scene.ts'
import { EPSILON, parked } from '../support/lockers.ts'
import { type Setup, setup } from '../support/setup.ts'
import { took, until } from '../support/wait.ts'

const LEASE = 600

/** Resolves when `count` processes are parked. */
async function parkedOn(t: Setup, count: number): Promise<void> {
  await using observer = new Locker({ redis: t.server.options, cache: false })
  await parked(observer, 'k', count)
}

async function grantsOf(processes: readonly LockerProcess[]): Promise<Entry[]> {
  const histories = await Promise.all(processes.map((child) => child.call('history')))
  return histories.flat().filter(({ what }) => what === 'grant')
}

/** A holder whose work runs, and two other processes that wait for it. */
async function holderAndTwo(
  t: Setup,
  { lease }: { lease: number },
): Promise<{ processes: LockerProcesses; results: Promise<unknown>[]; fence: number }> {
  const options = { redis: t.redis, lease, timeout: 10_000, cache: false } as const
  const processes = await LockerProcesses.start(options, options, options)
  const [holder, ...others] = processes.all as [LockerProcess, ...LockerProcess[]]
  // The caller in the process of the holder ends with it.
  holder.call('run', 'k').catch(() => {})
  const { fence = 0 } = await told(holder, 'grant')
  const results = others.map((child) => child.call('run', 'k', { ms: 50 }))
  for (const result of results) result.catch(() => {})
  await parkedOn(t, 2)
  return { processes, results, fence }
}

describe('the processor is killed', () => {
  test('L2 kill - during the work: exactly one waiter takes over within a lease, for all', async () => {
    await using t = await setup()
    const { processes, results, fence } = await holderAndTwo(t, { lease: LEASE })
    await using _processes = processes
    await processes.at(0).kill()
    const killedAt = machineNow()
    const [one, other] = await Promise.all(results)
    assert.equal(one, other)
    const grants = await grantsOf(processes.all.slice(1))
    assert.equal(grants.length, 1)
    const [{ at, fence: next = 0 }] = grants as [Entry]
    assert.ok(at - killedAt < LEASE + EPSILON, `taken over after ${at - killedAt} ms`)
    assert.ok(next > fence)
  })

  test('L2 kill - of the holder and all waiters: the next caller is the processor within a lease', async () => {
    await using t = await setup()
    const { processes } = await holderAndTwo(t, { lease: LEASE })
    await using _processes = processes
    await Promise.all([processes.at(0).kill(), processes.at(1).kill(), processes.at(2).kill()])
    const killedAt = machineNow()
    await using newcomer = new Locker({ redis: t.redis, lease: LEASE })
    assert.equal(await newcomer.run('k', () => machineNow() - killedAt < LEASE + EPSILON), true)
  })

  test('L2 kill - before it reads the reply to its publish: the result counts', async () => {
    await using t = await setup({ proxy: true })
    await loadScripts(t)
    const common = { lease: LONG, timeout: 10_000, cache: false } as const
    await using processes = await LockerProcesses.start(
      { redis: t.redis, ...common },
      { redis: t.server.options, ...common },
    )
    const [holder, waiter] = processes.all as [LockerProcess, LockerProcess]
    holder.call('run', 'k').catch(() => {})
    await told(holder, 'grant')
    const result = waiter.call('run', 'k', { ms: 0 })
    await parkedOn(t, 1)
    const fault = t.proxy.swallowReply((command) => command.includes('the result'))
    const death = fault.struck.then(() => holder.kill())
    // The process may be killed before it confirms this call.
    holder.call('finish', 'k', { value: 'the result' }).catch(() => {})
    await death
    assert.ok((await took(async () => assert.equal(await result, 'the result'))) < EPSILON)
    assert.equal(await waiter.call('run', 'k', { ms: 0 }), 'the result')
    assert.deepEqual(await grantsOf([waiter]), [])
  })
})

describe('the processor releases or fails', () => {
  test('L2 release - the next waiter is the processor at once', async () => {
    await using t = await setup()
    const options = { redis: t.redis, lease: LONG, timeout: 10_000, cache: false } as const
    await using processes = await LockerProcesses.start(options, options, options)
    const [holder, ...others] = processes.all as [LockerProcess, ...LockerProcess[]]
    const ticket = await holder.call('request', 'k')
    assert.ok(ticket.status === 'locked')
    const results = others.map((child) => child.call('run', 'k', { ms: 50 }))
    await parkedOn(t, 2)
    const releasedAt = machineNow()
    await holder.call('release', ticket.fence)
    const [one, other] = await Promise.all(results)
    assert.equal(one, other)
    const grants = await grantsOf(others)
    assert.equal(grants.length, 1)
    assert.ok((grants[0]?.at ?? Number.POSITIVE_INFINITY) - releasedAt < EPSILON)
  })

  test('L2 close - leases pass on at once, running works are aborted', async () => {
    await using t = await setup()
    const { processes, results } = await holderAndTwo(t, { lease: LONG })
    await using _processes = processes
    const closedAt = machineNow()
    await processes.at(0).call('close', 0)
    assert.equal((await told(processes.at(0), 'lost')).code, 'E_CLOSED')
    assert.equal((await told(processes.at(0), 'failed')).code, 'E_CLOSED')
    const [one, other] = await Promise.all(results)
    assert.equal(one, other)
    const grants = await grantsOf(processes.all.slice(1))
    assert.equal(grants.length, 1)
    assert.ok((grants[0]?.at ?? Number.POSITIVE_INFINITY) - closedAt < EPSILON)
  })

  test('L2 fail - every waiter receives the failure, none takes over', async () => {
    await using t = await setup()
    const { processes, results } = await holderAndTwo(t, { lease: LONG })
    await using _processes = processes
    await processes.at(0).call('finish', 'k', { error: 'no paper' })
    const failure = { code: 'E_REMOTE', message: 'no paper' }
    assert.ok(
      (await took(() => Promise.all(results.map((result) => assert.rejects(result, failure))))) < EPSILON,
    )
    assert.deepEqual(await grantsOf(processes.all.slice(1)), [])
  })

  test('L1 SIGTERM - waiters reject with ClosedError, and no park is left on the record', async () => {
    await using t = await setup()
    const { processes, results } = await holderAndTwo(t, { lease: LONG })
    await using _processes = processes
    const waiter = processes.at(1)
    await Promise.all([
      waiter.kill('SIGTERM'),
      assert.rejects(results[0] as Promise<unknown>, { code: 'E_CLOSED' }),
    ])
    assert.deepEqual(await waiter.exited, { code: 0, signal: null })
    await parkedOn(t, 1)
    await processes.at(0).call('finish', 'k', { value: 'v' })
    assert.ok((await took(async () => assert.equal(await results[1], 'v'))) < EPSILON)
  })

  test('L2 takeover off - waiters for a dead processor are rejected, the next caller is the processor', async () => {
    await using t = await setup()
    await using processes = await LockerProcesses.start({ redis: t.redis, lease: LEASE })
    await using waiter = new Locker({ redis: t.redis, lease: LEASE, takeover: false })
    const holder = processes.at(0)
    holder.call('run', 'k').catch(() => {})
    await told(holder, 'grant')
    const results = [1, 2].map(() => waiter.run('k', () => 'never'))
    const rejected = results.map((result) => assert.rejects(result, LockTimeoutError))
    await parkedOn(t, 1)
    await holder.kill()
    const killedAt = machineNow()
    await Promise.all(rejected)
    assert.ok(machineNow() - killedAt < LEASE + EPSILON)
    assert.equal(await waiter.run('k', () => 'anew'), 'anew')
  })
})

describe('the processor is frozen', () => {
  test('S5 S2 SIGSTOP - for longer than the lease: after it, the signal is aborted, and publish fails', async () => {
    await using t = await setup()
    const options = { redis: t.redis, lease: LEASE, cache: false } as const
    await using processes = await LockerProcesses.start(options, options)
    const [first, second] = processes.all as [LockerProcess, LockerProcess]
    const old = await first.call('request', 'k')
    assert.ok(old.status === 'locked')
    await first.freeze()
    const next = await second.call('request', 'k')
    assert.ok(next.status === 'locked' && next.fence > old.fence)
    first.thaw()
    assert.equal((await told(first, 'lost')).code, 'E_LEASE_LOST')
    await assert.rejects(first.call('publish', old.fence, 'old'), { code: 'E_LEASE_LOST' })
    await second.call('publish', next.fence, 'new')
    await assert.rejects(first.call('publish', old.fence, 'old'), { code: 'E_LEASE_LOST' })
    await assert.rejects(first.call('fail', old.fence, 'old'), { code: 'E_LEASE_LOST' })
    const answers = await Promise.all([first.call('request', 'k'), second.call('request', 'k')])
    for (const answer of answers) assert.deepEqual(answer, { status: 'done', result: 'new' })
  })

  test('S5 SIGSTOP - during a work of `run`: its callers receive the result of the successor', async () => {
    await using t = await setup()
    const { processes, results } = await holderAndTwo(t, { lease: LEASE })
    await using _processes = processes
    const holder = processes.at(0)
    const own = holder.call('run', 'k')
    await holder.freeze()
    const [one, other] = await Promise.all(results)
    assert.equal(one, other)
    holder.thaw()
    await told(holder, 'lost')
    await holder.call('finish', 'k')
    assert.equal(await own, one)
  })

  test('S5 event loop - blocked for longer than the lease: the lease is lost, and another process holds it', async () => {
    await using t = await setup()
    const options = { redis: t.redis, lease: LEASE, cache: false } as const
    await using processes = await LockerProcesses.start(options, options)
    const [first, second] = processes.all as [LockerProcess, LockerProcess]
    const old = await first.call('request', 'k')
    assert.ok(old.status === 'locked')
    const blocked = first.call('block', 3 * LEASE)
    const next = await second.call('request', 'k')
    assert.ok(next.status === 'locked' && next.fence > old.fence)
    await blocked
    const lost = await told(first, 'lost')
    assert.equal(lost.code, 'E_LEASE_LOST')
    await assert.rejects(first.call('publish', old.fence, 'old'), { code: 'E_LEASE_LOST' })
    await second.call('publish', next.fence, 'new')
  })

  test('S5 event loop - blocked for longer than the lease: the lease is lost also without a successor', async () => {
    await using t = await setup()
    await using processes = await LockerProcesses.start({ redis: t.redis, lease: LEASE })
    const child = processes.at(0)
    const ticket = await child.call('request', 'k')
    assert.ok(ticket.status === 'locked')
    await child.call('block', 1.5 * LEASE)
    await told(child, 'lost')
    // S2: no other process has taken over.
    await child.call('publish', ticket.fence, 'late')
    await using reader = new Locker({ redis: t.redis })
    assert.equal(await reader.run('k', () => 'anew'), 'late')
  })

  test('S2 publish - after its lease has expired a holder may still publish, for one more lease and not longer', async () => {
    await using t = await setup()
    await using processes = await LockerProcesses.start({ redis: t.redis, lease: 1000 })
    await using observer = new Locker({ redis: t.redis, cache: false })
    const child = processes.at(0)
    const [soon, late] = [await child.call('request', 'soon'), await child.call('request', 'late')]
    assert.ok(soon.status === 'locked' && late.status === 'locked')
    const ranOut = (key: string) => async () => (await observer.peek(key)).status === 'free'
    await child.freeze()
    await until(ranOut('soon'), { what: 'the lease to expire' })
    child.thaw()
    await child.call('publish', soon.fence, 'soon')
    assert.equal(await observer.run('soon', () => 'anew'), 'soon')
    await child.freeze()
    const client = await t.client()
    const forgotten = async () => (await client.exists(recordKey('soloflight', 'late'))) === 0
    await until(forgotten, { what: 'the record to expire' })
    child.thaw()
    await assert.rejects(child.call('publish', late.fence, 'late'), { code: 'E_LEASE_LOST' })
  })
})
