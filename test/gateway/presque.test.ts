// The routes of presque, by its curl lines, with the shapes that its clients know.

import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { test } from 'node:test'
import { promisify } from 'node:util'
import { assertProblem, type GatewayServer, onBothWorlds } from '../support/gateway.ts'
import { until } from '../support/wait.ts'

const run = promisify(execFile)

/** What curl prints, and the status. */
async function curl(line: string, { port }: GatewayServer): Promise<{ status: number; body: string }> {
  const args = [...line.replaceAll('localhost:5000', `localhost:${port}`).matchAll(/'([^']*)'|(\S+)/g)]
  const given = args.map(([, quoted, plain]) => quoted ?? plain ?? '').slice(1)
  const { stdout } = await run('curl', ['-s', '-4', '-w', '\n%{http_code}', ...given])
  const at = stdout.lastIndexOf('\n')
  return { status: Number(stdout.slice(at + 1)), body: stdout.slice(0, at) }
}

onBothWorlds('presque - its curl lines do what they did, without a content type of JSON too', async (w) => {
  const gateway = await w.open()
  const posted = await curl(`curl -X POST http://localhost:5000/q/foo -d '{"foo":"bar", "n":1.0}'`, gateway)
  assert.equal(posted.status, 201)
  const json = `curl -X POST -H 'Content-Type: application/json' http://localhost:5000/q/foo -d '{"baz": 2}'`
  assert.equal((await curl(json, gateway)).status, 201)
  const counted = await curl('curl http://localhost:5000/j/foo', gateway)
  assert.match(counted.body, /"queue_name":"foo","job_count":2,"job_failed":0,"job_processed":0/)
  const first = await curl('curl http://localhost:5000/q/foo', gateway)
  assert.deepEqual([first.status, first.body], [200, '{"foo":"bar", "n":1.0}'])
  const second = await curl('curl http://localhost:5000/q/foo', gateway)
  assert.equal(second.body, '{"baz": 2}')
  const none = await curl('curl http://localhost:5000/q/foo', gateway)
  assert.deepEqual([none.status, JSON.parse(none.body).error], [404, 'no job'])
  const stop = `curl -X POST http://localhost:5000/control/foo -d '{"status":"stop"}'`
  assert.deepEqual(JSON.parse((await curl(stop, gateway)).body), { queue: 'foo', response: 'updated' })
  assert.equal((await curl(`curl -X POST http://localhost:5000/q/foo -d '1'`, gateway)).status, 201)
  const closed = await curl('curl http://localhost:5000/q/foo', gateway)
  assert.deepEqual([closed.status, JSON.parse(closed.body).error], [404, 'queue is closed'])
  const status = await curl('curl http://localhost:5000/control/foo', gateway)
  assert.deepEqual(JSON.parse(status.body), { queue: 'foo', status: '0' })
  await curl(`curl -X POST http://localhost:5000/control/foo -d '{"status":"start"}'`, gateway)
  assert.equal((await curl('curl http://localhost:5000/q/foo', gateway)).body, '1')
  assert.equal((await curl('curl -X DELETE http://localhost:5000/q/foo', gateway)).status, 204)
})

onBothWorlds('presque - a job that is put back is a job again, and counts as failed', async (w) => {
  const { call } = await w.open()
  await call('POST', '/q/foo', { body: '{"n":1}' })
  const { text } = await call('GET', '/q/foo')
  const processed = async () => (await call('GET', '/j/foo')).json as Record<string, unknown>
  await until(async () => (await processed())['running'] === 0, { what: 'the job to be taken for good' })
  assert.equal((await call('PUT', '/q/foo', { body: text })).status, 201)
  assert.deepEqual(
    { ...(await processed()), oldest: 0 },
    {
      ...{ queue_name: 'foo', job_count: 1, job_failed: 1, job_processed: 1 },
      ...{ delayed: 0, running: 0, oldest: 0 },
    },
  )
  assert.equal((await call('GET', '/q/foo')).text, '{"n":1}')
})

onBothWorlds(
  'presque - an unknown queue has counters of 0, and a queue without a name is told of',
  async (w) => {
    const { call } = await w.open()
    assert.deepEqual((await call('GET', '/j/nobody')).json, {
      ...{ queue_name: 'nobody', job_count: 0, job_failed: 0, job_processed: 0 },
      ...{ delayed: 0, running: 0, oldest: null },
    })
    assert.deepEqual((await call('GET', '/status/')).json, { queues: [], size: 0 })
    for (const path of ['/q', '/q/', '/qb/', '/j/', '/control/'])
      assertProblem(await call('GET', path), 404, 'queue name is missing')
  },
)

