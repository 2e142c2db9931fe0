import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { test } from 'node:test'
import { WebSocket } from 'ws'
import { Bus } from '../../src/index.ts'
import { Cli, fileOf } from '../support/cli.ts'
import { freePort, LOCALHOST } from '../support/ports.ts'
import { RedisServer } from '../support/redis-server.ts'
import { setup } from '../support/setup.ts'
import { until } from '../support/wait.ts'

test('cli serve - it serves embedded, and says where in one line', async () => {
  await using cli = await Cli.serve()
  await cli.answers(200, '/readyz')
  assert.match(cli.output, /^soloflight serves http:\/\/127\.0\.0\.1:\d+, embedded, without Redis\n$/)
  assert.equal(cli.errors, '')
})

test('cli serve - secrets are not printed, whatever happens', async () => {
  await using t = await setup({ port: 'free' })
  // The server knows neither the user nor the password.
  const redis = `redis://hunter1:hunter2@${LOCALHOST}:${t.server.port}/0?password=hunter3`
  const tokenFile = await fileOf('tokens', 'work=hunter5')
  await using cli = await Cli.serve(['--token', 'admin=hunter4', '--token-file', tokenFile], {
    SOLOFLIGHT_REDIS: redis,
    DEBUG: '1',
  })
  await cli.answers(503, '/readyz')
  cli.signal('SIGTERM')
  assert.equal(await cli.exits(), 0)
  assert.match(
    cli.output,
    new RegExp(`^soloflight serves http:\\S+, on redis://${LOCALHOST}:${t.server.port}/0\n$`),
  )
  assert.doesNotMatch(cli.output + cli.errors, /hunter/)
})

test('cli serve - with a token it serves other addresses, and the token is needed', async () => {
  await using cli = await Cli.serve(['--host', '0.0.0.0', '--token', 'submit=secret'])
  const url = cli.url.replace('0.0.0.0', LOCALHOST)
  const statusWith = async (token?: string) => {
    const headers = token === undefined ? {} : { authorization: `Bearer ${token}` }
    const response = await fetch(`${url}/q/jobs`, { method: 'POST', body: '1', headers })
    await response.text()
    return response.status
  }
  assert.deepEqual(
    await Promise.all([statusWith(), statusWith('wrong'), statusWith('secret')]),
    [401, 401, 201],
  )
})

test('cli serve - bounds of streams and sockets, the heartbeat and the attempts of jobs are settings', async () => {
  await using cli = await Cli.serve(['--max-streams', '1', '--heartbeat', '100ms', '--attempts', '2'], {
    SOLOFLIGHT_MAX_SOCKETS: '1',
  })
  const stream = await fetch(`${cli.url}/events`)
  assert.equal((await fetch(`${cli.url}/events`)).status, 503)
  let told = ''
  for await (const chunk of stream.body ?? []) {
    told += Buffer.from(chunk)
    // The comment of a heartbeat.
    if (/^:/m.test(told)) break
  }
  await fetch(`${cli.url}/q/jobs`, { method: 'POST', body: '1' })
  const { headers } = await fetch(`${cli.url}/q/jobs?lease=30`)
  assert.equal(headers.get('x-job-attempts'), '2')
  const first = new WebSocket(`${cli.url.replace('http', 'ws')}/ws`)
  await once(first, 'open')
  const second = new WebSocket(`${cli.url.replace('http', 'ws')}/ws`)
  const [error] = await once(second, 'error')
  assert.match(String(error), /503/)
  first.terminate()
})

test('cli serve - it answers to the names of this machine, of its address, and to those that are allowed', async () => {
  await using cli = await Cli.serve(['--host', '127.0.0.2', '--allow-host', 'jobs.example'])
  const port = new URL(cli.url).port
  const statusFor = async (host: string) => {
    const { request } = await import('node:http')
    const asked = request(`${cli.url}/q/jobs`, { method: 'POST', headers: { host } })
    const [response] = await once(asked.end('1'), 'response')
    response.resume()
    return response.statusCode
  }
  for (const host of ['localhost', '127.0.0.2', 'jobs.example', 'JOBS.example:443'])
    assert.equal(await statusFor(host), 201, host)
  assert.equal(await statusFor(`evil.example:${port}`), 421)
})

