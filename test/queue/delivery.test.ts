import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { RedisQueue } from '../../src/index.ts'
import { LONG, onSubscription } from '../support/locker-scene.ts'
import { EPSILON } from '../support/lockers.ts'
import { machineNow, QueueProcesses, told } from '../support/queue-process.ts'
import type { QueueEntry } from '../support/queue-protocol.ts'
import { IDLE, QueueScene } from '../support/queue-scene.ts'
import { setup } from '../support/setup.ts'
import { took, until } from '../support/wait.ts'

const worker = { concurrency: 1 } as const
const nothingKept = { retain: { completed: false } } as const

/** Checks that there was one run and that all submitters received its result. */
function sameFor(s: QueueScene, job: string, outcomes: readonly QueueEntry[]): void {
  const runs = s.processes.entries('begun', job)
  assert.equal(runs.length, 1, `it ran ${runs.length} times`)
  const [{ pid, fence }] = runs as [QueueEntry]
  const values = new Set(outcomes.map(({ value, code }) => code ?? value))
  assert.deepEqual([...values], [`${pid}/${fence}`])
  // By a message, not by a poll.
  const endedAt = s.processes.entries('ended', job)[0]?.at ?? 0
  const slowest = Math.max(...outcomes.map(({ at }) => at)) - endedAt
  assert.ok(slowest < 4 * EPSILON, `the last of them had it ${slowest} ms after the end`)
}

describe('everyone gets the result', () => {
  test('Q2 crowd - 100 submitters in 4 processes over 300 ms: one run of 5 ms, 100 equal results', async () => {
    const workers = { concurrency: 5, ...nothingKept }
    await using s = await QueueScene.start(LONG, workers, workers, nothingKept, nothingKept)
    const crowds = [0, 1, 2, 3].map((n) => s.at(n).call('crowd', { name: 'j', ms: 5 }, 25, 300))
    const outcomes = (await Promise.all(crowds)).flat()
    assert.equal(outcomes.length, 100)
    sameFor(s, 'j', outcomes)
    s.acceptedOnce('j')
  })

  test('Q2 crowd - with ttl 0, while the job runs: one run, 100 equal results', async () => {
    const workers = { concurrency: 5, ...nothingKept }
    await using s = await QueueScene.start(LONG, workers, workers, nothingKept, nothingKept)
    const crowds = [0, 1, 2, 3].map((n) => s.at(n).call('crowd', { name: 'j' }, 25, 300, { ttl: 0 }))
    await until(() => s.processes.entries('asked', 'j').length === 100, { what: 'all to ask' })
    await until(() => s.processes.entries('begun', 'j').length > 0, { what: 'the job to start' })
    const [{ id = '', pid }] = s.processes.entries('begun', 'j') as [QueueEntry]
    // Each process has one nonce on the record for all of its submitters.
    await until(async () => (await s.queue.status(id))?.waiters === 4, { what: 'all to be parked' })
    await s.processes.all.find((child) => child.pid === pid)?.call('finish', 'j')
    sameFor(s, 'j', (await Promise.all(crowds)).flat())
    // The outcome is not kept: the next submission is another run.
    const next = await s.at(3).call('submit', { name: 'j', ms: 0 }, { ttl: 0 })
    assert.equal(next.kind, 'value')
    assert.equal(s.processes.entries('begun', 'j').length, 2)
  })

  test('Q2 flood - 10,000 jobs whose submitter stands still for 1.5 s: all are settled, each with its own result', {
    timeout: 60_000,
  }, async () => {
    // On a busy machine, so many replies take long.
    const flooding = { ...nothingKept }
    const workers = { concurrency: 50, quiet: true, ...nothingKept }
    await using s = await QueueScene.start(LONG, workers, { ...flooding, quiet: true })
    const { right, wrong } = await s.at(1).call('flood', 10_000, 1500)
    assert.deepEqual(wrong.slice(0, 10), [])
    assert.equal(right, 10_000)
    const { waiting } = await s.at(1).call('stats')
    assert.equal(waiting, 0)
  })

  test('Q2 kill - of a submitter: its job runs, and another submitter gets the result', async () => {
    await using s = await QueueScene.start(LONG, worker, {}, {})
    const [, first, second] = [s.at(0), s.at(1), s.at(2)]
    first.call('submit', { name: 'j' }).catch(() => {})
    const { id = '', fence } = await told(s.at(0), 'begun', 'j')
    const result = second.call('submit', { name: 'j' })
    await until(async () => (await s.queue.status(id))?.waiters === 2, { what: 'both to be parked' })
    await first.kill()
    const finishedAt = machineNow()
    await s.at(0).call('finish', 'j')
    const value = `${s.at(0).pid}/${fence}`
    const settled = await result
    assert.equal(settled.value, value)
    assert.ok(settled.at - finishedAt < 2 * EPSILON, `it took ${settled.at - finishedAt} ms`)
    // A later submitter gets the result as well.
    assert.equal(await s.queue.submit('work', { name: 'j' }), value)
    assert.equal(s.processes.entries('begun', 'j').length, 1)
  })
})