onBothWorlds(
  'presque - delayed jobs are given by seconds since 1970, and are not counted as waiting',
  async (w) => {
    const { call } = await w.open()
    const soon = Date.now() / 1000 + 1
    await call('POST', `/q/foo?delayed=${soon.toFixed(3)}`, { body: '"soon"' })
    await call('POST', `/q/foo?delayed=${(soon + 3600).toFixed(0)}`, { body: '"later"' })
    await call('POST', '/q/foo?delayed=1000', { body: '"past"' })
    const { job_count, delayed } = (await call('GET', '/j/foo')).json as Record<string, number>
    assert.deepEqual([job_count, delayed], [1, 2])
    assert.equal((await call('GET', '/q/foo')).text, '"past"')
    assertProblem(await call('GET', '/q/foo'), 404, 'no job')
    const { text } = await call('GET', '/q/foo?wait=20')
    assert.equal(text, '"soon"')
    assert.ok(Date.now() / 1000 >= soon - 0.05, 'not before its time')
    assertProblem(await call('POST', '/q/foo?delayed=soon', { body: '1' }), 400, 'invalid parameter')
    assertProblem(await call('POST', '/q/foo?delayed=1&delay=1', { body: '1' }), 400, 'invalid parameter')
    assertProblem(await call('POST', '/q/foo?delayed=99999999999', { body: '1' }), 400, 'invalid parameter')
  },
)

onBothWorlds('presque - batches are values, posted all or none', async (w) => {
  const { call } = await w.open()
  const jobs = ['1.0', '{"a" : [1, 2]}', '"],"', 'null', '9007199254740993']
  const posted = await call('POST', '/qb/foo', {
    body: `{ "other": {"jobs":1}, "jobs": [ ${jobs.join(' , ')} ] }`,
  })
  assert.equal(posted.status, 201)
  assert.equal((posted.json as { jobs: unknown[] }).jobs.length, 5)
  assert.equal((await call('GET', '/qb/foo?batch_size=2')).text, `[${jobs.slice(0, 2).join(',')}]`)
  assert.equal((await call('GET', '/qb/foo')).text, `[${jobs.slice(2).join(',')}]`)
  assertProblem(await call('GET', '/qb/foo'), 404, 'no job')
  for (const body of ['{"jobs":1}', '[1]', '{}', '1'])
    assertProblem(await call('POST', '/qb/foo', { body }), 400, 'jobs should be an array of job')
  assertProblem(await call('POST', '/qb/foo', { body: '{"jobs":[1,]}' }), 400, 'invalid json')
  for (const size of ['0', '1001', 'x', '-1'])
    assertProblem(await call('GET', `/qb/foo?batch_size=${size}`), 400, 'invalid parameter')
  for (const method of ['PUT', 'DELETE'])
    assertProblem(await call(method, '/qb/foo'), 400, 'method is not supported for a batch')
})

onBothWorlds('presque - queues are listed, with their jobs if asked', async (w) => {
  const { call } = await w.open()
  await call('POST', '/q/one', { body: '{"n":1}' })
  await call('POST', '/q/two', { body: '2' })
  const names = async () => ((await call('GET', '/status/')).json as { queues: string[] }).queues
  await until(async () => (await names()).length === 2, { what: 'both in the register' })
  assert.deepEqual((await names()).sort(), ['one', 'two'])
  assert.deepEqual((await call('GET', '/status/one?with_desc=1')).json, {
    queue: 'one',
    size: 1,
    jobs: [{ n: 1 }],
  })
  assert.deepEqual((await call('GET', '/status/one')).json, { queue: 'one', size: 1 })
  const { queues, size } = (await call('GET', '/stats/')).json as { queues: unknown[]; size: number }
  assert.deepEqual([queues.length, size], [2, 2])
  assert.equal((await call('DELETE', '/q/one')).status, 204)
  assert.deepEqual(await names(), ['two'])
  assertProblem(await call('GET', '/q/one'), 404, 'no job')
  assertProblem(await call('POST', '/control/one', { body: '{"status":"pause"}' }), 400, 'invalid json')
})

test('presque - curl is there', async () => {
  await run('curl', ['--version'])
})
