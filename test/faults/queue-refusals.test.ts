import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import pDefer from 'p-defer'
import { type QueueOptions, RedisQueue, UnavailableError } from '../../src/index.ts'
import { settledBy } from '../support/locker-scene.ts'
import { EPSILON } from '../support/lockers.ts'
import { idle, NAME, over, Runs, subscribed, wired } from '../support/queue-wire.ts'
import { setup } from '../support/setup.ts'
import { rejectionOf, until } from '../support/wait.ts'

/** A lease that ends within a test unless it is renewed. */
const LEASE = 600

/** The message of Redis in the error. */
function said(error: unknown): string {
  assert.ok(error instanceof UnavailableError, `Expected an UnavailableError, got ${error}`)
  return `${error.message} ${error.cause}`
}

test('ACL - a queue needs no other commands than those that docs/operations.md lists', async () => {
  const page = await readFile(new URL('../../docs/operations.md', import.meta.url), 'utf8')
  const rowOf = (what: string) => new RegExp(`^\\| ${what} \\| \`(\\+[^\`]+)\``, 'm').exec(page)?.[1] ?? ''
  const [needed, ofQueues] = [rowOf('everything'), rowOf('queues')]
  assert.ok(needed !== '' && ofQueues !== '', 'the page lists them otherwise')
  await using t = await setup()
  const rules = [...needed.split(' '), ...ofQueues.split(' ')]
  await t.server.call('ACL', 'SETUSER', 'queues', 'on', '>secret', '~soloflight:*', '&soloflight:*', ...rules)
  const redis = { ...t.redis, username: 'queues', password: 'secret' }
  const retain = { completed: { count: 1, age: 60_000 } }
  await using queue = new RedisQueue(NAME, { redis, lease: LEASE, retain, timeout: 5000 })
  await queue.paused()
  await until(() => queue.stats().subscribed, { what: 'the subscription' })
  queue.process('work', async (payload, job) => {
    job.progress(1)
    job.log('a line')
    await sleep(LEASE)
    return String(payload).length
  })
  assert.equal(await queue.submit('work', 'x'.repeat(100_000)), 100_000)
  assert.equal(await queue.submit('work', 'soon', { delay: 10, priority: 2 }), 4)
  const job = await queue.enqueue('none', 1, { priority: 1 })
  await queue.enqueue('none', 2, { lifo: true })
  assert.equal((await job.status())?.state, 'waiting')
  assert.equal(await job.cancel(), true)
  assert.equal(await job.retry(), true)
  await queue.pause()
  await queue.resume()
  assert.equal(await queue.drain({ delayed: true }), 2)
  assert.equal((await queue.jobs('completed')).jobs.length, 1)
  assert.equal((await queue.logs(job.id)).length, 0)
})

