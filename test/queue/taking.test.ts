// Jobs that are taken without a handler, and held by a token in any process.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  AbortedError,
  ClosedError,
  CodecError,
  isRemote,
  type JobEvent,
  JsonText,
  jsonTextCodec,
  MemoryQueueStore,
  RedisQueue,
  type TakenJob,
  UnavailableError,
} from '../../src/index.ts'
import { newId } from '../../src/kernel/keys.ts'
import type { QueueStore } from '../../src/queue/store/store.ts'
import { encodeToken, newSecret, tokenOf } from '../../src/queue/taking/token.ts'
import { Monitor } from '../support/monitor.ts'
import { onBothStores, onRedis, subscribed } from '../support/stores.ts'
import { rejectionOf, soon, took, until } from '../support/wait.ts'

const ODD = '{"a":1.0,"b":9007199254740993,"a":2}'
const LONG = 10_000
const DEPTH = 200_000

/** A job that is there. */
async function taken<Payload, Result>(
  taking: Promise<TakenJob<Payload, Result> | undefined>,
): Promise<TakenJob<Payload, Result>> {
  const job = await taking
  assert.ok(job, 'a job was taken')
  return job
}

function tampered(token: string, change: (parts: unknown[]) => void): string {
  const parts = JSON.parse(Buffer.from(token, 'base64url').toString()) as unknown[]
  change(parts)
  return Buffer.from(JSON.stringify(parts)).toString('base64url')
}

onBothStores('take - a job that is ready at once, in order, and none when there is none', async (world) => {
  const queue = world.open()
  await queue.ready()
  assert.equal(await queue.take('work'), undefined)
  for (const n of [1, 2, 3]) await queue.enqueue('work', n)
  await queue.enqueue('work', 'first', { priority: 1 })
  await queue.enqueue('other', 'of another command')
  const payloads: unknown[] = []
  for (let n = 0; n < 4; n++) {
    const job = await taken(queue.take('work'))
    assert.deepEqual([job.command, job.attempt], ['work', 1])
    payloads.push(job.payload)
  }
  assert.deepEqual(payloads, ['first', 1, 2, 3])
  assert.equal(await queue.take('work'), undefined)
  assert.equal((await queue.counts()).active, 4)
})

onBothStores('take - waits for a job, and no longer than it was told', async (world) => {
  const [queue, submitter] = [world.open(), world.open()]
  await subscribed(queue)
  const waited = await took(async () => assert.equal(await queue.take('work', { wait: 150 }), undefined))
  assert.ok(waited >= 150 && waited < 1000, `${waited} ms`)
  const taking = queue.take('work', { wait: LONG })
  assert.equal(await soon(taking, 50), 'pending')
  const result = submitter.submit('work', { n: 1 })
  const job = await taken(taking)
  assert.deepEqual([job.payload, job.payloadText], [{ n: 1 }, '{"n":1}'])
  assert.equal(await job.complete('done'), true)
  assert.equal(await result, 'done')
})

onBothStores('take - a job that was submitted is ready, whoever has waited for one before', async (world) => {
  const [queue, other, submitter] = [world.open(), world.open(), world.open()]
  await Promise.all([subscribed(queue), subscribed(other)])
  for (let n = 0; n < 60; n++) {
    // Takers that leave without a job, at once and after a wait.
    const left = [
      queue.take('work'),
      other.take('work', { wait: 1 + (n % 7) }),
      queue.take('work', { wait: 3 }),
    ]
    assert.deepEqual(await Promise.all(left), [undefined, undefined, undefined])
    const { id } = await submitter.enqueue('work', n)
    const job = await taken((n % 3 === 0 ? queue : other).take('work'))
    assert.deepEqual([job.id, job.payload], [id, n])
    assert.equal(await job.complete(n), true)
  }
})

onBothStores(
  'take - what is due is taken by the first call, in a queue that has taken nothing before',
  async (world) => {
    const submitter = world.open()
    await submitter.enqueue('work', 'delayed', { delay: 50 })
    await submitter.enqueue('work', 'dropped')
    await submitter.close()
    const first = world.open({ lease: 100 })
    assert.equal((await taken(first.take('work'))).payload, 'dropped')
    await first.close()
    // The delay and the lease end, and no process is there that would notice.
    await sleep(200)
    const payloads: unknown[] = []
    for (let n = 0; n < 2; n++) {
      const queue = world.open()
      payloads.push((await taken(queue.take('work'))).payload)
      await queue.close()
    }
    assert.deepEqual(payloads.sort(), ['delayed', 'dropped'])
    assert.equal(await world.open().take('work'), undefined)
  },
)

