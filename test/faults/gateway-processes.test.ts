// Several gateways of one Redis, each a process: they are one gateway, and one of them may die.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import pDefer from 'p-defer'
import { RedisQueue } from '../../src/index.ts'
import { Cli } from '../support/cli.ts'
import { type Setup, setup } from '../support/setup.ts'
import { until } from '../support/wait.ts'

interface Answer {
  status: number
  headers: Headers
  text: string
}

async function call(
  { url }: Cli,
  method: string,
  path: string,
  { body, headers = {} }: { body?: string; headers?: Record<string, string> } = {},
): Promise<Answer> {
  const response = await fetch(url + path, { method, headers, ...(body !== undefined && { body }) })
  return { status: response.status, headers: response.headers, text: await response.text() }
}

interface Gateways extends AsyncDisposable {
  readonly all: readonly [Cli, ...Cli[]]
}

/** So many gateways on a Redis. */
async function gatewaysOn({ url }: Setup, count: number): Promise<Gateways> {
  const serving = Array.from({ length: count }, () => Cli.serve(['--redis', url]))
  const all = (await Promise.all(serving)) as [Cli, ...Cli[]]
  return {
    all,
    async [Symbol.asyncDispose]() {
      await Promise.all(all.map((cli) => cli.kill()))
    },
  }
}

/** A request to each gateway by turns. */
function byTurns<T>(gateways: readonly Cli[], count: number, ask: (cli: Cli) => Promise<T>): Promise<T[]> {
  return Promise.all(Array.from({ length: count }, (_, n) => ask(gateways[n % gateways.length] as Cli)))
}

/** How many answers have each status. */
function statusesOf(answers: readonly { status: number }[]): Record<number, number> {
  const counts: Record<number, number> = {}
  for (const { status } of answers) counts[status] = (counts[status] ?? 0) + 1
  return counts
}

test('gateway processes - 50 posts with one Idempotency-Key over two of them: one run, 50 results', async () => {
  await using t = await setup({ port: 'free' })
  await using gateways = await gatewaysOn(t, 2)
  await using queue = new RedisQueue('jobs', { redis: t.url })
  let runs = 0
  const end = pDefer<void>()
  queue.process('job', async () => {
    runs++
    await end.promise
    return { run: runs }
  })
  const headers = { 'idempotency-key': 'order:7' }
  const answers = byTurns(gateways.all, 50, (cli) =>
    call(cli, 'POST', '/q/jobs?wait=30', { body: '{"order":7}', headers }),
  )
  await until(() => runs > 0, { what: 'the job to run', timeout: 15_000 })
  // All wait for it: those of one process on one park.
  await until(async () => (await queue.jobs('active')).jobs[0]?.waiters === 2, { what: 'both to wait' })
  end.resolve()
  const texts = (await answers).map(({ status, text }) => `${status} ${text}`)
  assert.deepEqual(texts, Array(50).fill('200 {"run":1}'))
  const again = await byTurns(gateways.all, 2, (cli) =>
    call(cli, 'POST', '/q/jobs?wait=30', { body: '{"order":7}', headers }),
  )
  assert.deepEqual(statusesOf(again), { 200: 2 })
  assert.equal(runs, 1)
})

test('gateway processes - 150 posts of one uniq over four of them: one 201', async () => {
  await using t = await setup({ port: 'free' })
  await using gateways = await gatewaysOn(t, 4)
  const answers = await byTurns(gateways.all, 150, (cli) =>
    call(cli, 'POST', '/q/jobs?uniq=me', { body: '1' }),
  )
  assert.deepEqual(statusesOf(answers), { 201: 1, 409: 149 })
  const counts = JSON.parse((await call(gateways.all[0], 'GET', '/j/jobs')).text) as { job_count: number }
  assert.equal(counts.job_count, 1)
})

test('gateway processes - a job is taken at one that is killed, and finished at another', async () => {
  await using t = await setup({ port: 'free' })
  await using gateways = await gatewaysOn(t, 2)
  const [first, second = first] = gateways.all
  const posted = call(second, 'POST', '/q/jobs?wait=30&ttl=60', { body: '{"n":1.0}' })
  const taken = await call(first, 'GET', '/q/jobs?wait=20&lease=60')
  assert.deepEqual([taken.status, taken.text], [200, '{"n":1.0}'])
  await first.kill()
  const headers = { 'x-lease': taken.headers.get('x-lease') ?? '' }
  assert.equal((await call(second, 'PATCH', '/q/jobs', { headers, body: '{"progress":0.5}' })).status, 200)
  assert.equal((await call(second, 'PUT', '/q/jobs', { headers, body: '{"ok":1.0}' })).status, 204)
  const { status, text } = await posted
  assert.deepEqual([status, text], [200, '{"ok":1.0}'])
  assert.equal((await call(second, 'GET', '/q/jobs')).status, 404)
})

test('gateway processes - Redis is killed and back under waiting posts and long polls: none is lost', async () => {
  await using t = await setup({ port: 'free', persistence: true })
  await using gateways = await gatewaysOn(t, 1)
  const [gateway] = gateways.all
  const numbers = [0, 1, 2, 3, 4]
  const posts = numbers.map((n) => call(gateway, 'POST', '/q/posted?wait=60', { body: String(n) }))
  const polls = numbers.map(() => call(gateway, 'GET', '/q/polled?wait=60&lease=60'))
  await using queue = new RedisQueue('posted', { redis: t.url })
  await until(async () => (await queue.counts()).waiting === 5, { what: 'the posts' })
  await gateway.answers(200, '/readyz')
  await t.server.kill()
  await gateway.answers(503, '/readyz')
  await t.server.restart()
  await gateway.answers(200, '/readyz')
  for (const n of numbers) {
    assert.equal((await call(gateway, 'POST', '/q/polled', { body: String(n) })).status, 201)
    const taken = await call(gateway, 'GET', '/q/posted?wait=20&lease=60')
    assert.equal(taken.status, 200, taken.text)
    const headers = { 'x-lease': taken.headers.get('x-lease') ?? '' }
    const finished = await call(gateway, 'PUT', '/q/posted', { headers, body: `"${taken.text}"` })
    assert.equal(finished.status, 204, finished.text)
  }
  assert.deepEqual(
    (await Promise.all(posts)).map(({ status, text }) => `${status} ${text}`),
    numbers.map((n) => `200 "${n}"`),
  )
  const got = await Promise.all(polls)
  assert.deepEqual(got.map(({ text }) => text).sort(), numbers.map(String))
})
