// Jobs are posted: byte for byte, unique or idempotent, and waited for.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createGateway } from '../../src/gateway/index.ts'
import { type Answer, assertProblem, type GatewayServer, onBothWorlds, serve } from '../support/gateway.ts'
import { setup } from '../support/setup.ts'
import { until } from '../support/wait.ts'

const TEXT = '{ "b":1.0, "a":9007199254740993, "a":2, "é":"\\u00e9" }'

function statuses(answers: readonly Answer[]): Record<number, number> {
  const counted: Record<number, number> = {}
  for (const { status } of answers) counted[status] = (counted[status] ?? 0) + 1
  return counted
}

function idOf({ json }: Answer): string {
  return (json as { id: string }).id
}

onBothWorlds('submit - a job and its result pass byte for byte', async (w) => {
  const { call } = await w.open()
  const posted = await call('POST', '/q/a%20b%2Fc%3A?ttl=60', { body: TEXT })
  assert.equal(posted.status, 201)
  assert.equal(posted.headers.get('location'), `/j/a%20b%2Fc%3A/${idOf(posted)}`)
  assert.equal(posted.headers.get('cache-control'), 'no-store')
  const taken = await call('GET', '/q/a%20b%2Fc%3A?lease=30')
  assert.deepEqual([taken.text, taken.headers.get('x-job-id')], [TEXT, idOf(posted)])
  const lease = { 'x-lease': taken.headers.get('x-lease') ?? '' }
  assert.equal((await call('PUT', '/q/a%20b%2Fc%3A', { body: TEXT, headers: lease })).status, 204)
  const job = await call('GET', posted.headers.get('location') ?? '')
  assert.ok(job.text.includes(`"result":${TEXT}`), job.text)
  assert.ok(job.text.includes(`"job":${TEXT}`), job.text)
  assert.equal((job.json as { state: string }).state, 'completed')
  await call('POST', '/q/a%20b%2Fc%3A', { body: TEXT })
  const listed = await call('GET', '/status/a%20b%2Fc%3A?with_desc=1')
  assert.ok(listed.text.includes(`"jobs":[${TEXT}]`), listed.text)
})

onBothWorlds('submit - two equal posts are two jobs', async (w) => {
  const { call } = await w.open()
  const posts = await Promise.all(Array.from({ length: 5 }, () => call('POST', '/q/foo', { body: '1' })))
  assert.equal(new Set(posts.map(idOf)).size, 5)
})

onBothWorlds(
  'submit - of 150 posts with one uniq over 4 gateways, one is accepted until it is taken',
  async (w) => {
    const gateways = await Promise.all(Array.from({ length: 4 }, () => w.open()))
    const at = (n: number) => gateways[n % 4] as GatewayServer
    const posts = await Promise.all(
      Array.from({ length: 150 }, (_, n) => at(n).call('POST', '/q/foo?uniq=k', { body: String(n) })),
    )
    assert.deepEqual(statuses(posts), { 201: 1, 409: 149 })
    const refused = posts.find(({ status }) => status === 409)
    assertProblem(refused ?? assert.fail(), 409, 'job already exists')
    assert.equal((await at(0).call('POST', '/q/foo?uniq=other', { body: '1' })).status, 201)
    const taken = await at(1).call('GET', '/q/foo?lease=60')
    // It is taken: one more is accepted, and waits.
    const again = await Promise.all(
      Array.from({ length: 20 }, (_, n) => at(n).call('POST', '/q/foo?uniq=k', { body: taken.text })),
    )
    assert.deepEqual(statuses(again), { 201: 1, 409: 19 })
    const lease = { 'x-lease': taken.headers.get('x-lease') ?? '' }
    assert.equal((await at(2).call('PUT', '/q/foo', { body: '"done"', headers: lease })).status, 204)
    assert.equal((await at(3).call('POST', '/q/foo?uniq=k', { body: '0' })).status, 409)
    assert.equal((await at(0).call('GET', '/q/foo')).text, '1')
    assert.equal((await at(0).call('GET', '/q/foo')).text, taken.text)
  },
)

onBothWorlds(
  'submit - a key names one job: the same post is answered with it, another one is refused',
  async (w) => {
    const { call } = await w.open()
    const first = await call('POST', '/q/foo?key=k', { body: '{"n":1}' })
    const headers = { 'idempotency-key': 'k' }
    const second = await call('POST', '/q/foo', { body: '{"n":1}', headers })
    assert.deepEqual([first.status, second.status], [201, 200])
    assert.equal(idOf(second), idOf(first))
    assertProblem(
      await call('POST', '/q/foo', { body: '{"n":2}', headers }),
      422,
      'key was used for another job',
    )
    assert.equal((await call('GET', '/j/foo')).text.includes('"job_count":1'), true)
    for (const path of ['/q/foo?key=k&uniq=k', '/q/foo?uniq=', '/q/foo?key=a&key=b', '/q/foo?keey=k'])
      assertProblem(await call('POST', path, { body: '1' }), 400, 'invalid parameter')
  },
)