onBothStores('take - large payloads are read one by one, by whoever has the job', async (world) => {
  const queue = world.open()
  const payload = 'x'.repeat(900_000)
  const count = 20
  await queue.enqueueMany(
    Array.from({ length: count }, (_, n) => ({
      ...{ command: 'work', payload: [n, payload] },
      options: { dedupe: false as const },
    })),
  )
  const jobs = await Promise.all(Array.from({ length: count }, () => taken(queue.take('work'))))
  assert.deepEqual(
    jobs.map((job) => (job.payload as [number, string])[0]),
    Array.from({ length: count }, (_, n) => n),
  )
  assert.ok(jobs.every((job) => (job.payload as [number, string])[1] === payload))
})

onBothStores('take - takers get jobs in the order in which they came', async (world) => {
  const queue = world.open()
  await subscribed(queue)
  const payloads: unknown[] = []
  const takings = [1, 2, 3, 4, 5].map(async (n) => {
    const { payload } = await taken(queue.take('work', { wait: LONG }))
    payloads.push([n, payload])
  })
  await queue.enqueueMany([1, 2, 3, 4, 5].map((payload) => ({ command: 'work', payload })))
  await Promise.all(takings)
  assert.deepEqual(
    payloads,
    [1, 2, 3, 4, 5].map((n) => [n, n]),
  )
})

onBothStores('take - of many jobs at once leaves none behind', async (world) => {
  const queue = world.open({ unavailableAfter: 20_000 })
  await subscribed(queue)
  // One step does not assign so many bytes.
  const payload = 'x'.repeat(15_000)
  const count = 150
  await queue.enqueueMany(
    Array.from({ length: count }, () => ({ command: 'work', payload, options: { dedupe: false as const } })),
  )
  const jobs = await Promise.all(Array.from({ length: count }, () => queue.take('work')))
  assert.equal(jobs.filter(Boolean).length, count)
  assert.equal(new Set(jobs.map((job) => job?.id)).size, count)
})

onBothStores('take - a payload that is too large for a message, and none', async (world) => {
  const queue = world.open()
  const large = 'é'.repeat(40_000)
  await queue.enqueue('work', large)
  await queue.enqueue('work')
  assert.equal((await taken(queue.take('work'))).payload, large)
  const job = await taken(queue.take('work'))
  assert.deepEqual([job.payload, job.payloadText], [undefined, ''])
})

onBothStores('lease - of a taker that is gone runs out, and another taker gets the job', async (world) => {
  const queue = world.open({ lease: 1000, maxStalls: 1 })
  const result = queue.submit('work', 1)
  result.catch(() => {})
  const first = await taken(queue.take('work', { wait: LONG, lease: 200 }))
  const second = await taken(queue.take('work', { wait: LONG, lease: 200 }))
  assert.equal(second.id, first.id)
  assert.ok(second.fence > first.fence)
  assert.equal(second.attempt, 1, 'a stall is no failure')
  assert.equal((await queue.status(first.id))?.stalls, 1)
  for (const call of [first.complete(1), first.fail(1), first.release()]) assert.equal(await call, false)
  assert.equal(await first.renew(), 'lost')
  const failure = await rejectionOf(result)
  assert.ok(isRemote(failure) && failure.remote.code === 'E_STALLED', String(failure))
  assert.equal(await second.complete(1), false)
})

onBothStores('lease - runs out without a taker, and the job waits for the next', async (world) => {
  const queue = world.open({ lease: 400 })
  const job = await queue.enqueue('work', 1)
  await taken(queue.take('work', { lease: 100 }))
  const waits = async () => (await queue.status(job.id))?.state === 'waiting'
  await until(waits, { what: 'the job to be ready again' })
  assert.equal((await taken(queue.take('work'))).id, job.id)
})

