import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { RedisQueue, RemoteError } from '../../src/index.ts'
import { onSubscription } from '../support/locker-scene.ts'
import { EPSILON } from '../support/lockers.ts'
import { machineNow, told } from '../support/queue-process.ts'
import { IDLE, QueueScene } from '../support/queue-scene.ts'
import { setup } from '../support/setup.ts'
import { took, until } from '../support/wait.ts'

const LEASE = 1000
const worker = { concurrency: 1 } as const

/** Kills the worker process, and measures when another runs the job. */
async function killedAtWork(lease: number): Promise<void> {
  await using s = await QueueScene.start(lease, worker, worker)
  const { id, result, begun } = await s.runningIn(s.at(0), { name: 'j' })
  // After the short deadline for accepting a delivery: the job is under a whole lease.
  const renewed = async () => ((await s.leaseLeft(id)) ?? 0) > lease / 2
  await until(renewed, { what: 'the lease to be renewed' })
  await s.at(0).kill()
  const killedAt = machineNow()
  const next = await told(s.at(1), 'begun', 'j', 2 * lease + 2 * EPSILON)
  assert.ok(next.at - killedAt < 2 * lease + EPSILON, `it ran elsewhere after ${next.at - killedAt} ms`)
  assert.ok((next.fence ?? 0) > (begun.fence ?? 0), 'the fence has grown')
  assert.deepEqual([next.attempt, next.stalls], [1, 1])
  await s.at(1).call('finish', 'j')
  assert.equal(await result, `${s.at(1).pid}/${next.fence}`)
  await told(s.at(1), 'accepted', 'j')
  s.acceptedOnce('j')
}