onBothWorlds(
  'submit - 50 posts with one Idempotency-Key over 2 gateways run once, and get 50 results',
  async (w) => {
    const gateways = await Promise.all([w.open(), w.open()])
    const queue = w.queue('foo')
    let runs = 0
    queue.process('job', async (payload: { n: number }) => ({ n: payload.n + ++runs }), { concurrency: 10 })
    const headers = { 'idempotency-key': 'once' }
    const posts = Array.from({ length: 50 }, (_, n) =>
      gateways[(n % 2) as 0 | 1].call('POST', '/q/foo?wait=20', { body: '{"n":1}', headers }),
    )
    const answers = await Promise.all(posts)
    assert.deepEqual(statuses(answers), { 200: 50 })
    assert.deepEqual(new Set(answers.map(({ text }) => text)), new Set(['{"n":2}']))
    assert.equal(runs, 1)
  },
)

onBothWorlds(
  'submit - a post that waits gets the result, the failure, or 202 at the end of its wait',
  async (w) => {
    const { call } = await w.open()
    const queue = w.queue('foo')
    queue.process('add', ({ a, b }: { a: number; b: number }) => a + b)
    queue.process('fail', () => {
      throw Object.assign(new RangeError('too far'), { code: 'E_FAR', limit: 3 })
    })
    queue.process('nothing', () => undefined)
    const sum = await call('POST', '/q/foo?command=add&wait=20', { body: '{"a":1,"b":2}' })
    assert.deepEqual([sum.status, sum.text], [200, '3'])
    const preferred = await call('POST', '/q/foo?command=add', {
      body: '{"a":1,"b":2}',
      headers: { prefer: 'respond-async, wait=20' },
    })
    assert.deepEqual([preferred.status, preferred.text], [200, '3'])
    const nothing = await call('POST', '/q/foo?command=nothing&wait=20', { body: 'null' })
    assert.deepEqual([nothing.status, nothing.text], [200, 'null'])
    const failed = await call('POST', '/q/foo?command=fail&wait=20', { body: '1' })
    assertProblem(failed, 500, 'remote')
    const { failure, id, detail } = failed.json as { failure: object; id: string; detail: string }
    assert.deepEqual(failure, { name: 'RangeError', message: 'too far', code: 'E_FAR', fields: { limit: 3 } })
    assert.deepEqual([detail, id.length], ['too far', 22])
    const pending = await call('POST', '/q/foo?command=nobody&wait=50ms', { body: '1' })
    assert.equal(pending.status, 202)
    assert.equal(pending.headers.get('location'), `/j/foo/${idOf(pending)}`)
    const job = await call('GET', pending.headers.get('location') ?? '')
    assert.equal((job.json as { state: string }).state, 'waiting')
  },
)

onBothWorlds(
  'submit - the job goes on when its client is gone, unless it is to be aborted then',
  async (w) => {
    const { call } = await w.open()
    const queue = w.queue('foo')
    const leaves = new AbortController()
    const posts = ['', '&abort=unwanted'].map((abort) =>
      call('POST', `/q/foo?wait=30${abort}`, { body: '1', signal: leaves.signal }),
    )
    await until(async () => (await queue.counts()).waiting === 2, { what: 'both jobs' })
    leaves.abort()
    for (const post of posts) await assert.rejects(post)
    await until(async () => (await queue.counts()).waiting === 1, {
      what: 'the unwanted job to be cancelled',
    })
    assert.equal((await call('GET', '/q/foo')).text, '1')
    assertProblem(await call('POST', '/q/foo?wait=50ms&abort=unwanted', { body: '1' }), 504, 'timeout')
  },
)