onBothStores('lease - that is longer than that of the queue runs out as well', async (world) => {
  const queue = world.open({ lease: 100 })
  const job = await queue.enqueue('work', 1)
  const { id } = await taken(queue.take('work', { lease: 600 }))
  await sleep(300)
  assert.equal((await queue.status(id))?.state, 'active')
  const waits = async () => (await queue.status(job.id))?.state === 'waiting'
  await until(waits, { what: 'the job to be ready again' })
})

onBothStores('renew - holds the job, and says that it is lost or cancelled', async (world) => {
  const lease = 1000
  const [queue, other] = [world.open({ lease }), world.open({ lease })]
  await queue.enqueue('work', 1)
  const job = await taken(queue.take('work', { lease }))
  const competing = other.take('work', { wait: 1.8 * lease })
  let renewals = 0
  for (const end = Date.now() + 1.5 * lease; Date.now() < end; renewals++) {
    assert.equal(await queue.taken(job.token).renew(lease), 'held')
    await sleep(100)
  }
  assert.ok(renewals > 3)
  assert.equal(await competing, undefined)
  assert.equal(await queue.cancel(job.id), true)
  assert.equal(await job.renew(), 'cancelled')
  assert.equal(await job.complete(1), false)
  await assert.rejects(job.renew(99), TypeError)
  await assert.rejects(job.renew(Number.POSITIVE_INFINITY), TypeError)
})

onBothStores('token - finishes a job in another process', async (world) => {
  const [taker, other, submitter] = [world.open(), world.open(), world.open()]
  const shown: unknown[] = []
  const result = submitter.submit('work', 1, { onProgress: (value) => shown.push(value) })
  const { token, id, fence } = await taken(taker.take('work', { wait: LONG }))
  const job = other.taken(token)
  assert.deepEqual([job.id, job.fence, job.attempt, job.command], [id, fence, 1, 'work'])
  assert.deepEqual([job.payload, job.payloadText], [undefined, undefined])
  await job.progress({ done: 1 })
  await job.log('one', 'two')
  await taker.taken(token).log('three')
  assert.equal(await job.renew(), 'held')
  await until(() => shown.length === 1, { what: 'the progress' })
  assert.equal(await job.complete({ sum: 2 }), true)
  assert.deepEqual(await result, { sum: 2 })
  assert.deepEqual(await submitter.logs(id), ['one', 'two', 'three'])
  // A client that got no answer asks again.
  assert.equal(await other.taken(token).complete({ sum: 2 }), true)
  await job.log('four')
  await job.progress(2)
  assert.deepEqual(await submitter.logs(id), ['one', 'two', 'three'])
  assert.equal((await other.status(id))?.state, 'completed')
})

onBothStores('token - fails a job by the options of its submission', async (world) => {
  const [taker, other] = [world.open(), world.open()]
  const result = taker.submit('work', 1, { attempts: 3, backoff: 20, errorTtl: 60_000 })
  result.catch(() => {})
  const first = await taken(taker.take('work', { wait: LONG }))
  assert.equal(await other.taken(first.token).fail(new Error('once')), true)
  const second = await taken(taker.take('work', { wait: LONG }))
  assert.deepEqual([second.id, second.attempt], [first.id, 2])
  assert.equal(await second.fail(new Error('twice')), true)
  const third = await taken(taker.take('work', { wait: LONG }))
  assert.equal(await other.taken(third.token).fail(new Error('thrice')), true)
  await assert.rejects(result, /thrice/)
  await assert.rejects(taker.submit('work', 1), /thrice/, 'kept for its errorTtl')
})

onBothStores('token - fails a job for good, and gives it back uncounted', async (world) => {
  const [taker, other] = [world.open(), world.open()]
  const result = taker.submit('work', 1, { attempts: 9 })
  result.catch(() => {})
  for (let n = 0; n < 5; n++) {
    const job = await taken(taker.take('work', { wait: LONG }))
    assert.deepEqual([job.attempt, (await taker.status(job.id))?.stalls], [1, 0])
    assert.equal(await other.taken(job.token).release(), true)
  }
  const job = await taken(taker.take('work', { wait: LONG }))
  await assert.rejects(
    job.complete(() => {}),
    CodecError,
  )
  assert.equal(await job.renew(), 'held')
  assert.equal(await other.taken(job.token).fail(new Error('broken'), { retry: false }), true)
  await assert.rejects(result, /broken/)
})