// These tests mostly wait for leases to end, so two run at a time.
describe('workers that fail', { concurrency: 2 }, () => {
  describe('a worker is killed', () => {
    test('Q3 kill - during the work: another worker runs the job within two leases, one outcome is accepted', () =>
      killedAtWork(LEASE))

    test('Q3 kill - during the work, with the default lease', { timeout: 40_000 }, () => killedAtWork(10_000))

    test('Q3 kill - of the worker and all idle ones: a later worker runs the job', async () => {
      await using s = await QueueScene.start(LEASE, worker, worker, worker)
      const { result } = await s.runningIn(s.at(0), { name: 'j', ms: 300 })
      await Promise.all([s.at(0).kill(), s.at(1).kill(), s.at(2).kill()])
      const killedAt = machineNow()
      const later = await s.processes.fork()
      const openedAt = machineNow()
      await later.call('open', 'q', { redis: s.t.redis, lease: LEASE, ...worker })
      const { at, fence } = await told(later, 'begun', 'j')
      assert.ok(
        at - killedAt < Math.max(2 * LEASE, openedAt - killedAt + LEASE) + EPSILON,
        `after ${at - killedAt} ms`,
      )
      assert.equal(await result, `${later.pid}/${fence}`)
      assert.ok(
        (await took(() => told(later, 'accepted', 'j'))) < EPSILON,
        'the submitter is notified at once',
      )
      s.acceptedOnce('j')
    })

    test('Q3 kill - of a worker with many jobs: each runs elsewhere, and each submitter receives a result', async () => {
      const many = { concurrency: 20 }
      await using s = await QueueScene.start(LEASE, many, many)
      // Long enough that all have started before any ends.
      const ms = 2_000
      const tasks = Array.from({ length: 20 }, (_, index) => ({ name: `j${index}`, ms }))
      const results = Promise.all(tasks.map((task) => s.queue.submit('work', task)))
      await until(() => s.processes.entries('begun').length === 20, { what: 'all to start' })
      await s.at(0).kill()
      const killedAt = machineNow()
      const values = await results
      assert.ok(machineNow() - killedAt < 2 * LEASE + ms + EPSILON, `it took ${machineNow() - killedAt} ms`)
      for (const value of values) assert.match(String(value), new RegExp(`^${s.at(1).pid}/`))
      await until(() => s.processes.entries('accepted').length >= 20, {
        what: 'all submitters to be notified',
      })
      for (const { name } of tasks) s.acceptedOnce(name)
    })

    test('Q3 poison - a job that kills every worker fails after its stalls, and affects no other job', {
      timeout: 60_000,
    }, async () => {
      const maxStalls = 3
      const all = Array.from({ length: maxStalls + 3 }, () => ({ ...worker, maxStalls }))
      await using s = await QueueScene.start(500, ...all)
      const before = Promise.all(
        [1, 2, 3].map((n) => s.queue.submit('work', { name: `before ${n}`, ms: 50 })),
      )
      const poison = s.queue.submit('work', { name: 'poison', dies: true })
      const after = Promise.all([1, 2, 3].map((n) => s.queue.submit('work', { name: `after ${n}`, ms: 50 })))
      await assert.rejects(poison, (error: unknown) => {
        assert.ok(error instanceof RemoteError, `it was ${error}`)
        assert.equal(error.remote.code, 'E_STALLED')
        return true
      })
      const deaths = s.processes.entries('begun', 'poison')
      assert.equal(deaths.length, maxStalls + 1)
      assert.deepEqual(
        deaths.map(({ stalls }) => stalls),
        [0, 1, 2, 3],
      )
      assert.equal((await Promise.all([before, after])).flat().length, 6)
      for (const { job } of s.processes.entries('begun')) if (job !== 'poison') s.acceptedOnce(job)
      // Two workers are left, and both go on.
      const last = [1, 2].map((n) => s.queue.submit('work', { name: `last ${n}`, ms: 100 }))
      const pids = (await Promise.all(last)).map((value) => String(value).split('/')[0])
      assert.equal(new Set(pids).size, 2, `they ran in ${pids}`)
    })
  })

  describe('a worker is frozen', () => {
    test('Q3 SIGSTOP - for longer than the lease: the late worker detects it, cannot report, and takes jobs again', async () => {
      await using s = await QueueScene.start(LEASE, worker, worker)
      const [first, second] = [s.at(0), s.at(1)]
      const { id, begun } = await s.runningIn(first, { name: 'j', tells: true })
      const shown: unknown[] = []
      const result = s.queue.submit(
        'work',
        { name: 'j', tells: true },
        { onProgress: (value) => shown.push(value) },
      )
      await first.freeze()
      const next = await told(second, 'begun', 'j')
      assert.ok(next.at - begun.at < 2 * LEASE + EPSILON, `it ran elsewhere after ${next.at - begun.at} ms`)
      first.thaw()
      const thawedAt = machineNow()
      const fired = await told(first, 'fired', 'j')
      assert.equal(fired.code, 'E_LEASE_LOST')
      assert.ok(fired.at - thawedAt < EPSILON, `it knew after ${fired.at - thawedAt} ms`)
      await first.call('finish', 'j')
      assert.equal((await told(first, 'lost', 'j')).code, 'E_LEASE_LOST')
      assert.deepEqual(await s.queue.logs(id), [])
      assert.equal((await s.queue.status(id))?.state, 'active')
      await second.call('finish', 'j')
      const value = `${second.pid}/${next.fence}`
      assert.equal(await result, value)
      assert.deepEqual([shown, await s.queue.logs(id)], [[value], [value]])
      await told(second, 'accepted', 'j')
      s.acceptedOnce('j')
      // Both workers take jobs.
      await s.idle(2)
      await Promise.all(['a', 'b'].map((name) => s.queue.enqueue('work', { name })))
      const takers = () => ['a', 'b'].flatMap((name) => s.processes.entries('begun', name))
      await until(() => takers().length === 2, { what: 'both to start' })
      assert.equal(new Set(takers().map(({ pid }) => pid)).size, 2, 'each took one')
    })

    for (const how of ['SIGSTOP', 'event loop'] as const) {
      test(`Q3 ${how} - of an idle worker: jobs that are pushed to it run elsewhere, and it starts none of them`, async () => {
        const many = { concurrency: 5 }
        await using s = await QueueScene.start(LEASE, many, many)
        const [first, second] = [s.at(0), s.at(1)]
        const blocked = how === 'SIGSTOP' ? first.freeze() : first.call('block', 3 * LEASE)
        await (how === 'SIGSTOP' ? blocked : told(first, 'paused'))
        const since = machineNow()
        const tasks = Array.from({ length: 5 }, (_, index) => ({ name: `j${index}`, ms: 10 }))
        const results = await Promise.all(tasks.map((task) => s.queue.submit('work', task)))
        // They were pushed to this worker first, not to the other one from the start.
        assert.ok(machineNow() - since > LEASE / 4, `after ${machineNow() - since} ms`)
        assert.ok(machineNow() - since < 2 * LEASE + EPSILON, `after ${machineNow() - since} ms`)
        for (const value of results) assert.match(String(value), new RegExp(`^${second.pid}/`))
        if (how === 'SIGSTOP') first.thaw()
        await blocked
        for (const _ of tasks) assert.equal((await told(first, 'lost')).code, 'E_LEASE_LOST')
        await s.idle(10)
        assert.equal(s.processes.entries('begun').filter(({ pid }) => pid === first.pid).length, 0)
        for (const { name } of tasks) s.acceptedOnce(name)
        // The worker takes as many jobs as before.
        const again = Array.from({ length: 10 }, (_, index) => ({ name: `again ${index}` }))
        await Promise.all(again.map((task) => s.queue.enqueue('work', task)))
        await until(() => s.processes.entries('begun').length === 15, { what: 'ten at once' })
        assert.equal(s.processes.entries('begun').filter(({ pid }) => pid === first.pid).length, 5)
      })
    }

    test('Q3 SIGSTOP - of the only worker: jobs that were pushed to it run there once, after the freeze', async () => {
      await using s = await QueueScene.start(500, { concurrency: 3 })
      const only = s.at(0)
      await only.freeze()
      const tasks = [1, 2, 3].map((n) => ({ name: `j${n}`, ms: 10 }))
      const results = tasks.map((task) => s.queue.submit('work', task))
      const overdue = async () => {
        const { active, waiting } = await s.queue.counts()
        if (active !== 3 || waiting !== 0) return false
        const { jobs } = await s.queue.jobs('active')
        return (await Promise.all(jobs.map(({ id }) => s.leaseLeft(id)))).every((left) => (left ?? 1) < 0)
      }
      await until(overdue, { what: 'the deliveries to be overdue' })
      only.thaw()
      assert.ok((await took(() => Promise.all(results))) < 2 * 500 + EPSILON, 'they run soon')
      await until(() => s.processes.entries('accepted').length === 3, {
        what: 'all submitters to be notified',
      })
      for (const { name } of tasks) {
        s.acceptedOnce(name)
        assert.equal(s.processes.entries('begun', name).length, 1)
      }
    })

    for (const [what, fails] of [
      ['finish', 0],
      ['fail', 99],
    ] as const) {
      test(`Q3 event loop - blocked for longer than the lease: the late worker cannot ${what}, report progress or log`, async () => {
        await using s = await QueueScene.start(LEASE, worker, worker)
        const [first, second] = [s.at(0), s.at(1)]
        // It blocks, and reports in the same tick: its process has not detected the loss of the lease yet.
        const task = { name: 'j', blocks: 2600, tells: true, fails }
        const shown: unknown[] = []
        const onProgress = (value: unknown) => shown.push(value)
        const { id, result, begun } = await s.runningIn(first, task, { onProgress })
        const next = await told(second, 'begun', 'j')
        assert.ok((next.fence ?? 0) > (begun.fence ?? 0), 'the fence has grown')
        const ended = await told(first, 'ended', 'j')
        const lost = await told(first, 'lost', 'j')
        const knew = s.processes
          .entries('fired')
          .filter(({ at, fence }) => at < ended.at && fence === begun.fence)
        assert.deepEqual(knew, [], 'it did not know')
        assert.ok(lost.at - ended.at < EPSILON && lost.fence === begun.fence, JSON.stringify(lost))
        assert.deepEqual([shown, await s.queue.logs(id)], [[], []])
        await second.call('finish', 'j')
        const value = `${second.pid}/${next.fence}`
        if (fails === 0) assert.equal(await result, value)
        else await assert.rejects(result, { code: 'E_REMOTE', message: value })
        assert.deepEqual([shown, await s.queue.logs(id)], [[value], [value]])
        await told(second, 'accepted', 'j')
        s.acceptedOnce('j')
      })
    }
  })

  describe('SIGTERM', () => {
    test('Q3 SIGTERM - jobs that end within the grace end here, waiting jobs run elsewhere', async () => {
      await using s = await QueueScene.start(10_000, { ...worker, grace: 5000 }, worker)
      const { result } = await s.runningIn(s.at(0), { name: 'j', ms: 400 })
      const [before, ...others] = ['a', 'b', 'c'].map((name) => s.queue.submit('work', { name, ms: 100 }))
      const exited = s.at(0).kill('SIGTERM')
      assert.match(String(await result), new RegExp(`^${s.at(0).pid}/`))
      for (const other of await Promise.all([before, ...others]))
        assert.match(String(other), new RegExp(`^${s.at(1).pid}/`))
      await exited
      assert.deepEqual(await s.at(0).exited, { code: 0, signal: null })
      await until(() => s.processes.entries('accepted').length === 4, {
        what: 'all submitters to be notified',
      })
      for (const name of ['j', 'a', 'b', 'c']) s.acceptedOnce(name)
    })

    test('Q3 SIGTERM - a job that does not end is requeued at once, and does not count as a stall', async () => {
      const many = { concurrency: 10 }
      await using s = await QueueScene.start(10_000, { ...many, grace: 100 })
      const tasks = Array.from({ length: 20 }, (_, index) => ({ name: `j${index}` }))
      const results = Promise.all(tasks.map((task) => s.queue.submit('work', task)))
      results.catch(() => {})
      await until(() => s.processes.entries('begun').length === 10, { what: 'ten to start' })
      const second = await s.processes.add({ redis: s.t.redis, lease: 10_000, concurrency: 30 })
      await until(() => s.processes.entries('begun').length === 20, { what: 'the other to have ten' })
      await s.idle(20)
      const since = machineNow()
      const exited = s.at(0).kill('SIGTERM')
      await until(() => s.processes.entries('begun').length === 30, {
        what: 'the first ten to go on',
        timeout: 3000,
      })
      const again = s.processes.entries('begun').slice(20)
      for (const { at, pid, stalls, attempt } of again) {
        assert.ok(at - since < 1000, `handed over after ${at - since} ms`)
        assert.deepEqual([pid, stalls, attempt], [second.pid, 0, 1])
      }
      await exited
      assert.deepEqual(await s.at(0).exited, { code: 0, signal: null })
      assert.deepEqual(
        s.processes.entries('fired').map(({ code }) => code),
        Array(10).fill('E_CLOSED'),
      )
      for (const { name } of tasks) await second.call('finish', name)
      for (const value of await results) assert.match(String(value), new RegExp(`^${second.pid}/`))
      await until(() => s.processes.entries('accepted').length === 20, {
        what: 'all submitters to be notified',
      })
      for (const { name } of tasks) s.acceptedOnce(name)
    })

    test('Q3 close - jobs that are under way to the worker are requeued at once', async () => {
      await using t = await setup({ proxy: true })
      const closing = new RedisQueue('q', { redis: t.redis })
      await using other = new RedisQueue('q', { redis: t.server.options })
      closing.process('work', () => assert.fail('it was begun'), { concurrency: 5 })
      await until(() => closing.stats().subscribed, { what: 'the subscription' })
      await until(async () => (await t.server.call('LLEN', IDLE)) === 5, { what: 'its slots' })
      t.proxy.delay(200, { direction: 'down', only: onSubscription })
      const results = [1, 2, 3, 4, 5].map((n) => other.submit('work', { n }))
      await until(async () => (await other.counts()).active === 5, { what: 'all to be assigned' })
      await closing.close({ grace: 0 })
      other.process('work', () => 'done', { concurrency: 5 })
      const ms = await took(() => Promise.all(results))
      assert.ok(ms < EPSILON, `they had to wait ${ms} ms`)
    })

    test('L1 SIGTERM - of a submitter: it fails with ClosedError, its job goes on for others', async () => {
      await using s = await QueueScene.start(10_000, worker, {})
      const { id, result } = await s.runningIn(s.at(0), { name: 'j' })
      const waiting = s.at(1).call('submit', { name: 'j' })
      // The process may end before it answers.
      waiting.catch(() => {})
      const waiters = (count: number) => async () => (await s.queue.status(id))?.waiters === count
      await until(waiters(2), { what: 'both to be parked' })
      await s.at(1).kill('SIGTERM')
      assert.deepEqual(await s.at(1).exited, { code: 0, signal: null })
      assert.equal((await told(s.at(1), 'settled', 'j')).code, 'E_CLOSED')
      assert.ok(await waiters(1)(), 'its place on the record is given up')
      await s.at(0).call('finish', 'j')
      assert.match(String(await result), new RegExp(`^${s.at(0).pid}/`))
    })
  })
})