onBothWorlds('submit - a client that only looks cancels nothing when it leaves', async (w) => {
  const gateway = await w.open()
  const { call } = gateway
  const queue = w.queue('foo')
  // Its submitter has left, and nobody waits for it.
  const job = await queue.enqueue('job', 1, { abortUnwanted: true })
  const waiters = async () => (await job.status())?.waiters
  const assertGoesOn = async () => {
    await until(async () => (await waiters()) === 0, { what: 'nobody to wait' })
    assert.equal((await job.status())?.state, 'waiting')
  }
  assert.equal((await call('GET', `/j/foo/${job.id}?wait=50ms`)).status, 200)
  await assertGoesOn()
  const leaves = new AbortController()
  const looks = call('GET', `/j/foo/${job.id}?wait=30`, { signal: leaves.signal })
  await until(async () => (await waiters()) === 1, { what: 'it to wait' })
  leaves.abort()
  await assert.rejects(looks)
  await assertGoesOn()
  // A post that waits with `abort=unwanted` still cancels its own.
  const posted = new AbortController()
  const post = call('POST', '/q/foo?key=k&wait=30&abort=unwanted', { body: '2', signal: posted.signal })
  await until(async () => (await queue.counts()).waiting === 2, { what: 'its job' })
  posted.abort()
  await assert.rejects(post)
  await until(async () => (await queue.counts()).waiting === 1, { what: 'it to be cancelled' })
})

onBothWorlds('submit - priority, delay and attempts are those of the job', async (w) => {
  const { call } = await w.open()
  await call('POST', '/q/foo', { body: '"plain"' })
  await call('POST', '/q/foo?priority=10', { body: '"first"' })
  await call('POST', '/q/foo?delay=1h&attempts=3', { body: '"later"' })
  assert.equal((await call('GET', '/q/foo')).text, '"first"')
  assert.equal((await call('GET', '/q/foo')).text, '"plain"')
  const wrong = [
    'priority=-1',
    'priority=1.5',
    'attempts=0',
    'delay=400d',
    'delay=-1',
    'delay=1e3',
    'ttl=x',
    'wait=x',
  ]
  for (const parameter of wrong) {
    const { status } = await call('POST', `/q/foo?${parameter}`, { body: '1' })
    assert.equal(status, 400, parameter)
  }
})

onBothWorlds('submit - a job is told as it was posted, byte for byte', async (world) => {
  const gateway = await world.open()
  const body = '{ "n": 1.0, "big": 12345678901234567890, "n": 2e1, "é": "\\u00e9" }'
  const { json } = await gateway.call('POST', '/q/exact', { body })
  const { id } = json as { id: string }
  for (const path of [`/j/exact/${id}`, '/jobs/exact?text=BIG', '/status/exact?with_desc=1'])
    assert.ok((await gateway.call('GET', path)).text.includes(body), path)
})

interface PostedJobs {
  jobs: { id: string; disposition: string }[]
}

function jobsOf({ json }: Answer): PostedJobs['jobs'] {
  return (json as PostedJobs).jobs
}

/** Jobs of posts that differ from `[1,1,{"n":2}]`. */
const OTHER_POSTS = [
  ...['[]', '[1]', '[1,1]', '[1,1,{"n":2},3]', '[1,7,{"n":2}]', '[{"n":2},1,1]'],
  // Byte for byte: to a gateway these are other jobs.
  ...['[1,1,{"n": 2}]', '[1,1.0,{"n":2}]'],
]

onBothWorlds(
  'submit - several jobs under one key are posted once, and another post is refused as a whole',
  async (w) => {
    const gateways = await Promise.all([w.open(), w.open()])
    const headers = { 'idempotency-key': 'several' }
    const post = (n: number, jobs: string, query = '') =>
      gateways[(n % 2) as 0 | 1].call('POST', `/qb/foo${query}`, { body: `{"jobs":${jobs}}`, headers })
    const same = '[1,1,{"n":2}]'
    const answers = await Promise.all(Array.from({ length: 10 }, (_, n) => post(n, same)))
    assert.deepEqual(statuses(answers), { 201: 1, 200: 9 })
    const ids = jobsOf(answers[0] as Answer).map(({ id }) => id)
    assert.equal(new Set(ids).size, 3)
    for (const answer of answers) {
      assert.deepEqual(
        jobsOf(answer).map(({ id }) => id),
        ids,
      )
      const disposition = answer.status === 201 ? 'created' : 'joined'
      assert.deepEqual([...new Set(jobsOf(answer).map((job) => job.disposition))], [disposition])
    }
    for (const jobs of OTHER_POSTS) {
      const refused = await post(1, jobs)
      assertProblem(refused, 422, 'key was used for another job')
      assert.match((refused.json as { detail: string }).detail, /none of these jobs was posted/)
    }
    assertProblem(await post(0, same, '?command=other'), 422, 'key was used for another job')
    assert.equal((await w.queue('foo').counts()).waiting, 3)
    // Also when its jobs have been taken.
    assert.equal((await gateways[0].call('GET', '/qb/foo')).text, same)
    assert.equal((await post(0, same)).status, 200)
    assertProblem(await post(1, '[1,1]'), 422, 'key was used for another job')
    assert.equal((await w.queue('foo').counts()).waiting, 0)
    // A key of one post is not that of several.
    assert.equal((await gateways[0].call('POST', '/q/foo', { body: '1', headers })).status, 201)
    // A queue that is deleted knows none.
    assert.equal((await gateways[1].call('DELETE', '/q/foo')).status, 204)
    assert.equal((await post(0, '[1]')).status, 201)
  },
)

