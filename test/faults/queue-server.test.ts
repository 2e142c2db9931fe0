import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import pDefer from 'p-defer'
import { type QueueOptions, RedisQueue } from '../../src/index.ts'
import { QueueKeys } from '../../src/queue/store/redis/queue-calls.ts'
import { queueScripts } from '../../src/queue/store/redis/scripts/index.ts'
import { LONG, onCommands, settledBy } from '../support/locker-scene.ts'
import { EPSILON } from '../support/lockers.ts'
import { idle, NAME, over, Runs, subscribed, wired } from '../support/queue-wire.ts'
import { setup } from '../support/setup.ts'
import { took, until } from '../support/wait.ts'

/** A lease that ends within a test unless it is renewed. */
const LEASE = 600

const names = new QueueKeys('soloflight', NAME)

describe('the server loses state', () => {
  test('SCRIPT FLUSH - at any time, under load: no call is affected', async () => {
    await using s = await wired({ lease: 300 })
    const runs = new Runs()
    const stalled: string[] = []
    for (const queue of [s.queue, s.other]) {
      queue.process('work', runs.handler(1), { concurrency: 4 })
      queue.on('stalled', ({ id }) => stalled.push(id))
    }
    let going = true
    const flushing = (async () => {
      while (going) await s.t.server.call('SCRIPT', 'FLUSH')
    })()
    try {
      const payloads = Array.from({ length: 150 }, (_, index) => index)
      for (const queue of [s.queue, s.other]) {
        const options = { dedupe: false } as const
        const results = await Promise.all(payloads.map((each) => queue.submit('work', each, options)))
        assert.deepEqual(results, payloads)
      }
      const ids = runs.all.map(({ id }) => id)
      assert.equal(new Set(ids).size, 300)
      // The lease is short: on a busy machine a process may stand still for longer, and its job runs again.
      const again = ids.filter((id, at) => ids.indexOf(id) < at && !stalled.includes(id))
      assert.deepEqual(again, [], 'a job that did not stall runs once')
      const job = await s.queue.enqueue('work', 'v', { delay: 60_000 })
      assert.equal(await job.cancel(), true)
      await s.queue.pause()
      await s.queue.resume()
    } finally {
      going = false
      await flushing
    }
    await over(s.other)
  })

  test('Q1 SCRIPT FLUSH - an announcement that is sent again, as text, has the slots that became free meanwhile', async () => {
    await using s = await wired({ lease: LONG })
    const { server, proxy } = s.t
    const runs = new Runs()
    const end = pDefer<void>()
    runs.hold = end.promise
    s.queue.process('work', runs.handler(), { concurrency: 2 })
    await idle(server, 2)
    const results = Promise.all([1, 2].map((payload) => s.other.submit('work', payload)))
    await until(() => runs.now === 2, { what: 'both jobs to run' })
    // No slot is free. The server has forgotten this one script, and the worker hears of it late.
    await server.call('SCRIPT', 'FLUSH')
    const { setCapacity, ...others } = queueScripts
    for (const { source } of Object.values(others)) await server.call('SCRIPT', 'LOAD', source)
    await server.call('CONFIG', 'RESETSTAT')
    proxy.delay(400, { direction: 'down', only: onCommands })
    await server.call('PUBLISH', 'soloflight:1:all', `1w ${names.base}`)
    const isRefused = async () => /errorstat_NOSCRIPT/.test(String(await server.call('INFO', 'errorstats')))
    await until(isRefused, { what: 'the announcement to be refused' })
    end.resolve()
    assert.deepEqual(await results, [1, 2])
    proxy.delay(0)
    const isSentAgain = async () => String(await server.call('SCRIPT', 'EXISTS', setCapacity.sha1)) === '1'
    await until(isSentAgain, { what: 'the announcement to be sent again' })
    await idle(server, 2, { exactly: true })
    assert.equal(await s.other.submit('work', 'next'), 'next')
  })

  for (const [name, forget] of [
    ['FLUSHALL', (s) => s.t.server.call('FLUSHALL')],
    ['restart', (s) => s.t.server.restart()],
  ] as [string, (s: Awaited<ReturnType<typeof wired>>) => Promise<unknown>][]) {
    test(`Q1 ${name} - idle workers register again: the next job runs within a second`, async () => {
      await using s = await wired({ unavailableAfter: 10_000 })
      s.queue.process('work', () => 'here')
      s.other.process('elsewhere', () => 'there', { concurrency: 3 })
      await idle(s.t.server, 1)
      await idle(s.t.server, 3, { command: 'elsewhere' })
      for (let round = 0; round < 2; round += 1) {
        await forget(s)
        const ms = await took(async () => {
          assert.equal(await s.queue.submit('work', round), 'here')
          assert.equal(await s.queue.submit('elsewhere', round), 'there')
        })
        // The restart and the reconnection take some time.
        assert.ok(ms < (name === 'restart' ? 3000 : 1000) + EPSILON, `it took ${ms} ms`)
      }
      await idle(s.t.server, 3, { command: 'elsewhere' })
    })

    test(`L1 ${name} - waiters for jobs that are lost fail, and running attempts are lost`, async () => {
      await using s = await wired({ lease: LEASE, unavailableAfter: 10_000 })
      const runs = new Runs()
      const end = pDefer<void>()
      runs.hold = end.promise
      s.other.process('work', runs.handler(), { concurrency: 2 })
      const running = s.queue.submit('work', 'running')
      await until(() => runs.now === 1, { what: 'the job to run' })
      const job = await s.queue.enqueue('nobody', 'waiting')
      const waits = [running, job.result(), s.queue.submit('nobody', 'waiting too')].map(settledBy)
      await until(async () => (await job.status())?.waiters === 1, { what: 'the park' })
      await forget(s)
      for (const { outcome, ms } of await Promise.all(waits)) {
        assert.equal(outcome, 'E_REMOVED')
        assert.ok(ms < LEASE + 3 * EPSILON, `it took ${ms} ms`)
      }
      end.resolve()
      await until(() => s.other.stats().lost === 1, { what: 'the worker to detect it' })
      await idle(s.t.server, 2)
      assert.equal(await s.queue.submit('work', 'again'), 'again')
    })
  }

  test('Q1 restart - with persistence: waiting, delayed and running jobs all end', async () => {
    await using t = await setup({ persistence: true })
    const options: QueueOptions = { redis: t.redis, lease: 3000, unavailableAfter: 10_000, timeout: 20_000 }
    await using worker = new RedisQueue(NAME, options)
    await using producer = new RedisQueue(NAME, options)
    const runs = new Runs()
    const end = pDefer<void>()
    runs.hold = end.promise
    // The slot is known before the first job, which would ask for it again otherwise: a slot that is offered twice gets a job
    // that the worker gives back, and that runs before its turn then.
    await subscribed(worker, producer)
    worker.process('work', runs.handler())
    await idle(t.server, 1)
    const first = producer.submit('work', 'running')
    await until(() => runs.now === 1, { what: 'the job to run' })
    const jobs = await producer.enqueueMany(
      [0, 1, 2, 3].map((payload) => ({
        command: 'work',
        payload,
        options: payload === 3 ? { delay: 500 } : { priority: payload },
      })),
    )
    const results = Promise.all(jobs.map((job) => job.result()))
    await t.server.restart()
    await subscribed(worker, producer)
    end.resolve()
    assert.equal(await first, 'running')
    assert.deepEqual(await results, [0, 1, 2, 3])
    assert.deepEqual(runs.payloads.slice(0, 3), ['running', 2, 1])
    assert.equal(runs.all.length, 5)
    await t.server.restart()
    assert.equal(await producer.submit('work', 0), 0)
    assert.equal(runs.all.length, 5)
  })
})