test('cli serve - all routes are below the base path', async () => {
  await using cli = await Cli.serve(['--base-path', '/shop/jobs'])
  assert.match(cli.url, /:\d+\/shop\/jobs$/)
  await cli.answers(200, '/readyz')
  assert.equal((await fetch(new URL('/readyz', cli.url))).status, 404)
})

test('cli serve - a body is as large as --max-body', async () => {
  await using cli = await Cli.serve(['--max-body', '1KiB'])
  const statusOf = (length: number) =>
    cli.status('/q/jobs', { method: 'POST', body: `"${'x'.repeat(length - 2)}"` })
  assert.deepEqual([await statusOf(1024), await statusOf(1025)], [201, 413])
})

test('cli serve - the bus is on instances of its own', async () => {
  await using one = await setup()
  await using two = await setup()
  await using cli = await Cli.serve(['--bus', one.url, '--bus', two.url])
  await using bus = new Bus({ redis: [one.url, two.url] })
  // Of these names, some have their place on each instance.
  const topics = Array.from({ length: 8 }, (_, n) => bus.pubsub<number>(`topic ${n}`))
  const received: number[] = []
  for (const topic of topics) topic.on('message', (message) => received.push(message))
  await Promise.all(topics.map((topic) => topic.subscribe()))
  for (const [n, { name }] of topics.entries())
    assert.equal(await cli.status(`/b/${encodeURIComponent(name)}`, { method: 'POST', body: `${n}` }), 204)
  await until(() => received.length === 8, { what: 'the messages' })
  assert.deepEqual(received.sort(), [0, 1, 2, 3, 4, 5, 6, 7])
})

test('cli serve - a port that is in use is named', async () => {
  const other = createServer().listen(0, LOCALHOST)
  await once(other, 'listening')
  const { port } = other.address() as { port: number }
  await using cli = await Cli.start(['serve', '--port', `${port}`])
  assert.equal(
    await cli.complaint(1),
    `Another process listens on port ${port} of ${LOCALHOST}: choose another one by --port`,
  )
  other.close()
})

test('cli serve - an address that is not of this machine is refused', async () => {
  await using cli = await Cli.start(['serve', '--host', '192.0.2.1', '--token', 'read=secret'])
  assert.match(await cli.complaint(1), /^Cannot listen on port 5000 of 192\.0\.2\.1: EADDRNOTAVAIL$/)
})

test('cli serve - Redis is away at the start: it serves, is not ready, and becomes ready', async () => {
  const port = await freePort()
  await using cli = await Cli.serve(['--redis', `redis://${LOCALHOST}:${port}`])
  assert.equal(await cli.status('/healthz'), 200)
  assert.equal(await cli.status('/readyz'), 503)
  await using server = await RedisServer.start({ port })
  await cli.answers(200, '/readyz')
  await server.kill()
  await cli.answers(503, '/readyz')
  assert.ok(cli.runs)
})

test('cli serve - with --audit each change is a line of JSON on stderr, with the name of the token', async () => {
  await using cli = await Cli.serve(['--audit', 'changes', '--token', 'ann:admin=hunter2'])
  const call = async (method: string, path: string, body: string) => {
    const headers = { authorization: 'Bearer hunter2' }
    const response = await fetch(`${cli.url}${path}`, { method, body, headers })
    await response.text()
  }
  await call('POST', '/q/a', '1')
  await call('POST', '/control/a', '{"status":"stop"}')
  await until(() => cli.errors.includes('\n'), { what: 'the line' })
  const { at, ...event } = JSON.parse(cli.errors) as Record<string, unknown>
  assert.deepEqual(event, { audit: 'stop', who: 'ann', queue: 'a', status: 200 })
  assert.ok(Math.abs(Date.parse(String(at)) - Date.now()) < 60_000)
  assert.doesNotMatch(cli.errors, /hunter/)
})

test('cli serve - it serves on when nobody reads its output any more', async () => {
  await using cli = await Cli.serve(['--audit', 'all'])
  cli.closeOutput()
  for (const payload of ['1', '2'])
    assert.equal(await cli.status('/q/jobs', { method: 'POST', body: payload }), 201)
  cli.signal('SIGTERM')
  assert.equal(await cli.exits(), 0)
})