onBothWorlds('submit - two equal posts of several jobs without a key are two', async (w) => {
  const { call } = await w.open()
  const posts = [
    await call('POST', '/qb/foo', { body: '{"jobs":[1,1]}' }),
    await call('POST', '/qb/foo', { body: '{"jobs":[1,1]}' }),
  ]
  assert.deepEqual(statuses(posts), { 201: 2 })
  assert.equal(new Set(posts.flatMap((post) => jobsOf(post).map(({ id }) => id))).size, 4)
  assert.deepEqual((await call('POST', '/qb/foo', { body: '{"jobs":[]}' })).json, { jobs: [] })
})

onBothWorlds('submit - of several jobs none is posted if one is invalid', async (w) => {
  const { call } = await w.open({ queueOptions: { maxPayload: 20 } })
  const tooLarge = JSON.stringify({ jobs: [1, 'x'.repeat(30), 3] })
  assertProblem(await call('POST', '/qb/foo', { body: tooLarge }), 413, 'too large')
  const large = JSON.stringify({ jobs: Array.from({ length: 3 }, () => 'x'.repeat(700_000)) })
  const roomy = await w.open({ maxBody: 3_000_000 })
  assertProblem(await roomy.call('POST', '/qb/foo?key=k', { body: large }), 413, 'too large')
  assertProblem(await call('POST', '/qb/foo', { body: '{"jobs":[1,tru,3]}' }), 400, 'invalid json')
  assertProblem(await call('POST', '/qb/foo?key=', { body: '{"jobs":[1]}' }), 400, 'invalid parameter')
  assertProblem(await call('POST', '/qb/foo?uniq=k', { body: '{"jobs":[1]}' }), 400, 'invalid parameter')
  assert.equal((await w.queue('foo').counts()).waiting, 0)
})

test('submit - several jobs that Redis refuses are posted neither in part nor later', async () => {
  await using t = await setup()
  const server = await serve(createGateway({ redis: t.redis }))
  try {
    const { call } = server
    const body = '{"jobs":["a","b","c"]}'
    await t.server.call('CONFIG', 'SET', 'maxmemory', 1)
    for (const query of ['', '?key=k'])
      assertProblem(await call('POST', `/qb/foo${query}`, { body }), 503, 'store is unavailable')
    await t.server.call('CONFIG', 'SET', 'maxmemory', 0)
    assertProblem(await call('GET', '/qb/foo'), 404, 'no job')
    assert.equal((await call('POST', '/qb/foo?key=k', { body })).status, 201)
    assert.equal((await call('GET', '/qb/foo')).text, '["a","b","c"]')
  } finally {
    await server.close()
  }
})

onBothWorlds(
  'submit - jobs of one uniq have one id: each post gets its own result, and who waits for the id that of the last',
  async (w) => {
    const { call } = await w.open()
    const finish = async (result: string) => {
      const { headers } = await call('GET', '/q/foo?lease=60&wait=20')
      await call('PUT', '/q/foo', { body: result, lease: headers.get('x-lease') ?? '' })
    }
    const first = call('POST', '/q/foo?uniq=k&wait=20', { body: '1' })
    const taken = await call('GET', '/q/foo?lease=60&wait=20')
    const second = await call('POST', '/q/foo?uniq=k', { body: '2' })
    const id = idOf(second)
    assert.deepEqual([second.status, id], [201, taken.headers.get('x-job-id')])
    // The one that runs is told first.
    const running = (await call('GET', `/j/foo/${id}`)).json as { state: string; job: number }
    assert.deepEqual([running.state, running.job], ['active', 1])
    const waits = call('GET', `/j/foo/${id}?wait=20`)
    const waiters = async () => ((await call('GET', `/j/foo/${id}`)).json as { waiters: number }).waiters
    await until(async () => (await waiters()) === 2, { what: 'both to wait' })
    await call('PUT', '/q/foo', { body: '"one"', lease: taken.headers.get('x-lease') ?? '' })
    assert.equal((await first).text, '"one"')
    const between = (await call('GET', `/j/foo/${id}`)).json as { state: string; job: number }
    assert.deepEqual([between.state, between.job], ['waiting', 2])
    await finish('"two"')
    const last = (await waits).json as { state: string; result: string }
    assert.deepEqual([last.state, last.result], ['completed', 'two'])
  },
)
