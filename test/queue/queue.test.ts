// Payloads, results and failures.

import assert from 'node:assert/strict'
import pDefer from 'p-defer'
import { CodecError, ConflictError, Job, RemoteError, type RunningJob } from '../../src/index.ts'
import { onBothStores, subscribed } from '../support/stores.ts'
import { until } from '../support/wait.ts'

onBothStores('queue - a submitter receives the result of a handler elsewhere', async (w) => {
  const [here, there] = [w.open(), w.open({ trace: () => '00-4bf92f3577b34da6a3ce929d0e0e4736-01' })]
  const seen: { payload: unknown; job: RunningJob }[] = []
  here.process('add', (payload: number[], job) => {
    seen.push({ payload, job })
    return payload.reduce((a, b) => a + b)
  })
  assert.equal(await there.submit('add', [2, 3, 4]), 9)
  assert.equal(seen.length, 1)
  const { payload, job } = seen[0] ?? assert.fail('nothing ran')
  const { id, queue, command, attempt, stalls, fence, signal, trace } = job
  assert.deepEqual(payload, [2, 3, 4])
  assert.deepEqual(job.payload, [2, 3, 4])
  assert.deepEqual(
    { queue, command, attempt, stalls },
    { queue: 'queue', command: 'add', attempt: 1, stalls: 0 },
  )
  assert.match(id, /^[\w-]{32}$/)
  assert.ok(Number.isSafeInteger(fence) && fence > 0, `the fence ${fence}`)
  assert.equal(signal.aborted, false)
  assert.equal(trace, '00-4bf92f3577b34da6a3ce929d0e0e4736-01')
})

onBothStores('queue - payloads of every kind arrive as they are', async (w) => {
  const [here, there] = [w.open(), w.open()]
  const seen: unknown[] = []
  here.process('echo', (payload) => void seen.push(payload))
  const deep: unknown = JSON.parse(`${'['.repeat(900)}${']'.repeat(900)}`)
  const payloads = [
    ...[undefined, null, false, true, 0, 1.5, 1e21, 1e-7, 2 ** 53, '', 'text', 'a\0\r\n😀', [], {}],
    ...[[1, [2, [null]]], { a: { b: [null, false] } }, 'x'.repeat(63), 'x'.repeat(62), 'x'.repeat(64)],
    ...['x'.repeat(1022), 'x'.repeat(1023), 'é'.repeat(300), 'x'.repeat(300_000), deep],
  ]
  for (const payload of payloads) await there.submit('echo', payload, { dedupe: false })
  assert.deepStrictEqual(seen, payloads)
  await there.submit('echo')
  assert.equal(seen.at(-1), undefined)
  await there.submit('echo', { a: 1, gone: undefined })
  assert.deepStrictEqual(seen.at(-1), { a: 1 })
})

onBothStores('queue - results of every kind that the codec carries come back as they are', async (w) => {
  const [here, there] = [w.open(), w.open()]
  const results = [
    ...[undefined, null, false, 0, -0, Number.NaN, Number.NEGATIVE_INFINITY, '', 'text', '\ud800'],
    ...[
      Buffer.from([0, 255, 10]),
      Buffer.alloc(0),
      new Uint16Array([1, 2]),
      { a: [undefined, -0] },
      { $: 1 },
    ],
    ...['x'.repeat(300_000), Buffer.alloc(300_000, 7), JSON.parse('{"__proto__":1}')],
  ]
  here.process('make', (index: number) => results[index])
  for (const [index, result] of results.entries()) {
    assert.deepStrictEqual(await there.submit('make', index), result)
    const job = await there.enqueue('make', index)
    assert.equal(job.disposition, 'cached')
    assert.deepStrictEqual(await job.result(), result)
    const status = await job.status()
    assert.equal(status?.state, 'completed')
    assert.deepStrictEqual(status?.result, result)
  }
})

onBothStores('queue - what a handler throws reaches whoever waits, as data', async (w) => {
  const [here, there] = [w.open(), w.open()]
  class CardError extends Error {
    override name = 'CardError'
    code = 'E_CARD'
    amount = 5
    raw = Buffer.from('raw')
    secret = () => 'stays'
  }
  here.process('charge', async () => {
    throw new CardError('declined', { cause: Object.assign(new TypeError('no funds'), { account: 7 }) })
  })
  const job = await there.enqueue('charge', undefined, { errorTtl: 60_000 })
  for (const failing of [() => there.submit('charge'), () => job.result()]) {
    const error: unknown = await failing().catch((error) => error)
    assert.ok(error instanceof RemoteError, `${error}`)
    assert.equal(error.message, 'declined')
    assert.equal(error.key, job.id)
    assert.deepEqual(error.remote, {
      name: 'CardError',
      message: 'declined',
      code: 'E_CARD',
      fields: { amount: 5, raw: Buffer.from('raw') },
      cause: { name: 'TypeError', message: 'no funds', fields: { account: 7 } },
    })
    assert.ok(error.cause instanceof RemoteError && error.cause.message === 'no funds', 'its cause')
    assert.doesNotMatch(JSON.stringify(error.remote), /queue\.test/, 'no stack travels')
  }
  const status = await job.status()
  assert.deepEqual([status?.state, status?.failure?.code], ['failed', 'E_CARD'])
})