describe('the server is frozen or away', () => {
  test('Q1 L1 frozen - for longer than a lease: the job runs again, one result is accepted, all submitters receive it', async () => {
    await using s = await wired({ lease: LEASE, unavailableAfter: 300 })
    const runs = new Runs()
    const signals: AbortSignal[] = []
    for (const queue of [s.queue, s.other]) {
      const handler = runs.handler(200)
      queue.process('work', (payload, job) => {
        signals.push(job.signal)
        return handler(payload, job)
      })
    }
    const waits = [s.queue, s.other].map((queue) => queue.submit('work', 'v'))
    await until(() => runs.now === 1, { what: 'the job to run' })
    await s.t.server.freeze()
    const { outcome, ms } = await settledBy(s.queue.submit('work', 'new'))
    assert.equal(outcome, 'E_UNAVAILABLE')
    assert.ok(ms < 300 + EPSILON, `it took ${ms} ms`)
    await until(() => signals[0]?.aborted, { what: 'the signal' })
    await sleep(LEASE)
    s.t.server.thaw()
    assert.deepEqual(await Promise.all(waits), ['v', 'v'])
    assert.ok(runs.of('v') <= 2, `it ran ${runs.of('v')} times`)
    const fences = runs.all.filter(({ payload }) => payload === 'v').map(({ fence }) => fence)
    assert.equal(new Set(fences).size, fences.length)
    await over(s.other)
    await idle(s.t.server, 2)
  })

  test('L3 away at the start - workers and submitters that start before Redis are served when it is up', async () => {
    await using t = await setup({ proxy: true })
    await t.proxy.refuse(true)
    const options: QueueOptions = { redis: t.redis, lease: LONG }
    await using impatient = new RedisQueue(NAME, { ...options, unavailableAfter: 300 })
    await using patient = new RedisQueue(NAME, { ...options, unavailableAfter: 10_000 })
    impatient.process('work', (payload) => payload)
    const waiting = patient.submit('work', 'patient')
    const calls = [impatient.enqueue('work', 1), impatient.submit('work', 1), impatient.counts()]
    for (const { outcome, ms } of await Promise.all(calls.map(settledBy))) {
      assert.equal(outcome, 'E_UNAVAILABLE')
      assert.ok(ms < 300 + EPSILON, `it took ${ms} ms`)
    }
    await t.proxy.refuse(false)
    assert.equal(await waiting, 'patient')
    await idle(t.server, 1)
    assert.equal(await impatient.submit('work', 'now'), 'now')
    assert.equal(t.proxy.connections.filter(onCommands).length, 2)
  })
})