onBothStores('token - that is forged, changed or of another queue touches no job', async (world) => {
  const [queue, elsewhere] = [world.open(), world.open({}, 'elsewhere')]
  await queue.enqueue('work', 1)
  await queue.enqueue('work', 2)
  const [job, neighbour] = [await taken(queue.take('work')), await taken(queue.take('work'))]
  const { token, id, fence } = job
  const before = await queue.status(id)
  const changes: ((parts: unknown[]) => void)[] = [
    (parts) => (parts[1] = 'other'),
    (parts) => (parts[2] = neighbour.id),
    (parts) => (parts[3] = 2),
    (parts) => (parts[4] = fence + 1),
    (parts) => (parts[5] = newId()),
    (parts) => (parts[6] = '{"a":0}'),
    (parts) => (parts[6] = null),
  ]
  const parts = { queue: 'queue', command: 'work', attempt: 1 }
  const forged = changes.map((change) => tampered(token, change))
  forged.push(
    // All that a token says of the other job is known but its secret.
    tampered(token, (parts) => parts.splice(2, 3, neighbour.id, 1, neighbour.fence)),
    encodeToken(tokenOf({ ...parts, id, fence, secret: newSecret() }, '')),
    encodeToken(tokenOf({ ...parts, id: newId(), fence: 1, secret: newSecret() }, '')),
  )
  for (const one of forged) {
    const forger = queue.taken(one)
    await forger.progress('forged')
    await forger.log('forged')
    assert.notEqual(await forger.renew(), 'held')
    for (const call of [forger.complete(1), forger.fail(1), forger.release()]) assert.equal(await call, false)
  }
  const garbage: unknown[] = [
    ...['', 'x', '%', `${token}!`, token.slice(1), token.slice(0, -4), 'a'.repeat(10_000_000), '\ud800'],
    ...[undefined, null, 1, {}, [token], { toString: () => token }, Buffer.from(token)],
    ...['null', '[]', '{}', '"x"', '['.repeat(4000)].map((text) => Buffer.from(text).toString('base64url')),
    tampered(token, (parts) => (parts[0] = 'elsewhere')),
    tampered(token, (parts) => (parts[1] = 'x'.repeat(257))),
    tampered(token, (parts) => (parts[2] = '{}')),
    tampered(token, (parts) => (parts[4] = 1e300)),
    tampered(token, (parts) => (parts[5] = 'short')),
    tampered(token, (parts) => parts.push(1)),
  ]
  for (const one of garbage) assert.throws(() => queue.taken(one as string), TypeError)
  assert.throws(() => elsewhere.taken(token), TypeError)
  assert.deepEqual(await queue.status(id), before)
  assert.deepEqual(await queue.logs(id), [])
  assert.equal((await queue.counts()).active, 2)
  assert.equal(await job.renew(), 'held')
  assert.equal(await neighbour.complete(1), true)
})

onBothStores('abort - of a taker that waits, and before the call', async (world) => {
  const queue = world.open()
  await subscribed(queue)
  const abort = new AbortController()
  const taking = queue.take('work', { wait: LONG, signal: abort.signal })
  abort.abort(new Error('gone'))
  const error = await rejectionOf(taking)
  assert.ok(error instanceof AbortedError && (error.cause as Error).message === 'gone')
  await assert.rejects(queue.take('work', { signal: abort.signal }), AbortedError)
  await queue.enqueue('work', 1)
  assert.equal((await taken(queue.take('work', { wait: LONG }))).payload, 1)
})