describe('the server refuses', { concurrency: 3 }, () => {
  test('Q1 L1 OOM - new jobs are refused; existing jobs run, are renewed, assigned, retried and cancelled', async () => {
    const lease = 1000
    await using s = await wired({ lease, attempts: 2 })
    const end = pDefer<void>()
    const runs: string[] = []
    s.other.process('work', async (payload, { attempt, signal }) => {
      runs.push(`${payload} ${attempt}`)
      if (payload === 'held') await end.promise
      if (payload === 'three') await sleep(1.5 * lease)
      assert.ok(!signal.aborted, 'the lease was lost')
      if (payload === 'twice' && attempt === 1) throw new Error('no paper')
      return payload
    })
    const held = s.queue.submit('work', 'held')
    await until(() => runs.length === 1, { what: 'the job to run' })
    const waiting = ['one', 'twice', 'three'].map((payload) => s.queue.submit('work', payload))
    const later = s.queue.submit('work', 'later', { delay: 1 })
    for (const each of [held, later, ...waiting]) each.catch(() => {})
    const unwanted = await s.queue.enqueue('work', 'unwanted')
    await until(async () => (await s.queue.counts()).waiting === 5, { what: 'all to wait' })
    await s.t.server.call('CONFIG', 'SET', 'maxmemory', 1)
    for (const options of [{}, { dedupe: false }, { delay: 10 }, { priority: 1 }, { lifo: true }] as const) {
      const start = performance.now()
      assert.match(said(await rejectionOf(s.queue.submit('work', 'new', options))), /OOM/)
      const error = await rejectionOf(s.queue.enqueue('work', 'new', options))
      assert.match(String((error as Error).cause), /OOM/)
      assert.ok(performance.now() - start < EPSILON, 'it took long')
    }
    // Without renewals the lease would expire.
    await sleep(1.5 * lease)
    assert.deepEqual(runs, ['held 1'])
    assert.equal(await unwanted.cancel(), true)
    end.resolve()
    assert.deepEqual(await Promise.all([held, ...waiting, later]), ['held', 'one', 'twice', 'three', 'later'])
    assert.ok(runs.includes('twice 2') && runs.length === 6, runs.join())
    // A new worker is accepted, and earlier results are served.
    s.queue.process('more', () => 'more')
    assert.equal(await s.queue.submit('work', 'one'), 'one')
    await s.t.server.call('CONFIG', 'SET', 'maxmemory', 0)
    assert.equal(await s.queue.submit('more'), 'more')
    await over(s.other)
  })

  test('Q1 OOM - a new worker receives the waiting jobs', async () => {
    await using s = await wired({ lease: LEASE })
    const jobs = await s.queue.enqueueMany([1, 2, 3].map((payload) => ({ command: 'work', payload })))
    await s.t.server.call('CONFIG', 'SET', 'maxmemory', 1)
    const runs = new Runs()
    s.other.process('work', runs.handler(), { concurrency: 2 })
    await until(() => runs.all.length === 3, { what: 'all to run' })
    for (const [index, job] of jobs.entries()) assert.equal(await job.result(), index + 1)
  })

  for (const [name, said_, begin, end] of [
    [
      'READONLY',
      /READONLY|did not answer|not connected/,
      ['REPLICAOF', '127.0.0.1', 1],
      ['REPLICAOF', 'NO', 'ONE'],
    ],
    [
      'NOPERM',
      /NOPERM/,
      ['ACL', 'SETUSER', 'default', '-evalsha'],
      ['ACL', 'SETUSER', 'default', '+evalsha'],
    ],
    [
      'NOREPLICAS',
      /NOREPLICAS/,
      ['CONFIG', 'SET', 'min-replicas-to-write', 1],
      ['CONFIG', 'SET', 'min-replicas-to-write', 0],
    ],
    [
      'CLIENT PAUSE',
      /did not answer|not connected/,
      ['CLIENT', 'PAUSE', 60_000, 'WRITE'],
      ['CLIENT', 'UNPAUSE'],
    ],
  ] as [string, RegExp, [string, ...(string | number)[]], [string, ...(string | number)[]]][]) {
    test(`Q1 L1 ${name} - a typed error in time; accepted jobs run when it ends`, async () => {
      await using s = await wired({ lease: LEASE, unavailableAfter: 400 })
      const runs = new Runs()
      const gate = pDefer<void>()
      runs.hold = gate.promise
      s.other.process('work', runs.handler())
      const accepted = Promise.all([1, 2].map((payload) => s.queue.submit('work', payload)))
      // What fails first is told, not that these are closed with their queue.
      accepted.catch(() => {})
      await until(() => runs.now === 1, { what: 'the job to run' })
      await until(async () => (await s.queue.counts()).waiting === 1, { what: 'the other to wait' })
      await s.t.server.call(...begin)
      const start = performance.now()
      assert.match(said(await rejectionOf(s.queue.submit('work', 'new'))), said_)
      assert.ok(performance.now() - start < 400 + EPSILON, `it took ${performance.now() - start} ms`)
      await sleep(2 * LEASE)
      await s.t.server.call(...end)
      gate.resolve()
      assert.deepEqual(await accepted, [1, 2])
      const again = () => s.queue.submit('work', 'new')
      assert.equal(await until(again, { what: 'the end of it', timeout: 10_000 }), 'new')
      await idle(s.t.server, 1)
    })
  }

  test('Q1 L1 NOPERM on the channels - jobs wait, submitters fail in time; all jobs run once it is allowed', async () => {
    await using s = await wired({ lease: LEASE, maxStalls: 1 })
    const runs = new Runs()
    // A job that cannot reach one worker is pushed to the other next. That must not count as lost twice.
    for (const queue of [s.queue, s.other]) queue.process('work', runs.handler(), { concurrency: 2 })
    await idle(s.t.server, 4)
    await s.t.server.call('ACL', 'SETUSER', 'default', 'resetchannels')
    const job = await s.queue.enqueue('work', 1)
    const { outcome, ms } = await settledBy(s.queue.submit('work', 2, { timeout: 4 * LEASE }))
    assert.equal(outcome, 'E_TIMEOUT')
    assert.ok(ms < 4 * LEASE + EPSILON, `it took ${ms} ms`)
    assert.equal(runs.all.length, 0)
    await s.t.server.call('ACL', 'SETUSER', 'default', 'allchannels')
    assert.deepEqual(await Promise.all([job.result(), s.queue.submit('work', 2)]), [1, 2])
    assert.deepEqual(runs.payloads.sort(), [1, 2])
    await idle(s.t.server, 4)
  })

  test('Q1 L1 LOADING - a typed error in time, or a result for calls with a long unavailableAfter; waiting jobs run', async () => {
    // Slow on purpose: 1500 keys of a millisecond each, and the server serves clients between them.
    await using t = await setup({
      args: ['--key-load-delay', '1000', '--loading-process-events-interval-bytes', '1024'],
    })
    const options: QueueOptions = { redis: t.redis, lease: LEASE }
    await using worker = new RedisQueue(NAME, { ...options, unavailableAfter: 400 })
    await using patient = new RedisQueue(NAME, { ...options, unavailableAfter: 10_000 })
    await subscribed(worker, patient)
    const jobs = await patient.enqueueMany([1, 2, 3].map((payload) => ({ command: 'work', payload })))
    await t.server.call('DEBUG', 'POPULATE', 1500)
    await t.server.call('SAVE')
    const restarted = t.server.restart()
    const observer = await until(() => t.client({ enableReadyCheck: false, disableClientInfo: true }), {
      what: 'the server to listen',
    })
    const isLoading = () =>
      observer.get('any').then(
        () => false,
        (error: Error) => error.message.startsWith('LOADING'),
      )
    await until(isLoading, { what: 'the server to be loading' })
    const runs = new Runs()
    worker.process('work', runs.handler())
    const start = performance.now()
    const waiting = patient.submit('work', 'patient')
    assert.match(said(await rejectionOf(worker.submit('work', 'impatient'))), /LOADING|not connected/)
    assert.ok(performance.now() - start < 400 + EPSILON, `it took ${performance.now() - start} ms`)
    assert.ok(await isLoading(), 'it has been loaded too early')
    await restarted
    assert.equal(await waiting, 'patient')
    for (const [index, job] of jobs.entries()) assert.equal(await job.result(), index + 1)
    assert.equal(await worker.submit('work', 'impatient'), 'impatient')
  })
})
