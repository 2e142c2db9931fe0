// Jobs are run, their results and failures told; what a work may tell of its job; hostile jobs and results.

import assert from 'node:assert/strict'
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { test } from 'node:test'
import { HttpWorker, type HttpWorkerOptions, type JobContext, JsonText } from '../../src/worker/index.ts'
import { type GatewayServer, onBothWorlds } from '../support/gateway.ts'
import { HttpRelay } from '../support/http-relay.ts'
import { until } from '../support/wait.ts'

/** A worker of the queue `jobs` that has started. */
async function startWorker<Job, Result>(
  { url }: GatewayServer,
  options: Partial<HttpWorkerOptions<Job, Result>>,
): Promise<HttpWorker<Job, Result>> {
  const worker = new HttpWorker<Job, Result>({ url, queues: 'jobs', ...options })
  await worker.start()
  return worker
}

async function statusOf({ call }: GatewayServer, id: string): Promise<Record<string, unknown>> {
  return (await call('GET', `/j/jobs/${id}?wait=20`)).json as Record<string, unknown>
}

async function post({ call }: GatewayServer, body: string, query = ''): Promise<string> {
  const { status, json } = await call('POST', `/q/jobs?${query}`, { body })
  assert.equal(status, 201)
  return (json as { id: string }).id
}

onBothWorlds('http worker - runs jobs and tells their results', async (world) => {
  const gateway = await world.open()
  await using worker = await startWorker<number, number>(gateway, { work: (job) => job * job })
  const answer = await gateway.call('POST', '/q/jobs?wait=20', { body: '12' })
  assert.deepEqual([answer.status, answer.text], [200, '144'])
  await until(() => worker.stats().completed === 1, { what: 'the count' })
  await worker.stop()
  assert.deepEqual(worker.stats(), {
    ...{ running: 0, asking: 0, completed: 1, failed: 0, dead: 0, returned: 0, lost: 0 },
  })
})

onBothWorlds('http worker - a subclass has work, fail and idle as methods', async (world) => {
  const { url, call } = await world.open()
  const told: unknown[] = []
  class Mailer extends HttpWorker<{ to: string }, string> {
    override work({ to }: { to: string }): string {
      if (to === 'nobody') throw new Error(`no address ${this.prefix}`)
      return `${this.prefix} ${to}`
    }
    override fail(job: { to: string }, reason: unknown): void {
      told.push([job, (reason as Error).message])
    }
    override idle(): void {
      told.push('idle')
    }
    readonly prefix = 'sent to'
  }
  await using mailer = new Mailer({ url, queues: 'mails' })
  assert.match(mailer.id, /^Mailer_[\x21-\x7e]+_\d+_[\w-]{6}$/)
  await mailer.start()
  await until(() => told.includes('idle'), { what: 'the idle worker' })
  assert.equal((await call('POST', '/q/mails?wait=20', { body: '{"to":"you"}' })).text, '"sent to you"')
  assert.equal((await call('POST', '/q/mails?wait=20', { body: '{"to":"nobody"}' })).status, 500)
  await until(() => told.filter((each) => each === 'idle').length >= 2, {
    what: 'the worker to be idle again',
  })
  await mailer.stop()
  const failures = told.filter((each) => each !== 'idle')
  assert.deepEqual(failures, [[{ to: 'nobody' }, 'no address sent to']])
})