onBothStores('abort - at any moment loses no job, and counts none', async (world) => {
  const [queue, other] = [world.open(), world.open()]
  await Promise.all([subscribed(queue), subscribed(other)])
  const jobs = 60
  const done = new Set<unknown>()
  let aborted = 0
  let enqueued = 0
  const hurried = async () => {
    while (done.size < jobs) {
      const abort = new AbortController()
      const timer = setTimeout(() => abort.abort(), Math.random() * 6)
      try {
        const job = await queue.take('work', { wait: LONG, signal: abort.signal })
        // It has reached its taker, who is gone before it has said so.
        if (job && Math.random() < 0.3) assert.equal(await job.release(), true)
        else if (job && (await job.complete(job.payload))) done.add(job.payload)
      } catch (error) {
        assert.ok(error instanceof AbortedError, String(error))
        aborted++
      }
      clearTimeout(timer)
    }
  }
  const patient = async () => {
    while (done.size < jobs) {
      const job = await other.take('work', { wait: 100 })
      if (!job) continue
      assert.deepEqual([job.attempt, (await other.status(job.id))?.stalls], [1, 0])
      if (await job.complete(job.payload)) done.add(job.payload)
    }
  }
  const submitting = async () => {
    for (; enqueued < jobs; enqueued++) {
      await other.enqueue('work', enqueued, { dedupe: false })
      await sleep(Math.random() * 5)
    }
  }
  await Promise.all([hurried(), hurried(), hurried(), patient(), submitting()])
  assert.ok(aborted > 0)
  assert.equal(queue.stats().stalled + other.stats().stalled, 0)
  const { waiting, active } = await queue.counts()
  assert.deepEqual({ waiting, active }, { waiting: 0, active: 0 })
})

onBothStores('close - rejects takers that wait; what was taken stays with its token', async (world) => {
  const [queue, other] = [world.open(), world.open()]
  await queue.enqueue('work', 1)
  const job = await taken(queue.take('work'))
  const takings = [
    queue.take('work', { wait: LONG }),
    queue.take('other', { wait: Number.POSITIVE_INFINITY }),
  ]
  const errors = takings.map(rejectionOf)
  await queue.close()
  for (const error of await Promise.all(errors)) assert.ok(error instanceof ClosedError)
  await assert.rejects(queue.take('work'), ClosedError)
  await assert.rejects(job.complete(1), ClosedError)
  assert.throws(() => queue.taken(job.token), ClosedError)
  assert.equal(await other.taken(job.token).complete(1), true)
  await other.enqueue('work', 2)
  assert.equal((await taken(other.take('work'))).payload, 2, 'no job is delivered to a closed queue')
})

onBothStores('take - beside a handler of the same command', async (world) => {
  const queue = world.open()
  queue.process('work', (n) => `handled ${n}`)
  const results = Array.from({ length: 20 }, (_, n) => queue.submit('work', n))
  const taker = (async () => {
    for (;;) {
      const job = await queue.take('work', { wait: 300 })
      if (!job) return
      await job.complete(`taken ${job.payload}`)
    }
  })()
  for (const [n, result] of (await Promise.all(results)).entries())
    assert.match(String(result), RegExp(` ${n}$`))
  await taker
})

onBothStores('take - of delayed and paused jobs', async (world) => {
  const queue = world.open()
  await queue.enqueue('work', 1, { delay: 100 })
  assert.equal(await queue.take('work'), undefined)
  assert.equal((await taken(queue.take('work', { wait: LONG }))).payload, 1)
  await queue.pause()
  await queue.enqueue('work', 2)
  assert.equal(await queue.take('work', { wait: 50 }), undefined)
  const taking = queue.take('work', { wait: LONG })
  await queue.resume()
  assert.equal((await taken(taking)).payload, 2)
})

onBothStores('take - refuses wrong options', async (world) => {
  const queue = world.open()
  const wrong: object[] = [
    { lease: 99 },
    { lease: 1e12 },
    { wait: -1 },
    { wait: '1' },
    { signal: 1 },
    { waits: 1 },
  ]
  for (const options of wrong) await assert.rejects(queue.take('work', options), TypeError)
  await assert.rejects(queue.take(''), TypeError)
})

onBothStores('JsonText - a payload and a result come back byte for byte', async (world) => {
  const [queue, texts] = [world.open(), world.open({ codec: jsonTextCodec })]
  const values = queue.submit('work', JsonText.parse(ODD))
  const job = await taken(queue.take('work', { wait: LONG }))
  assert.equal(job.payloadText, ODD)
  assert.deepEqual(job.payload, JSON.parse(ODD))
  const asText = texts.submit('work', JsonText.parse(ODD))
  assert.equal(await queue.taken(job.token).complete(JsonText.parse(`[${ODD}]`)), true)
  assert.deepEqual(await values, [JSON.parse(ODD)])
  assert.equal(((await asText) as JsonText).text, `[${ODD}]`)
  const { result } = (await texts.status(job.id)) as { result: JsonText }
  assert.equal(result.text, `[${ODD}]`)
})

