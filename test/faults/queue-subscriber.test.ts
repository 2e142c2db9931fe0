import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import pDefer from 'p-defer'
import { onSubscription, settledBy } from '../support/locker-scene.ts'
import { EPSILON } from '../support/lockers.ts'
import { idle, NAME, over, Runs, subscribed, type WiredScene, wired } from '../support/queue-wire.ts'
import { took, until } from '../support/wait.ts'

/** Within this time a lost subscription is detected and restored, ms. */
const DETECTED = 2500

const LEASE = 1000
/** A delivery must be accepted within half a lease, and is checked every 1.4 leases at the latest. */
const GIVEN_BACK = 0.5 * LEASE + 1.4 * LEASE

/** A scene in which `queue`, or both, have an idle worker. */
async function working(other: boolean): Promise<WiredScene & { runs: Runs; others: Runs }> {
  const s = await wired({ lease: LEASE })
  const [runs, others] = [new Runs(), new Runs()]
  s.queue.process('work', runs.handler())
  await idle(s.t.server, 1)
  if (other) {
    s.other.process('work', others.handler())
    await idle(s.t.server, 2)
  }
  return Object.assign(s, { runs, others })
}

const hole = ({ t }: WiredScene) => {
  const [first] = t.proxy.connections.filter(onSubscription)
  t.proxy.blackhole(true, (connection) => connection === first)
}

describe('the subscription of a worker is lost', { concurrency: 2 }, () => {
  test('Q1 L3 black hole - a job that is pushed into it is requeued, and another worker runs it', async () => {
    await using s = await working(true)
    hole(s)
    const results = [1, 2, 3].map((payload) => s.other.submit('work', payload))
    const ms = await took(async () => assert.deepEqual(await Promise.all(results), [1, 2, 3]))
    assert.ok(ms < GIVEN_BACK + EPSILON, `it took ${ms} ms`)
    assert.equal(s.runs.all.length + s.others.all.length, 3)
  })

  test('Q1 L3 black hole - of the only worker: it runs the requeued job after it has subscribed again', async () => {
    await using s = await working(false)
    hole(s)
    const results = [1, 2, 3].map((payload) => s.other.submit('work', payload))
    const ms = await took(async () => assert.deepEqual(await Promise.all(results), [1, 2, 3]))
    assert.ok(ms < DETECTED + GIVEN_BACK + EPSILON, `it took ${ms} ms`)
    assert.equal(s.runs.all.length, 3)
    assert.equal(s.runs.most, 1)
  })

  test('Q1 L3 gap - while it cannot subscribe, other workers run all jobs at once; then it takes jobs again', async () => {
    await using s = await working(true)
    await s.t.proxy.refuse(true)
    s.t.proxy.cut(onSubscription)
    await until(() => !s.queue.stats().subscribed, { what: 'the loss to be detected' })
    const ms = await took(() => Promise.all([1, 2, 3, 4].map((payload) => s.other.submit('work', payload))))
    assert.ok(ms < EPSILON, `it took ${ms} ms`)
    assert.equal(s.others.all.length, 4)
    await s.t.proxy.refuse(false)
    await idle(s.t.server, 2)
    await s.other.pause()
    const jobs = await s.other.enqueueMany([5, 6].map((payload) => ({ command: 'work', payload })))
    s.others.hold = s.runs.hold = until(() => s.others.now + s.runs.now === 2, { what: 'both to work' })
    await s.other.resume()
    await Promise.all(jobs.map((job) => job.result()))
    assert.equal(s.runs.all.length, 1)
  })

  test('Q1 L3 gap - of the only worker: jobs that were submitted meanwhile run as soon as it has subscribed', async () => {
    await using s = await working(false)
    await s.t.proxy.refuse(true)
    s.t.proxy.cut(onSubscription)
    await until(() => !s.queue.stats().subscribed, { what: 'the loss to be detected' })
    const results = [1, 2].map((payload) => s.other.submit('work', payload))
    await until(async () => (await s.other.counts()).waiting === 2, { what: 'both to wait' })
    await s.t.proxy.refuse(false)
    const ms = await took(async () => assert.deepEqual(await Promise.all(results), [1, 2]))
    // Attempts to connect are at most a second apart.
    assert.ok(ms < 1000 + EPSILON, `it took ${ms} ms`)
  })

  test('Q1 L3 CLIENT KILL - of all subscribers, again and again under load: each job runs exactly once', async () => {
    await using s = await working(true)
    let killing = true
    let kills = 0
    const killed = (async () => {
      while (killing) {
        await s.t.server.call('CLIENT', 'KILL', 'TYPE', 'pubsub')
        kills += 1
        await new Promise((resolve) => setTimeout(resolve, 60))
      }
    })()
    let count = 0
    for (; kills < 15; count += 50) {
      const payloads = Array.from({ length: 50 }, (_, index) => count + index)
      const queue = count % 100 ? s.queue : s.other
      assert.deepEqual(await Promise.all(payloads.map((each) => queue.submit('work', each))), payloads)
    }
    killing = false
    await killed
    assert.equal(s.runs.all.length + s.others.all.length, count)
    assert.ok(s.runs.most === 1 && s.others.most === 1, `${s.runs.most} and ${s.others.most} at once`)
    await subscribed(s.queue, s.other)
    await over(s.other)
  })

  test('L3 cancel - of a job whose worker has lost its subscription: its signal aborts with the next renewal', async () => {
    await using s = await wired({ lease: LEASE })
    let [begun, aborted] = [false, false]
    s.queue.process('work', async (_, { signal }) => {
      begun = true
      await new Promise((resolve) => signal.addEventListener('abort', resolve))
      aborted = true
    })
    const job = await s.other.enqueue('work', 1)
    const result = settledBy(job.result())
    await until(() => begun, { what: 'the job to run' })
    hole(s)
    assert.equal(await job.cancel(), true)
    assert.equal((await result).outcome, 'E_REMOTE')
    const ms = await took(() => until(() => aborted, { what: 'the signal' }))
    assert.ok(ms < LEASE / 3 + 250 + EPSILON, `it took ${ms} ms`)
  })
})