// These tests mostly wait.
describe('a message is lost', { concurrency: 4 }, () => {
  test('L3 CLIENT KILL - of all subscriptions, between submission and result', async () => {
    await using s = await QueueScene.start(LONG, worker, {})
    for (let round = 0; round < 10; round += 1) {
      const name = `j${round}`
      const result = s.at(1).call('submit', { name })
      await told(s.at(0), 'begun', name)
      assert.ok(Number(await s.t.server.call('CLIENT', 'KILL', 'TYPE', 'pubsub')) >= 2, 'some were killed')
      const finishedAt = machineNow()
      await s.at(0).call('finish', name)
      const { at, value } = await result
      assert.match(String(value), new RegExp(`^${s.at(0).pid}/`))
      assert.ok(at - finishedAt < 2 * EPSILON, `it took ${at - finishedAt} ms`)
      assert.equal(s.processes.entries('begun', name).length, 1)
    }
  })

  for (const [name, lease, bound] of [
    ['a lease of 1 s', 1000, 1000],
    ['the default lease', undefined, 5000],
  ] as const) {
    test(`L3 unsubscribed - a submitter that cannot subscribe again polls, with ${name}`, async () => {
      await using t = await setup({ proxy: true })
      const common = lease === undefined ? {} : { lease }
      await using processes = await QueueProcesses.start(
        { redis: t.server.options, ...common, ...worker },
        { redis: t.redis, ...common },
      )
      const [working, unsubscribed] = [processes.at(0), processes.at(1)]
      const isUnsubscribed = async () => !(await unsubscribed.call('stats')).subscribed
      await unsubscribed.call('submit', { name: 'warm', ms: 0 }, { ttl: 0 })
      const result = unsubscribed.call('submit', { name: 'j' }, { ttl: 0 })
      await told(working, 'begun', 'j')
      await t.proxy.refuse(true)
      assert.ok(t.proxy.cut(onSubscription) > 0, 'there was a subscription')
      await until(isUnsubscribed, { what: 'the loss to be noticed' })
      const finishedAt = machineNow()
      await working.call('finish', 'j')
      const { at, value } = await result
      assert.equal(value, `${working.pid}/${processes.entries('begun', 'j')[0]?.fence}`)
      assert.ok(at - finishedAt < bound + EPSILON, `it took ${at - finishedAt} ms`)
      assert.ok(await isUnsubscribed(), 'it is still unsubscribed')
    })
  }

  test('L3 black hole - a submitter that does not notice the loss of its subscription has the result after a lease', async () => {
    const lease = 800
    await using t = await setup({ proxy: true })
    await using processes = await QueueProcesses.start(
      { redis: t.server.options, lease, ...worker },
      { redis: t.redis, lease },
    )
    await processes.at(1).call('submit', { name: 'warm', ms: 0 })
    const result = processes.at(1).call('submit', { name: 'j' })
    await told(processes.at(0), 'begun', 'j')
    t.proxy.blackhole(true, onSubscription)
    const finishedAt = machineNow()
    await processes.at(0).call('finish', 'j')
    const { at, kind } = await result
    assert.equal(kind, 'value')
    assert.ok(at - finishedAt < lease + EPSILON, `it took ${at - finishedAt} ms`)
  })
})

describe('an announcement of capacity crosses a delivery', () => {
  test('Q1 capacity - of a slot that was taken meanwhile: a job delivered to it is requeued at once', async () => {
    await using t = await setup({ proxy: true })
    const options = { redis: t.server.options, lease: LONG }
    await using full = new RedisQueue('q', { ...options, redis: t.redis })
    await using other = new RedisQueue('q', options)
    const freeSlots = (count: number) =>
      until(async () => (await t.server.call('LLEN', IDLE)) === count, { what: `${count} free slots` })
    full.process('work', () => new Promise(() => {}))
    await until(() => full.stats().subscribed, { what: 'the subscription' })
    await freeSlots(1)
    // The announcement is requested while the first job is on its way, so the worker announces a free slot.
    t.proxy.delay(400, { direction: 'down', only: onSubscription })
    await t.server.call('PUBLISH', 'soloflight:1:all', '1w soloflight:1:{q}')
    await sleep(200)
    await other.enqueue('work', 'first')
    await freeSlots(0)
    await freeSlots(1)
    await t.proxy.clear()
    other.process('work', () => 'done')
    await freeSlots(2)
    const ms = await took(async () => assert.equal(await other.submit('work', 'second'), 'done'))
    assert.ok(ms < EPSILON, `it had to wait ${ms} ms`)
    assert.equal(full.stats().running, 1)
  })
})