onBothStores('JsonText - of any depth passes through a queue', async (world) => {
  const queue = world.open({ codec: jsonTextCodec })
  const text = `${'['.repeat(DEPTH)}${']'.repeat(DEPTH)}`
  const result = queue.submit('work', JsonText.parse(text))
  const job = await taken(queue.take('work', { wait: LONG }))
  assert.equal(job.payloadText, text)
  assert.ok(Array.isArray(job.payload))
  assert.equal(await job.complete(JsonText.parse(text)), true)
  assert.equal(((await result) as JsonText).text, text)
})

onBothStores('JsonText - is the same job as a value with the same canonical text', async (world) => {
  const queue = world.open()
  const first = await queue.enqueue('work', { a: 1, b: 2 })
  assert.equal((await queue.enqueue('work', JsonText.parse('{"a":1,"b":2}'))).id, first.id)
  assert.notEqual((await queue.enqueue('work', JsonText.parse('{"b":2,"a":1}'))).id, first.id)
})

onBothStores('events - tell of taken jobs', async (world) => {
  const queue = world.open()
  const told: unknown[] = []
  for (const name of ['active', 'retrying', 'completed', 'failed'] as const)
    queue.on(name, (event: JobEvent & { ms?: number }) =>
      told.push([name, event.id, event.ms === undefined ? 0 : event.ms >= 0 && event.ms < 60_000]),
    )
  const { id } = await queue.enqueue('work', 1, { attempts: 2 })
  await (await taken(queue.take('work'))).fail(new Error('once'))
  await (await taken(queue.take('work', { wait: LONG }))).complete(1)
  await until(() => told.length === 4, { what: 'the events' })
  assert.deepEqual(told, [
    ['active', id, 0],
    ['retrying', id, true],
    ['active', id, 0],
    ['completed', id, true],
  ])
})

test('take - a hundred takers that wait cost few commands', async () => {
  await using world = await onRedis()
  const queue = world.open()
  await subscribed(queue)
  await using monitor = await Monitor.start(await world.t.client())
  const before = await monitor.clientCommands()
  const takings = Array.from({ length: 100 }, () => queue.take('work', { wait: 700 }))
  assert.deepEqual(await Promise.all(takings), Array(100).fill(undefined))
  const free = async () => (await world.t.server.call('LLEN', 'soloflight:1:{queue}i/work')) === 0
  await until(free, { what: 'no slot to be free' })
  const commands = (await monitor.clientCommands()) - before
  assert.ok(commands <= 20, `${commands} commands`)
})

test('take - takers that come one after the other while no job is ready are announced together', async () => {
  await using world = await onRedis()
  const queue = world.open()
  await subscribed(queue)
  await using monitor = await Monitor.start(await world.t.client())
  const before = await monitor.clientCommands()
  const abort = new AbortController()
  const takings: Promise<unknown>[] = []
  const ms = await took(async () => {
    for (let n = 0; n < 100; n++) {
      takings.push(rejectionOf(queue.take('work', { wait: LONG, signal: abort.signal })))
      await queue.counts()
    }
  })
  // Two are those of `counts`. An announcement is followed by a pause of 20 ms.
  const commands = (await monitor.clientCommands()) - before - 200
  abort.abort()
  await Promise.all(takings)
  assert.ok(commands <= 15 + ms / 15, `${commands} commands in ${ms} ms`)
})

test('take - jobs that are ready cost about three commands each', async () => {
  await using world = await onRedis()
  const queue = world.open()
  await subscribed(queue)
  await queue.enqueueMany(Array.from({ length: 200 }, (_, payload) => ({ command: 'work', payload })))
  await using monitor = await Monitor.start(await world.t.client())
  const scripts = async () =>
    (await monitor.lines()).filter(({ command }) => /^(eval|evalsha)$/.test(command)).length
  const before = await scripts()
  const loop = async () => {
    for (let job = await queue.take('work'); job; job = await queue.take('work')) await job.complete(1)
  }
  await Promise.all(Array.from({ length: 10 }, loop))
  assert.equal((await queue.counts()).waiting, 0)
  assert.equal(queue.stats().stalled, 0)
  const used = (await scripts()) - before
  assert.ok(used < 700, `${used} scripts`)
})