describe('a key of the queue is overwritten', () => {
  test('L1 hostile - a key of another type: a typed error in time, and recovery when it is deleted', async () => {
    await using s = await wired({ lease: LEASE, unavailableAfter: 500 })
    s.other.process('work', (payload) => payload, { concurrency: 2 })
    for (const key of [...names.shared, ...names.command('work')]) {
      await s.t.server.call('DEL', key)
      await s.t.server.call('SET', key, 'hostile')
      const calls = [
        s.queue.submit('work', `${key} 1`, { timeout: 1500 }),
        s.queue.enqueue('work', `${key} 2`),
        s.queue.enqueue('work', `${key} 3`, { delay: 1, priority: 2 }),
        s.queue.counts(),
        s.queue.pause('work').then(() => s.queue.resume('work')),
      ]
      for (const { outcome, ms } of await Promise.all(calls.map(settledBy))) {
        assert.ok(['result', 'E_UNAVAILABLE', 'E_TIMEOUT'].includes(outcome), `${key}: ${outcome}`)
        assert.ok(ms < 1500 + EPSILON, `${key}: ${ms} ms`)
      }
      await s.t.server.call('DEL', key)
      // Slots may be lost that the worker has offered. It offers them again when it subscribes again.
      await s.t.server.call('CLIENT', 'KILL', 'TYPE', 'pubsub')
      await s.queue.resume('work')
      const after = () => s.queue.submit('work', `${key} after`, { timeout: 1000 })
      assert.equal(await until(after, { what: `${key} to be repaired`, timeout: 5000 }), `${key} after`)
    }
  })

  test('Q1 hostile - the record of one job is overwritten: only that job is lost, others keep leases and delays', async () => {
    await using s = await wired({ lease: LEASE })
    const runs = new Runs()
    const end = pDefer<void>()
    runs.hold = end.promise
    s.other.process('work', runs.handler(), { concurrency: 5 })
    const jobs = await s.queue.enqueueMany([1, 2, 3].map((payload) => ({ command: 'work', payload })))
    const [first, ...results] = jobs.map((job) => settledBy(job.result()))
    const delayed = await s.queue.enqueue('work', 'delayed', { delay: 2 * LEASE })
    const hit = await s.queue.enqueue('work', 'hit', { delay: LEASE })
    await until(() => runs.now === 3, { what: 'all to run' })
    for (const id of [jobs[0]?.id ?? '', hit.id]) await s.t.server.call('SET', names.job(id), 'hostile')
    await until(() => runs.of('delayed') === 1, { what: 'the delayed job' })
    await sleep(LEASE)
    end.resolve()
    for (const each of results) assert.equal((await each).outcome, 'result')
    assert.equal(await delayed.result(), 'delayed')
    assert.equal((await first)?.outcome, 'E_REMOVED')
    assert.deepEqual(runs.payloads, [1, 2, 3, 'delayed'])
    await idle(s.t.server, 5)
  })
})