describe('the subscription of a submitter is lost', { concurrency: 2 }, () => {
  for (const [name, lose] of [
    ['black hole', hole],
    ['CLIENT KILL', (s: WiredScene) => s.t.server.call('CLIENT', 'KILL', 'TYPE', 'pubsub')],
    [
      'gap',
      async (s: WiredScene) => {
        await s.t.proxy.refuse(true)
        s.t.proxy.cut(onSubscription)
      },
    ],
  ] as const) {
    test(`L3 ${name} - a waiter receives the result, or the failure, by the next poll`, async () => {
      await using s = await wired({ lease: LEASE })
      const gate = pDefer<void>()
      s.other.process(
        'work',
        async (payload) => {
          await gate.promise
          if (payload === 'failed') throw new Error('no paper')
          return payload
        },
        { concurrency: 3 },
      )
      const job = await s.queue.enqueue('work', 'asked for')
      const waits = [job.result(), s.queue.submit('work', 'v'), s.queue.submit('work', 'failed')].map(
        settledBy,
      )
      await until(async () => (await s.other.counts()).active === 3, { what: 'all to run' })
      await until(async () => (await job.status())?.waiters === 1, { what: 'the park' })
      await lose(s)
      gate.resolve()
      const start = performance.now()
      const outcomes = (await Promise.all(waits)).map(({ outcome }) => outcome)
      assert.deepEqual(outcomes, ['result', 'result', 'E_REMOTE'])
      assert.ok(performance.now() - start < LEASE + EPSILON, `it took ${performance.now() - start} ms`)
    })
  }

  test("L3 removed - a removal during the loss of a submitter's subscription is detected by the next poll", async () => {
    await using s = await wired({ lease: LEASE })
    const wait = settledBy(s.queue.submit('work', 1))
    await until(async () => (await s.other.counts()).waiting === 1, { what: 'the job to wait' })
    hole(s)
    const { jobs } = await s.other.jobs('waiting')
    assert.equal(await s.other.remove(jobs[0]?.id ?? NAME), true)
    const { outcome, ms } = await wait
    assert.equal(outcome, 'E_REMOVED')
    assert.ok(ms < 2 * LEASE + EPSILON, `it took ${ms} ms`)
  })
})