onBothWorlds(
  'http worker - tries a job as often as its attempts say, then calls fail once',
  async (world) => {
    const gateway = await world.open()
    const attempts: unknown[] = []
    const dead: unknown[] = []
    await using worker = await startWorker<string, never>(gateway, {
      work(_, { attempt, attempts: most }) {
        attempts.push([attempt, most])
        throw Object.assign(new RangeError('no route'), { code: 'E_ROUTE', hop: 3, password: 'hidden' })
      },
      fail: (job, reason, { id, attempt }) => dead.push([job, reason, id, attempt]),
    })
    const id = await post(gateway, '"x"', 'attempts=3')
    const { state, failure, retries } = await statusOf(gateway, id)
    assert.deepEqual([state, retries], ['failed', 2])
    assert.deepEqual(failure, {
      name: 'RangeError',
      message: 'no route',
      code: 'E_ROUTE',
      fields: { hop: 3 },
    })
    await until(() => dead.length > 0, { what: 'fail' })
    await worker.stop()
    assert.deepEqual(attempts, [
      [1, 3],
      [2, 3],
      [3, 3],
    ])
    assert.equal(dead.length, 1)
    const [[job, reason, dying, last]] = dead as [[string, Error, string, number]]
    assert.deepEqual([job, reason.message, dying, last], ['x', 'no route', id, 3])
    const { completed, failed, dead: count } = worker.stats()
    assert.deepEqual([completed, failed, count], [0, 3, 1])
  },
)

onBothWorlds('http worker - an error with `retry: false` is the last one', async (world) => {
  const gateway = await world.open()
  const dead: unknown[] = []
  await using worker = await startWorker<string, never>(gateway, {
    work() {
      throw Object.assign(new Error('no such address'), { retry: false })
    },
    fail: (job, _, { attempt }) => dead.push([job, attempt]),
  })
  const { state, retries, failure } = await statusOf(gateway, await post(gateway, '"x"', 'attempts=3'))
  assert.deepEqual([state, retries, (failure as Error).message], ['failed', 0, 'no such address'])
  await until(() => dead.length > 0, { what: 'fail' })
  assert.deepEqual(dead, [['x', 1]])
  assert.equal(worker.stats().dead, 1)
})

onBothWorlds(
  'http worker - a job is tried as often as the gateway says if its post does not',
  async (world) => {
    const gateway = await world.open({ queueOptions: { attempts: 2 } })
    const seen: unknown[] = []
    await using _ = await startWorker<string, never>(gateway, {
      work(_, { attempt, attempts }) {
        seen.push([attempt, attempts])
        throw new Error('no')
      },
    })
    assert.equal((await statusOf(gateway, await post(gateway, '1')))['state'], 'failed')
    assert.deepEqual(seen, [
      [1, 2],
      [2, 2],
    ])
  },
)

onBothWorlds('http worker - what fail throws ends nothing', async (world) => {
  const gateway = await world.open()
  const errors: unknown[] = []
  const onHook = (data: unknown) => errors.push(data)
  subscribe('soloflight:hook', onHook)
  await using _ = await startWorker<number, number>(gateway, {
    work(job) {
      if (job === 0) throw new Error('zero')
      return job
    },
    fail: () => Promise.reject(new Error('fail fails')),
  })
  assert.equal((await gateway.call('POST', '/q/jobs?wait=20', { body: '0' })).status, 500)
  assert.equal((await gateway.call('POST', '/q/jobs?wait=20', { body: '7' })).text, '7')
  await until(() => errors.length > 0, { what: 'the error' })
  unsubscribe('soloflight:hook', onHook)
  const [{ hook, error }] = errors as [{ hook: string; error: Error }]
  assert.deepEqual([hook, error.message], ['fail', 'fail fails'])
})

onBothWorlds(
  'http worker - tells progress and lines of the log, in order, the last ones too',
  async (world) => {
    const gateway = await world.open()
    const queue = world.queue('jobs')
    await queue.ready()
    await using _ = await startWorker(gateway, {
      work(_, context) {
        for (let line = 1; line <= 250; line++) context.log(`line ${line} \u0000 \u{1f600}`)
        context.progress({ done: 0.5 })
        context.log('a lone surrogate: \ud800')
        return 'done'
      },
    })
    const id = await post(gateway, '{}')
    const status = await statusOf(gateway, id)
    assert.equal(status['result'], 'done')
    const { log } = (await gateway.call('GET', `/j/jobs/${id}/log`)).json as { log: string[] }
    assert.deepEqual(log.slice(0, 2), ['line 1 \u0000 \u{1f600}', 'line 2 \u0000 \u{1f600}'])
    assert.deepEqual(log.slice(-2), ['line 250 \u0000 \u{1f600}', 'a lone surrogate: \ufffd'])
    assert.equal(log.length, 251)
  },
)