onBothStores('queue - what is thrown need not be an error', async (w) => {
  const queue = w.open()
  const thrown: [unknown, string][] = [
    ['text', 'text'],
    [undefined, 'undefined'],
    [null, 'null'],
    [5n, '5'],
    [Symbol('sign'), 'Symbol(sign)'],
    [() => 'x', 'A function was thrown'],
    [{ message: 'an object' }, 'an object'],
    [Object.create(null), ''],
    [new Proxy({}, { get: () => assert.fail('no reading'), ownKeys: () => assert.fail('no listing') }), ''],
  ]
  queue.process('throw', (index: number) => {
    throw thrown[index]?.[0]
  })
  for (const [index, [, message]] of thrown.entries()) {
    await assert.rejects(queue.submit('throw', index), (error) => {
      assert.ok(error instanceof RemoteError, `${index}: ${error}`)
      assert.equal(error.message, message, `${index}`)
      return true
    })
  }
})

onBothStores(
  'queue - a result that cannot be carried fails the job at once, with the path to it',
  async (w) => {
    const queue = w.open()
    const cycle: Record<string, unknown> = {}
    cycle['self'] = cycle
    const results: [unknown, RegExp][] = [
      [{ at: new Date() }, /Date at \$\.at/],
      [[1, new Map()], /Map at \$\[1\]/],
      [{ big: 5n }, /bigint at \$\.big/],
      [() => 1, /function at \$ /],
      [cycle, /cycle at \$\.self/],
    ]
    let runs = 0
    queue.process('make', (index: number) => {
      runs++
      return results[index]?.[0]
    })
    for (const [index, [, message]] of results.entries()) {
      await assert.rejects(queue.submit('make', index, { attempts: 3 }), (error) => {
        assert.ok(error instanceof RemoteError && error.remote.code === 'E_CODEC', `${index}: ${error}`)
        assert.match(error.message, message)
        return true
      })
    }
    assert.equal(runs, results.length, 'another attempt would end the same way')
  },
)

onBothStores('queue - exposeError decides what of a failure leaves the process', async (w) => {
  const told: unknown[] = []
  const here = w.open({
    exposeError: (failure, error) => {
      told.push(error)
      if (failure.message === 'hook fails') throw new Error('secret')
      if (failure.message === 'hook lies') return { name: 'Error', message: 'x', fields: { now: new Date() } }
      return { name: failure.name, message: 'hidden' }
    },
  })
  const there = w.open()
  here.process('fail', (message: string) => {
    throw Object.assign(new Error(message), { token: 'secret' })
  })
  const failureOf = (message: string) =>
    there.submit('fail', message).then(
      () => assert.fail('it failed'),
      (error: RemoteError) => error.remote,
    )
  assert.deepEqual(await failureOf('plain'), { name: 'Error', message: 'hidden' })
  assert.ok(told[0] instanceof Error && 'token' in told[0], 'the hook sees the original')
  assert.deepEqual(await failureOf('hook fails'), { name: 'Error', message: 'The work failed' })
  assert.match((await failureOf('hook lies')).message, /cannot be encoded/)
})

onBothStores('queue - enqueue returns a job that can be asked for later, from anywhere', async (w) => {
  const [here, there] = [w.open(), w.open()]
  const job = await there.enqueue('wait', { n: 1 })
  assert.ok(job instanceof Job, 'a Job')
  assert.deepEqual([job.command, job.disposition], ['wait', 'created'])
  assert.ok(Number.isSafeInteger(job.generation), `generation ${job.generation}`)
  assert.deepEqual(await here.status(job.id), {
    ...{ id: job.id, command: 'wait', state: 'waiting', payload: { n: 1 } },
    ...{ retries: 0, stalls: 0, waiters: 0, progress: undefined },
  })
  const gate = pDefer<string>()
  here.process('wait', () => gate.promise)
  await until(async () => (await job.status())?.state === 'active', { what: 'the job to run' })
  const found = await here.job(job.id)
  assert.deepEqual([found?.id, found?.command, found?.disposition], [job.id, 'wait', undefined])
  const results = [job.result(), job.result(), found?.result()]
  await until(async () => (await job.status())?.waiters, { what: 'those who wait' })
  gate.resolve('done')
  assert.deepEqual(await Promise.all(results), ['done', 'done', 'done'])
  const { state, result, waiters } = (await there.status(job.id)) ?? assert.fail('it is kept')
  assert.deepEqual({ state, result, waiters }, { state: 'completed', result: 'done', waiters: 0 })
  for (const id of ['', 'x', 'A'.repeat(32), `${job.id} `, `${job.id}\n`, '../..', '*']) {
    assert.equal(await there.job(id), undefined)
    assert.equal(await there.status(id), undefined)
    assert.deepEqual(await there.logs(id), [])
    for (const act of [there.cancel(id), there.remove(id), there.retry(id)]) assert.equal(await act, false)
  }
})