describe('cancel', () => {
  test('Q1 cancel - from another process: the signal fires within 50 ms as a rule', async (context) => {
    await using s = await QueueScene.start(LONG, worker, {})
    const times: number[] = []
    for (let round = 0; round < 25; round += 1) {
      const name = `j${round}`
      const result = s.at(1).call('submit', { name })
      const { id = '' } = await told(s.at(0), 'begun', name)
      const since = machineNow()
      assert.equal(await s.queue.cancel(id), true)
      const { at, code } = await told(s.at(0), 'fired', name)
      assert.equal(code, 'E_ABORTED')
      times.push(at - since)
      assert.equal((await result).code, 'E_CANCELLED')
      // The handler's result is ignored from now on.
      await s.at(0).call('finish', name)
      assert.equal((await told(s.at(0), 'lost', name)).code, 'E_ABORTED')
    }
    times.sort((one, other) => one - other)
    const [median = 0, slowest = 0] = [times[12], times[24]]
    const what = `half of them within ${median.toFixed(1)} ms, all within ${slowest.toFixed(1)} ms`
    context.diagnostic(what)
    assert.ok(median < 50 + EPSILON && slowest < 2 * EPSILON, what)
    assert.deepEqual(s.processes.entries('accepted'), [])
  })

  test('Q1 cancel - of a worker that does not notice the loss of its subscription: by its next renewal', async () => {
    const lease = 1500
    await using t = await setup({ proxy: true })
    await using processes = await QueueProcesses.start({ redis: t.redis, lease, ...worker })
    await using queue = new RedisQueue('q', { redis: t.server.options, lease })
    await queue.submit('work', { name: 'warm', ms: 0 })
    const job = await queue.enqueue('work', { name: 'j' })
    await told(processes.at(0), 'begun', 'j')
    const result = job.result()
    result.catch(() => {})
    t.proxy.blackhole(true, onSubscription)
    const since = machineNow()
    assert.equal(await job.cancel(), true)
    const { at, code } = await told(processes.at(0), 'fired', 'j')
    assert.equal(code, 'E_ABORTED')
    assert.ok(at - since < lease / 3 + EPSILON, `it fired after ${at - since} ms`)
    await assert.rejects(result, { code: 'E_REMOTE', message: 'The job was cancelled' })
  })

  test('Q2 abortUnwanted - one of two leaves: the other has the result; both leave: the job is cancelled', async () => {
    await using s = await QueueScene.start(LONG, worker, {}, {})
    const [, one, other] = [s.at(0), s.at(1), s.at(2)]
    const submitted = async (name: string) => {
      const results = [one, other].map((child) => child.call('submit', { name }, { abortUnwanted: true }))
      const { id = '' } = await told(s.at(0), 'begun', name)
      await waiters(id, 2)
      return { id, results: results as [Promise<QueueEntry>, Promise<QueueEntry>] }
    }
    const waiters = (id: string, count: number) =>
      until(async () => (await s.queue.status(id))?.waiters === count, { what: `${count} to be parked` })

    const stays = await submitted('stays')
    await one.call('leave', 'stays')
    assert.equal((await stays.results[0]).code, 'E_ABORTED')
    await waiters(stays.id, 1)
    assert.equal((await s.queue.status(stays.id))?.state, 'active')
    await s.at(0).call('finish', 'stays')
    assert.equal((await stays.results[1]).kind, 'value')
    assert.deepEqual(s.processes.entries('fired'), [])

    const goes = await submitted('goes')
    await one.call('leave', 'goes')
    await waiters(goes.id, 1)
    const ms = await took(async () => {
      await other.call('leave', 'goes')
      assert.equal((await told(s.at(0), 'fired', 'goes')).code, 'E_ABORTED')
    })
    assert.ok(ms < EPSILON, `it fired after ${ms} ms`)
    for (const result of goes.results) assert.equal((await result).code, 'E_ABORTED')
    assert.equal((await s.queue.status(goes.id))?.failure?.code, 'E_CANCELLED')
  })
})