onBothWorlds('http worker - progress is seen while the job runs', async (world) => {
  const gateway = await world.open()
  let end: () => void = () => {}
  const ended = new Promise<void>((resolve) => {
    end = resolve
  })
  await using _ = await startWorker(gateway, {
    async work(_, { progress }) {
      progress([1, { of: 2 }])
      await ended
    },
  })
  const id = await post(gateway, '{}')
  const progressOf = async () =>
    ((await gateway.call('GET', `/j/jobs/${id}`)).json as Record<string, unknown>)['progress']
  await until(async () => Array.isArray(await progressOf()), { what: 'the progress' })
  assert.deepEqual(await progressOf(), [1, { of: 2 }])
  end()
  assert.equal((await statusOf(gateway, id))['state'], 'completed')
})

onBothWorlds(
  'http worker - progress that is told very often is sent seldom, the last one for certain',
  async (world) => {
    const gateway = await world.open()
    await using relay = await HttpRelay.start(gateway.url)
    const queue = world.queue('jobs')
    await queue.ready()
    let last: unknown
    await using _ = await startWorker(
      { ...gateway, url: relay.url },
      {
        async work(_, { progress }) {
          const until = performance.now() + 1_000
          for (let n = 0; performance.now() < until; n++) {
            progress(n)
            last = n
            if (n % 100 === 0) await new Promise((resolve) => setImmediate(resolve))
          }
        },
      },
    )
    const told: unknown[] = []
    const job = await queue.enqueue('job', 1)
    await job.result({ onProgress: (value) => told.push(value) })
    assert.equal(told.at(-1), last)
    assert.ok(relay.count('PATCH') <= 15, `${relay.count('PATCH')} requests`)
  },
)

/** Payloads that a parser or a path could stumble over. */
const HOSTILE = [
  '9007199254740993',
  '1.0',
  ' { "a" : 1, "a" : 2 } ',
  '{"__proto__":{"polluted":true},"constructor":{"prototype":{"polluted":true}}}',
  '"\\ud800"',
  '"\\u0000\\r\\nX-Lease: forged"',
  '[]',
  'null',
  'false',
  '""',
  `${'['.repeat(999)}${']'.repeat(999)}`,
  JSON.stringify('ж'.repeat(100_000)),
]

onBothWorlds('http worker - hostile payloads arrive byte for byte, and parsed', async (world) => {
  const gateway = await world.open()
  const seen = new Map<string, unknown>()
  await using _ = await startWorker(gateway, {
    concurrency: 4,
    work(job, { text, id }) {
      seen.set(id, job)
      return JsonText.parse(JSON.stringify(text))
    },
  })
  for (const payload of HOSTILE) {
    const id = await post(gateway, payload)
    const { result, state } = await statusOf(gateway, id)
    assert.deepEqual([state, result], ['completed', payload])
    assert.deepEqual(seen.get(id), JSON.parse(payload))
  }
  assert.equal(({} as Record<string, unknown>)['polluted'], undefined)
})

onBothWorlds('http worker - names of queues and commands may be any text', async (world) => {
  const { url, call } = await world.open()
  const queues = ['a/b', '?x=1&y', 'жизнь 100%', '..%2f..', '...', 'q:k:1', '#']
  await using _ = (() => {
    const worker = new HttpWorker({ url, queues, command: 'a&b=c', concurrency: 20, work: (_, c) => c.queue })
    void worker.start()
    return worker
  })()
  for (const queue of queues) {
    const path = `/q/${encodeURIComponent(queue)}?wait=20&command=${encodeURIComponent('a&b=c')}`
    assert.equal((await call('POST', path, { body: '1' })).text, JSON.stringify(queue))
  }
})

