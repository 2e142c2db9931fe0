import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import pDefer from 'p-defer'
import { queueScripts } from '../../src/queue/store/redis/scripts/index.ts'
import { LONG, onCommands } from '../support/locker-scene.ts'
import { Monitor } from '../support/monitor.ts'
import { idle, over, Runs, type WiredScene, wired } from '../support/queue-wire.ts'
import { until } from '../support/wait.ts'

/** Number of bytes of the reply that arrive before the connection ends. The shortest reply has 4 bytes. */
const OFFSETS = [0, 3, 9]

/** A lease that is renewed within a test, and would end in it otherwise. */
const SHORT = 1000

type Name = keyof typeof queueScripts

/** Cuts the next reply to this script after `offset` bytes. The returned function awaits that. */
function lose({ t }: WiredScene, name: Name, bytes = 0): () => Promise<boolean> {
  const fault = t.proxy.swallowReplyAfter(new RegExp(`^EVALSHA ${queueScripts[name].sha1} `), bytes)
  return () => until(() => fault.hits === 1, { what: `the reply to ${name} to be lost` })
}

/** Resolves when the retry has been answered, and its effects have ended. */
async function settled({ queue, other }: WiredScene): Promise<void> {
  // It is sent after the retry.
  await queue.counts()
  await over(other)
}

