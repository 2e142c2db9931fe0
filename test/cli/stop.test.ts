import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect } from 'node:net'
import { test } from 'node:test'
import pDefer from 'p-defer'
import { RedisQueue } from '../../src/index.ts'
import { Cli } from '../support/cli.ts'
import { LOCALHOST } from '../support/ports.ts'
import { setup } from '../support/setup.ts'
import { took, until } from '../support/wait.ts'

const EPSILON = 1000

test('cli stop - SIGTERM under ten waiting posts: not ready, all are answered, it ends well', async () => {
  await using t = await setup({ port: 'free' })
  await using cli = await Cli.serve(['--redis', t.url, '--grace', '30s'])
  await using queue = new RedisQueue('jobs', { redis: t.url })
  const begun = new Set<unknown>()
  const release = pDefer<void>()
  queue.process(
    'job',
    async (payload) => {
      begun.add(payload)
      await release.promise
      return { done: payload }
    },
    { concurrency: 10 },
  )
  const numbers = Array.from({ length: 10 }, (_, number) => number)
  const answers = Promise.all(numbers.map((number) => cli.post(number)))
  await until(() => begun.size === 10, { what: 'all jobs to run', timeout: 15_000 })
  cli.signal('SIGTERM')
  await cli.answers(503, '/readyz')
  assert.ok(cli.runs)
  release.resolve()
  // Clients are told not to send more on the connection.
  const answerTo = (done: number) => ({ status: 200, text: JSON.stringify({ done }), connection: 'close' })
  assert.deepEqual(await answers, numbers.map(answerTo))
  assert.ok((await took(() => cli.exits())) < 2 * EPSILON)
  assert.equal(await cli.exits(), 0)
  assert.equal(cli.errors, '')
})

test('cli stop - what still waits at the end of the grace is answered, and the job goes on', async () => {
  await using t = await setup({ port: 'free' })
  await using cli = await Cli.serve(['--redis', t.url, '--grace', '500ms'])
  await using queue = new RedisQueue('jobs', { redis: t.url })
  const answer = cli.post('for later')
  await until(async () => (await queue.counts()).waiting === 1, { what: 'the job' })
  const ms = await took(async () => {
    cli.signal('SIGINT')
    assert.equal(await cli.exits(), 0)
  })
  assert.ok(ms > 450 && ms < 500 + 2 * EPSILON, `it took ${ms} ms`)
  assert.equal((await answer).status, 202)
  assert.equal((await queue.counts()).waiting, 1)
})

for (const second of ['SIGTERM', 'SIGINT'] as const) {
  test(`cli stop - a second signal, ${second}, ends it at once`, async () => {
    await using t = await setup({ port: 'free' })
    await using cli = await Cli.serve(['--redis', t.url, '--grace', '60'])
    await using queue = new RedisQueue('jobs', { redis: t.url })
    const answer = cli.post('never done').catch(() => 'cut')
    await until(async () => (await queue.counts()).waiting === 1, { what: 'the job' })
    cli.signal('SIGTERM')
    await cli.answers(503, '/readyz')
    const ms = await took(async () => {
      await until(
        () => {
          cli.signal(second)
          return !cli.runs
        },
        { what: 'it to end', every: 50 },
      )
    })
    assert.ok(ms < EPSILON, `it took ${ms} ms`)
    assert.equal(await cli.exits(), 1)
    assert.equal(await answer, 'cut')
  })
}

test('cli stop - it ends at once when nothing waits, also on an idle connection', async () => {
  await using cli = await Cli.serve()
  await cli.answers(200, '/healthz')
  const ms = await took(async () => {
    cli.signal('SIGTERM')
    assert.equal(await cli.exits(), 0)
  })
  assert.ok(ms < 2 * EPSILON, `it took ${ms} ms`)
})

test('cli stop - it drains when nothing is under way: not ready, and what comes is served', async () => {
  await using cli = await Cli.serve(['--drain', '1500ms', '--grace', '30s'])
  await cli.answers(200, '/readyz')
  const ms = await took(async () => {
    cli.signal('SIGTERM')
    await cli.answers(503, '/readyz')
    const posted = await fetch(`${cli.url}/q/jobs`, { method: 'POST', body: '1' })
    await posted.text()
    assert.deepEqual([posted.status, posted.headers.get('connection')], [201, 'close'])
    assert.equal(await cli.exits(), 0)
  })
  assert.ok(ms > 1450 && ms < 1500 + 2 * EPSILON, `it took ${ms} ms`)
})

test('cli stop - clients that send half a request, or nothing, do not keep it from ending', async () => {
  await using cli = await Cli.serve(['--grace', '200ms'])
  const port = Number(new URL(cli.url).port)
  const head = 'POST /q/jobs HTTP/1.1\r\nHost: localhost\r\n'
  const sockets = ['', head, `${head}Content-Length: 10\r\n\r\n1`].map((text) => {
    const socket = connect(port, LOCALHOST).on('error', () => {})
    socket.write(text)
    return socket
  })
  await Promise.all(sockets.map((socket) => once(socket, 'connect')))
  await cli.answers(200, '/healthz')
  const ms = await took(async () => {
    cli.signal('SIGTERM')
    assert.equal(await cli.exits(), 0)
  })
  // The grace, then as long as the gateway and the server give answers that are on their way.
  assert.ok(ms < 200 + 4000 + EPSILON, `it took ${ms} ms`)
  for (const socket of sockets) socket.destroy()
})

test('cli stop - a Redis that is frozen does not keep it from ending', async () => {
  await using t = await setup({ port: 'free' })
  await using cli = await Cli.serve(['--redis', t.url, '--grace', '200ms'])
  await cli.answers(200, '/readyz')
  await t.server.freeze()
  await cli.answers(503, '/readyz')
  const ms = await took(async () => {
    cli.signal('SIGTERM')
    assert.equal(await cli.exits(), 0)
  })
  assert.ok(ms < 200 + 4000 + EPSILON, `it took ${ms} ms`)
})