onBothWorlds(
  'http worker - results that are no JSON, or too large, fail the job, and end nothing',
  async (world) => {
    const gateway = await world.open({ maxBody: 10_000 })
    const cyclic: { self?: unknown } = {}
    cyclic.self = cyclic
    const results: Record<string, unknown> = {
      nothing: undefined,
      big: 1n,
      cyclic,
      large: 'x'.repeat(20_000),
      exact: JsonText.parse('1.0'),
      deep: JSON.parse(`${'['.repeat(1_001)}${']'.repeat(1_001)}`),
    }
    await using _ = await startWorker<string, unknown>(gateway, { work: (name) => results[name] })
    const outcomes: Record<string, unknown> = {}
    for (const name of Object.keys(results)) {
      const { status, text } = await gateway.call('POST', '/q/jobs?wait=20', { body: JSON.stringify(name) })
      outcomes[name] =
        status === 200 ? text : ((JSON.parse(text) as Record<string, unknown>)['detail'] as string)
    }
    assert.equal(outcomes['nothing'], 'null')
    assert.equal(outcomes['exact'], '1.0')
    for (const name of ['big', 'cyclic']) assert.match(String(outcomes[name]), /The result is not JSON/)
    assert.match(String(outcomes['large']), /The gateway refuses the result: 413/)
    assert.match(String(outcomes['deep']), /The gateway refuses the result: 400/)
  },
)

onBothWorlds('http worker - a job that is larger than maxJob fails', async (world) => {
  const gateway = await world.open()
  await using worker = await startWorker(gateway, { maxJob: 1_000, work: () => 1 })
  const answer = await gateway.call('POST', '/q/jobs?wait=20', { body: JSON.stringify('x'.repeat(2_000)) })
  assert.match(answer.text, /larger than `maxJob`/)
  assert.equal((await gateway.call('POST', '/q/jobs?wait=20', { body: '2' })).text, '1')
  assert.equal(worker.stats().dead, 1)
})

onBothWorlds(
  'http worker - errors that cannot be told, and things that are no errors, fail the job',
  async (world) => {
    const gateway = await world.open()
    const thrown: Record<string, unknown> = {
      text: 'just a text',
      nothing: undefined,
      getter: Object.defineProperty({}, 'message', {
        get() {
          throw new Error('getter')
        },
      }),
      cyclic: (() => {
        const error: Error & { self?: unknown } = new Error('cyclic')
        error.self = error
        return error
      })(),
      long: new Error('m'.repeat(1_000_000)),
    }
    await using _ = await startWorker<string, never>(gateway, {
      work(name) {
        throw thrown[name]
      },
    })
    for (const name of Object.keys(thrown)) {
      const { state, failure } = await statusOf(gateway, await post(gateway, JSON.stringify(name)))
      assert.equal(state, 'failed', name)
      assert.ok(JSON.stringify(failure).length < 20_000)
    }
  },
)

test('http worker - progress that is no JSON, or too large, is refused where it is told', async () => {
  const { createGateway } = await import('../../src/gateway/index.ts')
  await using gateway = createGateway()
  const fetchHere: typeof fetch = (input, init) => Promise.resolve(gateway.fetch(new Request(input, init)))
  const errors: unknown[] = []
  const tell = (context: JobContext, value: unknown) => {
    try {
      context.progress(value)
    } catch (error) {
      errors.push((error as Error).name)
    }
  }
  await using worker = new HttpWorker({
    url: 'http://localhost',
    queues: 'jobs',
    fetch: fetchHere,
    work(_, context) {
      for (const value of [undefined, () => {}, 1n, 'x'.repeat(70_000)]) tell(context, value)
    },
  })
  await worker.start()
  const posted = await gateway.fetch(
    new Request('http://localhost/q/jobs?wait=20', { method: 'POST', body: '1' }),
  )
  assert.equal(posted.status, 200)
  assert.deepEqual(errors, ['TypeError', 'TypeError', 'TypeError', 'TypeError'])
})
