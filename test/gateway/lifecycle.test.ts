// A gateway is ready, drains, and closes; below a path; on a Redis that goes.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseDuration } from '../../src/gateway/duration.ts'
import { createGateway } from '../../src/gateway/index.ts'
import { assertProblem, onBothWorlds, serve } from '../support/gateway.ts'
import { setup } from '../support/setup.ts'
import { until } from '../support/wait.ts'

onBothWorlds(
  'lifecycle - closing: not ready at once, waits are answered at the end of the grace',
  async (w) => {
    const { gateway, call } = await w.open()
    const queue = w.queue('foo')
    assert.equal((await call('GET', '/readyz')).status, 200)
    await gateway.ready()
    const posts = Array.from({ length: 10 }, (_, n) => call('POST', `/q/foo?wait=30`, { body: String(n) }))
    const poll = call('GET', '/q/empty?wait=30')
    await until(async () => (await queue.counts()).waiting === 10, { what: 'the posts' })
    const closing = gateway.close({ grace: 500 })
    assertProblem(await call('GET', '/readyz'), 503, 'gateway is closing')
    assert.equal((await call('GET', '/healthz')).status, 200)
    assert.equal((await call('GET', '/q/foo')).status, 200, 'it goes on serving')
    const answers = await Promise.all(posts)
    assert.deepEqual(answers.map(({ status }) => status).sort(), [200, ...Array(9).fill(202)])
    assertProblem(await poll, 404, 'no job')
    await closing
    assertProblem(await call('GET', '/j/foo'), 503, 'gateway is closing')
    assert.equal((await queue.counts()).waiting, 9, 'the jobs go on')
  },
)

test('lifecycle - it closes at once when nothing waits, and all is released', async () => {
  const gateway = createGateway({})
  await gateway.fetch(new Request('http://localhost/q/foo', { method: 'POST', body: '1' }))
  const closed = gateway.close({ grace: 60_000 })
  assert.equal(
    await Promise.race([closed.then(() => 'closed'), sleep(5_000, 'late', { ref: false })]),
    'closed',
  )
  await gateway.close()
  assert.throws(() => gateway.close({ grace: -1 }), TypeError)
  assert.throws(() => gateway.close({ drain: -1 }), TypeError)
})

onBothWorlds(
  'lifecycle - it drains before the grace: not ready, and it serves although nothing waits',
  async (w) => {
    const { gateway, call } = await w.open()
    let isOver = false
    const closing = gateway.close({ drain: 300, grace: 60_000 }).finally(() => {
      isOver = true
    })
    assertProblem(await call('GET', '/readyz'), 503, 'gateway is closing')
    const poll = call('GET', '/q/foo?wait=30')
    assert.equal((await call('POST', '/q/foo', { body: '1' })).status, 201)
    assert.equal((await poll).text, '1')
    assert.equal(isOver, false)
    await closing
    assertProblem(await call('GET', '/j/foo'), 503, 'gateway is closing')
  },
)

test('lifecycle - all routes are below a base path', async () => {
  const server = await serve(createGateway({ basePath: '/api/jobs' }))
  try {
    const posted = await server.call('POST', '/api/jobs/q/foo', { body: '1' })
    assert.match(posted.headers.get('location') ?? '', /^\/api\/jobs\/j\/foo\//)
    assert.equal((await server.call('GET', posted.headers.get('location') ?? '')).status, 200)
    assertProblem(await server.call('GET', '/q/foo'), 404, 'no such route')
  } finally {
    await server.close()
  }
})

test('lifecycle - without Redis it is alive, not ready, and says that the store is unavailable', async () => {
  await using t = await setup()
  const server = await serve(
    createGateway({
      redis: t.redis,
      queueOptions: { unavailableAfter: 300 },
      lockerOptions: { unavailableAfter: 300 },
    }),
  )
  try {
    await server.call('POST', '/q/foo', { body: '1' })
    await t.server.kill()
    assertProblem(await server.call('POST', '/q/foo', { body: '1' }), 503, 'store is unavailable')
    assert.equal((await server.call('GET', '/healthz')).status, 200)
    const ready = await server.call('GET', '/readyz')
    assertProblem(ready, 503, 'store is unavailable')
    assert.doesNotMatch(ready.text, /ECONN|127\.0\.0\.1|sock/)
    await t.server.restart()
    await until(async () => (await server.call('GET', '/readyz')).status === 200, {
      what: 'it to be ready again',
    })
    assert.equal((await server.call('POST', '/q/foo', { body: '1' })).status, 201)
  } finally {
    await server.close()
  }
})

test('lifecycle - durations are seconds, or have a unit', () => {
  const bounds = { max: 86_400_000 }
  const read = (text: string) => parseDuration(text, bounds)
  assert.deepEqual(['30', '30s', '500ms', '1.5', '2m', '1h', '1d', '0'].map(read), [
    ...[30_000, 30_000, 500, 1_500, 120_000, 3_600_000, 86_400_000, 0],
  ])
  for (const text of [
    '',
    ' 1',
    '1 s',
    '-1',
    '+1',
    '1e3',
    '0x10',
    'Infinity',
    'NaN',
    '1w',
    '2d',
    '.5',
    '1'.repeat(16),
  ])
    assert.equal(read(text), undefined, text)
})