onBothStores('queue - enqueueMany hands in all at once, in their order', async (w) => {
  const queue = w.open()
  await subscribed(queue)
  await queue.enqueue('n', 3)
  await w.t?.server.resetStats()
  const jobs = await queue.enqueueMany([
    ...Array.from({ length: 15 }, (_, n) => ({ command: 'n', payload: n })),
    { command: 'other', payload: 3, options: { priority: 5 } },
  ])
  const calls = await w.t?.server.commandStats()
  if (calls) assert.equal((calls['evalsha'] ?? 0) + (calls['eval'] ?? 0), 1)
  assert.deepEqual(
    jobs.map(({ command, disposition }) => `${command} ${disposition}`),
    [...Array.from({ length: 15 }, (_, n) => `n ${n === 3 ? 'joined' : 'created'}`), 'other created'],
  )
  const order: number[] = []
  queue.process('n', (n: number) => void order.push(n))
  await Promise.all(jobs.slice(0, 15).map((job) => job.result()))
  assert.deepEqual(order, [3, 0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14])
  assert.deepEqual(await queue.enqueueMany([]), [])
})

onBothStores(
  'queue - enqueueMany checks all before the first, and rejects with the first refused',
  async (w) => {
    const queue = w.open()
    const wrong = [
      { command: 'a', payload: 1 },
      { command: 'a', payload: 5n },
    ]
    await assert.rejects(queue.enqueueMany(wrong), CodecError)
    const { waiting } = await queue.counts()
    assert.equal(waiting, 0)
    const keyed = (payload: number) => ({ command: 'a', payload, options: { dedupe: 'key' } })
    await assert.rejects(queue.enqueueMany([keyed(1), keyed(2), { command: 'a', payload: 3 }]), ConflictError)
    assert.equal((await queue.counts()).waiting, 2, 'those that were not refused')
  },
)

onBothStores('queue - progress is shown to all who wait, and kept', async (w) => {
  const [here, there, third] = [w.open(), w.open(), w.open()]
  const gate = pDefer()
  let refused: unknown
  here.process('bake', async (_, job) => {
    await until(async () => ((await here.status(job.id))?.waiters ?? 0) >= 2, { what: 'both to wait' })
    for (let step = 1; step <= 20; step++) job.progress({ step, bytes: Buffer.from('x') })
    try {
      job.progress(new Date())
    } catch (error) {
      refused = error
    }
    await gate.promise
    return 'cake'
  })
  const seen: Record<string, unknown[]> = { there: [], third: [] }
  const results = [
    there.submit('bake', undefined, { onProgress: (value) => seen['there']?.push(value) }),
    third.submit('bake', undefined, { onProgress: (value) => seen['third']?.push(value) }),
  ]
  const last = { step: 20, bytes: Buffer.from('x') }
  for (const who of ['there', 'third']) {
    await until(() => (seen[who]?.at(-1) as typeof last | undefined)?.step === 20, {
      what: `the last, ${who}`,
    })
    assert.deepEqual(seen[who]?.at(-1), last)
    assert.ok((seen[who]?.length ?? 0) <= 5, `some are merged: ${seen[who]?.length}`)
  }
  assert.ok(refused instanceof CodecError, `${refused}`)
  const [active] = (await there.jobs('active')).jobs
  assert.deepEqual(active?.progress, last)
  gate.resolve()
  assert.deepEqual(await Promise.all(results), ['cake', 'cake'])
})

onBothStores('queue - what a handler logs can be read afterwards, the last thousand lines', async (w) => {
  const [here, there] = [w.open(), w.open()]
  here.process('log', (count: number, job) => {
    for (let n = 1; n <= count; n++) job.log(`line ${n}`)
    job.log(5 as unknown as string)
  })
  const job = await there.enqueue('log', 1100)
  await job.result()
  const expected = [...Array.from({ length: 999 }, (_, index) => `line ${index + 102}`), '5']
  await until(async () => (await there.logs(job.id)).at(-1) === '5', { what: 'the last line' })
  assert.deepEqual(await job.logs(), expected)
  const other = await there.enqueue('nobody')
  assert.deepEqual(await other.logs(), [])
})