test('take - an idle queue that has taken costs no more commands', async () => {
  await using world = await onRedis()
  const queue = world.open({ lease: 100 })
  await queue.enqueue('work', 1)
  await (await taken(queue.take('work', { wait: LONG }))).complete(1)
  await using monitor = await Monitor.start(await world.t.client())
  const polls = async () => (await monitor.lines()).filter(({ command }) => command === 'zrange').length
  let last = -1
  const stopped = async () => {
    const now = await polls()
    const isSame = now === last
    last = now
    return isSame
  }
  await until(stopped, { what: 'the polls to stop', every: 400 })
})

test('take - while Redis is away: waits, and is rejected when its time has passed', async () => {
  await using world = await onRedis()
  const queue = world.open({ unavailableAfter: 200 })
  await subscribed(queue)
  await queue.take('work')
  await world.t.server.freeze()
  const error = await rejectionOf(queue.take('work', { wait: 50 }))
  assert.ok(error instanceof UnavailableError, String(error))
  world.t.server.thaw()
})

test('take - goes on when the subscription was lost', async () => {
  await using world = await onRedis()
  const [queue, other] = [world.open(), world.open()]
  await subscribed(queue)
  const taking = queue.take('work', { wait: LONG })
  const slots = async () => (await world.t.server.call('LLEN', 'soloflight:1:{queue}i/work')) === 1
  await until(slots, { what: 'the slot' })
  await world.t.server.call('CLIENT', 'KILL', 'TYPE', 'pubsub')
  await other.enqueue('work', 1)
  assert.equal((await taken(taking)).payload, 1)
})

test('take - finds a job that is ready while there is no subscription, and others wait', async () => {
  class UnsubscribedStore extends MemoryQueueStore {
    override connect(name: string): QueueStore {
      return Object.assign(super.connect(name), { subscribed: false })
    }
  }
  await using queue = new RedisQueue('queue', { store: new UnsubscribedStore() })
  const waiting = rejectionOf(queue.take('work', { wait: LONG }))
  assert.equal(await queue.take('work'), undefined)
  await queue.enqueue('work', 1)
  assert.equal((await taken(queue.take('work', { wait: LONG }))).payload, 1)
  await queue.close()
  assert.ok((await waiting) instanceof ClosedError)
})

onBothStores(
  'take - an end that is told again is accepted, counts once, and is no other end',
  async (world) => {
    const [queue, there] = [world.open(), world.open()]
    const events: string[] = []
    for (const opened of [queue, there])
      for (const event of ['completed', 'retrying', 'failed'] as const)
        opened.on(event, () => events.push(event))
    const enqueued = await queue.enqueue('work', 1, { attempts: 3 })
    const returned = await taken(queue.take('work'))
    assert.equal(await returned.release(), true)
    assert.equal(await there.taken(returned.token).release(), true)
    // A failure after it was given back would be another end.
    assert.equal(await there.taken(returned.token).fail(new Error('no')), false)
    const failed = await taken(queue.take('work'))
    assert.deepEqual([failed.attempt, failed.attempts], [1, 3])
    for (const held of [failed, there.taken(failed.token)])
      assert.equal(await held.fail(new Error('no')), true)
    assert.equal(await failed.release(), false)
    const done = await taken(queue.take('work'))
    assert.equal(done.attempt, 2)
    for (const held of [done, there.taken(done.token)]) assert.equal(await held.complete({ n: 1 }), true)
    assert.equal(await there.taken(done.token).complete({ n: 2 }), false)
    assert.equal(await done.fail(new Error('no')), false)
    // Those of the attempts before are told the same as ever.
    assert.equal(await there.taken(failed.token).fail(new Error('no')), true)
    assert.deepEqual(await enqueued.result(), { n: 1 })
    assert.equal(there.taken(done.token).attempts, 3)
    const counters = [queue.stats(), there.stats()].map(({ completed, retried, failed: dead }) => [
      completed,
      retried,
      dead,
    ])
    assert.deepEqual(counters, [
      [1, 1, 0],
      [0, 0, 0],
    ])
    assert.deepEqual(events, ['retrying', 'completed'])
  },
)