describe('a reply is lost with the connection', () => {
  for (const dedupe of [false, undefined] as const) {
    const kind = dedupe === false ? 'a job that is not deduplicated' : 'a job'
    test(`S6 submit - ${kind} runs once, and its result arrives`, async () => {
      await using s = await wired({ lease: LONG })
      const runs = new Runs()
      s.other.process('work', runs.handler(), { concurrency: 5 })
      await idle(s.t.server, 5)
      for (const bytes of OFFSETS) {
        const isLost = lose(s, 'submit', bytes)
        assert.equal(await s.queue.submit('work', bytes, { dedupe }), bytes)
        await isLost()
        await settled(s)
        assert.equal(runs.of(bytes), 1, `it ran ${runs.of(bytes)} times`)
      }
      await idle(s.t.server, 5)
    })

    test(`S6 enqueue - ${kind} that ends before the retry: it runs once`, async () => {
      await using s = await wired({ lease: LONG })
      const runs = new Runs()
      s.other.process('work', runs.handler(), { concurrency: 5 })
      await idle(s.t.server, 5)
      for (const bytes of OFFSETS) {
        const isLost = lose(s, 'submit', bytes)
        const job = await s.queue.enqueue('work', bytes, { dedupe })
        await isLost()
        // The retry is served what any equal submission would be served by then.
        const dispositions = dedupe === false ? ['created'] : ['created', 'cached']
        assert.ok(dispositions.includes(String(job.disposition)), job.disposition)
        assert.equal(await job.result(), bytes)
        await settled(s)
        assert.equal(runs.of(bytes), 1, `it ran ${runs.of(bytes)} times`)
      }
    })
  }

  test('S6 enqueue - of a waiting job: it exists once, and the retry reports it as created', async () => {
    await using s = await wired({ lease: LONG })
    for (const dedupe of [undefined, false, 'key'] as const) {
      for (const bytes of OFFSETS) {
        const isLost = lose(s, 'submit', bytes)
        const job = await s.queue.enqueue('work', `${dedupe}`, { dedupe })
        await isLost()
        assert.equal(job.disposition, 'created')
        assert.deepEqual((await s.other.counts()).waiting, 1)
        assert.ok(await s.other.remove(job.id), 'it is not there')
      }
    }
  })

  test('S6 submit - of an existing job: it joins once, and removes its one park', async () => {
    await using s = await wired({ lease: LONG, abortUnwanted: true })
    const job = await s.other.enqueue('work', 1)
    for (const bytes of OFFSETS) {
      const leaves = new AbortController()
      const isLost = lose(s, 'submit', bytes)
      const waiting = s.queue.submit('work', 1, { signal: leaves.signal })
      await isLost()
      await until(async () => (await job.status())?.waiters === 1, { what: 'the park' })
      await s.queue.counts()
      assert.equal((await job.status())?.waiters, 1)
      leaves.abort()
      await assert.rejects(waiting, { code: 'E_ABORTED' })
      await until(async () => (await job.status())?.waiters === 0, { what: 'the park to be removed' })
    }
  })

  test('S6 enqueueMany - several scripts in one flight: each job once, all created', async () => {
    await using s = await wired({ lease: LONG })
    const runs = new Runs()
    s.other.process('work', runs.handler(), { concurrency: 3 })
    await idle(s.t.server, 3)
    for (const [round, bytes] of [0, 30].entries()) {
      const isLost = lose(s, 'submit', bytes)
      const payloads = Array.from({ length: 40 }, (_, index) => `${round}.${index}`)
      const options = { dedupe: false } as const
      const jobs = await s.queue.enqueueMany(
        payloads.map((payload) => ({ command: 'work', payload, options })),
      )
      await isLost()
      assert.deepEqual(new Set(jobs.map((job) => job.disposition)), new Set(['created']))
      assert.deepEqual(await Promise.all(jobs.map((job) => job.result())), payloads)
      await settled(s)
      for (const payload of payloads) assert.equal(runs.of(payload), 1, `${payload} ran more than once`)
    }
  })

  test('S6 finish - the result is accepted once, and its slot is released once', async () => {
    await using s = await wired({ lease: LONG })
    const runs = new Runs()
    s.queue.process('work', runs.handler(), { concurrency: 2 })
    await idle(s.t.server, 2, { exactly: true })
    for (const bytes of OFFSETS) {
      const isLost = lose(s, 'finish', bytes)
      assert.equal(await s.other.submit('work', bytes, { dedupe: false }), bytes)
      await isLost()
      await until(() => s.queue.stats().completed + s.queue.stats().lost === runs.all.length, {
        what: 'the worker to detect it',
      })
      await idle(s.t.server, 2, { exactly: true })
    }
    assert.equal(s.queue.stats().lost, 0)
    assert.deepEqual(runs.payloads, OFFSETS)
    await parallel(s, runs, 2)
  })

  test('S6 finish - of a failure that is retried: exactly the configured number of attempts', async () => {
    await using s = await wired({ lease: LONG, attempts: 2 })
    const attempts: string[] = []
    s.queue.process('work', (payload, { attempt }) => {
      attempts.push(`${payload} ${attempt}`)
      throw new Error('no paper')
    })
    await idle(s.t.server, 1, { exactly: true })
    for (const bytes of OFFSETS) {
      const rejected = assert.rejects(s.other.submit('work', bytes), { code: 'E_REMOTE' })
      for (let times = 0; times < 2; times += 1) {
        const isLost = lose(s, 'finish', bytes)
        await isLost()
      }
      await rejected
      await idle(s.t.server, 1, { exactly: true })
    }
    assert.deepEqual(
      attempts,
      OFFSETS.flatMap((bytes) => [`${bytes} 1`, `${bytes} 2`]),
    )
  })

  test('S6 renew - the attempt goes on, and no other worker receives the job', async () => {
    await using s = await wired({ lease: SHORT })
    const end = pDefer<void>()
    let aborted = false
    let runs = 0
    s.queue.process('work', async (payload, { signal }) => {
      runs += 1
      await end.promise
      aborted = signal.aborted
      return payload
    })
    await idle(s.t.server, 1)
    s.other.process('work', () => {
      throw new Error('it was given away')
    })
    const result = s.other.submit('work', 'v')
    await until(() => runs === 1, { what: 'the job to run' })
    for (const bytes of OFFSETS) {
      const isLost = lose(s, 'renew', bytes)
      await isLost()
      const renewed = () => {
        const last = s.t.proxy.connections.findLast(onCommands)
        return (last?.commands.filter((name) => name === 'EVALSHA').length ?? 0) >= 2
      }
      await until(renewed, { what: 'the next renewal' })
    }
    end.resolve()
    assert.equal(await result, 'v')
    assert.equal(aborted, false)
    assert.equal(runs, 1)
  })

  test('S6 offer - never more jobs than slots, and all slots are used afterwards', async () => {
    for (const bytes of OFFSETS) {
      await using s = await wired({ lease: LONG })
      const payloads = Array.from({ length: 20 }, (_, index) => index)
      const jobs = await s.other.enqueueMany(payloads.map((payload) => ({ command: 'work', payload })))
      const runs = new Runs()
      const isLost = lose(s, 'setCapacity', bytes)
      s.queue.process('work', runs.handler(20), { concurrency: 3 })
      await isLost()
      await Promise.all(jobs.map((job) => job.result()))
      assert.ok(runs.most <= 3, `${runs.most} at once`)
      for (const payload of payloads) assert.equal(runs.of(payload), 1, `${payload} ran more than once`)
      await idle(s.t.server, 3)
      await parallel(s, runs, 3)
    }
  })

  test('S6 offer - of a worker that reconnects while its jobs run: its slots are not doubled', async () => {
    await using s = await wired({ lease: LONG })
    const runs = new Runs()
    s.queue.process('work', runs.handler(150), { concurrency: 3 })
    await idle(s.t.server, 3)
    for (let round = 0; round < 3; round += 1) {
      const payloads = Array.from({ length: 8 }, (_, index) => `${round}.${index}`)
      const jobs = await s.other.enqueueMany(payloads.map((payload) => ({ command: 'work', payload })))
      await until(() => runs.now === 3, { what: 'all slots to be used' })
      const isLost = lose(s, 'setCapacity', 5)
      assert.ok(
        Number(await s.t.server.call('CLIENT', 'KILL', 'TYPE', 'pubsub')) >= 2,
        'no subscriber was killed',
      )
      await isLost()
      await Promise.all(jobs.map((job) => job.result()))
      assert.ok(runs.most <= 3, `${runs.most} at once`)
      await idle(s.t.server, 3)
    }
  })

  test('S6 take - one job is taken, and its taker has it', async () => {
    await using s = await wired({ lease: LONG })
    for (const bytes of [...OFFSETS, 60]) {
      await s.other.enqueueMany(
        [1, 2, 3].map((n) => ({ command: 'work', payload: [bytes, n], options: { dedupe: false as const } })),
      )
      const isLost = lose(s, 'take', bytes)
      // Three in one call, the last of another lease.
      const jobs = await Promise.all(
        [LONG, LONG, 2 * LONG].map((lease) => s.queue.take('work', { lease: lease as number })),
      )
      await isLost()
      assert.deepEqual(
        jobs.map((job) => job?.payload),
        [1, 2, 3].map((n) => [bytes, n]),
      )
      for (const job of jobs) assert.equal(await job?.complete(1), true)
      assert.deepEqual(await s.other.counts(), { waiting: 0, delayed: 0, active: 0, completed: 0, failed: 0 })
      assert.equal(await s.queue.take('work'), undefined)
    }
  })

  test('S6 take - a call that was given up, and was run later: its job goes back', async () => {
    await using s = await wired({ lease: LONG, unavailableAfter: 200 })
    await s.queue.take('work')
    const { id } = await s.other.enqueue('work', 1)
    await using monitor = await Monitor.start(await s.t.client())
    // A job that was found is given back: the call had been run by then.
    const returns = async () => {
      const lines = await monitor.lines()
      return lines.filter(({ args: [sha] }) => sha === queueScripts.finish.sha1).length
    }
    for (const lease of [LONG, 4 * LONG]) {
      const before = await returns()
      await s.t.server.freeze()
      await assert.rejects(s.queue.take('work', { lease }), { code: 'E_UNAVAILABLE' })
      s.t.server.thaw()
      await until(async () => (await returns()) > before, { what: 'the job to be found' })
      await until(async () => (await s.other.status(id))?.state === 'waiting', { what: 'the job to go back' })
    }
    const job = await s.other.take('work')
    assert.deepEqual([job?.attempt, (await s.other.status(id))?.stalls], [1, 0])
  })

  test('S6 take - a taker whose wait has passed leaves no slot to which a job could go', async () => {
    await using s = await wired({ lease: LONG })
    // What it says arrives late at the server.
    s.t.proxy.delay(40, { direction: 'up', only: onCommands })
    for (let n = 0; n < 5; n++) {
      assert.equal(await s.queue.take('work', { wait: 100 }), undefined)
      await s.other.enqueue('work', n)
      assert.equal((await s.other.take('work'))?.payload, n)
    }
  })

  test('S6 cancel - the job ends once, for all, and its slot is free', async () => {
    await using s = await wired({ lease: LONG })
    let aborted = 0
    s.other.process('work', async (_, { signal }) => {
      await new Promise((resolve) => signal.addEventListener('abort', resolve))
      aborted += 1
    })
    await idle(s.t.server, 1, { exactly: true })
    for (const [index, bytes] of OFFSETS.entries()) {
      const job = await s.other.enqueue('work', bytes)
      const rejected = assert.rejects(job.result(), { code: 'E_REMOTE' })
      await until(async () => (await job.status())?.state === 'active', { what: 'the job to run' })
      const isLost = lose(s, 'terminate', bytes)
      await s.queue.cancel(job.id)
      await isLost()
      await rejected
      await until(() => aborted === index + 1, { what: 'the handler to end' })
      await idle(s.t.server, 1, { exactly: true })
      assert.equal((await job.status())?.state, 'failed')
    }
  })

  test('S6 retry, pause, resume - a failed job runs again, and the queue goes on', async () => {
    await using s = await wired({ lease: LONG })
    let runs = 0
    s.other.process('work', () => {
      runs += 1
      throw new Error('no paper')
    })
    const job = await s.other.enqueue('work', 1)
    await assert.rejects(job.result(), { code: 'E_REMOTE' })
    for (const name of ['pause', 'resume'] as const) {
      const isLost = lose(s, name)
      await s.queue[name]()
      await isLost()
    }
    const isLost = lose(s, 'retry')
    await s.queue.retry(job.id)
    await isLost()
    await settled(s)
    await idle(s.t.server, 1, { exactly: true })
    // If the job has failed before the retry of the command, it runs once more.
    assert.ok(runs === 2 || runs === 3, `it ran ${runs} times`)
  })

  test('S6 log - each line once, in order, and none is lost', async () => {
    await using s = await wired({ lease: LONG })
    let gate = pDefer()
    s.queue.process('work', async (_, job) => {
      job.log('first')
      job.log('second')
      await gate.promise
      job.log('third')
      await Promise.resolve()
      job.log('last')
    })
    await idle(s.t.server, 1)
    for (const bytes of OFFSETS) {
      gate = pDefer()
      const isLost = lose(s, 'appendLog', bytes)
      const job = await s.other.enqueue('work', bytes)
      await isLost()
      // It is sent after the retry, while the job still runs.
      await s.queue.counts()
      gate.resolve()
      await job.result()
      await settled(s)
      assert.deepEqual(await job.logs(), ['first', 'second', 'third', 'last'])
    }
  })

  test('S6 cut - a connection that ends in the middle of any command: each job runs once', async () => {
    await using s = await wired({ lease: LONG })
    const runs = new Runs()
    s.queue.process('work', runs.handler(), { concurrency: 2 })
    await idle(s.t.server, 2, { exactly: true })
    for (const bytes of [1, 60, 180, 420, 700]) {
      const fault = s.t.proxy.cutAfter(bytes, 'up', { only: onCommands })
      const results = [1, 2, 3].map((each) => s.queue.submit('work', `${bytes}.${each}`, { dedupe: false }))
      await Promise.all(results)
      await fault.struck
      await settled(s)
    }
    assert.equal(runs.all.length, 15)
    assert.equal(new Set(runs.payloads).size, 15)
    await idle(s.t.server, 2, { exactly: true })
  })
})

/** Asserts that `count` jobs run at once, and no more. */
async function parallel({ other }: WiredScene, runs: Runs, count: number): Promise<void> {
  const gate = pDefer<void>()
  runs.hold = gate.promise
  const payloads = Array.from({ length: 3 * count }, (_, index) => `parallel ${index}`)
  const results = payloads.map((payload) => other.submit('work', payload))
  await until(() => runs.now === count, { what: `${count} to run at once` })
  gate.resolve()
  await Promise.all(results)
  assert.equal(runs.most, count)
}
