// Jobs are searched in bounded steps, and those that match are changed.

import assert from 'node:assert/strict'
import { assertProblem, type GatewayServer, onBothWorlds } from '../../support/gateway.ts'

interface Page {
  jobs: { id: string; command: string; state: string; job?: unknown; length?: number }[]
  scanned: number
  cursor: string | null
}

async function pageOf(server: GatewayServer, path: string): Promise<Page> {
  const { status, json, text } = await server.call('GET', path)
  assert.equal(status, 200, text)
  return json as Page
}

/** Jobs of all pages, and how many were read. */
async function all(server: GatewayServer, path: string): Promise<{ jobs: Page['jobs']; scanned: number }> {
  const jobs: Page['jobs'] = []
  let scanned = 0
  for (let cursor: string | null = ''; cursor !== null; ) {
    const page: Page = await pageOf(server, cursor === '' ? path : `${path}&cursor=${cursor}`)
    jobs.push(...page.jobs)
    scanned += page.scanned
    cursor = page.cursor
  }
  return { jobs, scanned }
}

async function post(server: GatewayServer, count: number, query: string, body: (n: number) => unknown) {
  const jobs = Array.from({ length: count }, (_, n) => body(n))
  const { status, text } = await server.call('POST', `/qb/mine${query}`, { body: JSON.stringify({ jobs }) })
  assert.equal(status, 201, text)
}

onBothWorlds('search - by state, command and payload, page by page', async (w) => {
  const server = await w.open()
  await post(server, 130, '', (n) => ({ n, name: n % 10 === 0 ? 'Gold' : 'coal' }))
  await post(server, 5, '?delay=1000', (n) => `later gold ${n}`)
  await post(server, 3, '?command=sift', (n) => n)
  const waiting = await all(server, '/jobs/mine?state=waiting&limit=50')
  assert.deepEqual([waiting.jobs.length, waiting.scanned], [133, 133])
  assert.equal(new Set(waiting.jobs.map(({ id }) => id)).size, 133)
  const first = await pageOf(server, '/jobs/mine?state=waiting&limit=2')
  assert.deepEqual(
    first.jobs.map(({ job }) => job),
    [
      { n: 0, name: 'Gold' },
      { n: 1, name: 'coal' },
    ],
  )
  assert.equal(first.scanned, 2)
  const gold = await all(server, '/jobs/mine?text=GOLD&limit=7')
  assert.deepEqual([gold.jobs.length, gold.scanned], [18, 138])
  assert.equal((await all(server, '/jobs/mine?text=gold&state=delayed')).jobs.length, 5)
  assert.deepEqual(
    (await all(server, '/jobs/mine?command=sift')).jobs.map(({ command }) => command),
    ['sift', 'sift', 'sift'],
  )
  assert.deepEqual(await pageOf(server, '/jobs/nobody?state=running'), { jobs: [], scanned: 0, cursor: null })
})

onBothWorlds(
  'search - one request reads a bounded number of jobs, and long payloads are left out',
  async (w) => {
    const server = await w.open()
    await post(server, 900, '', (n) => n)
    await post(server, 300, '', (n) => `more ${n}`)
    const page = await pageOf(server, '/jobs/mine?text=299&limit=100')
    assert.equal(page.scanned, 1_000)
    assert.deepEqual(
      page.jobs.map(({ job }) => job),
      [299],
    )
    assert.notEqual(page.cursor, null)
    const rest = await pageOf(server, `/jobs/mine?text=299&limit=100&cursor=${page.cursor}`)
    assert.deepEqual([rest.scanned, rest.jobs.map(({ job }) => job), rest.cursor], [200, ['more 299'], null])
    await server.call('POST', '/q/long', { body: JSON.stringify('x'.repeat(10_000)) })
    const { jobs } = await pageOf(server, '/jobs/long')
    assert.deepEqual([jobs[0]?.job, jobs[0]?.length], [undefined, 10_002])
  },
)

onBothWorlds('search - all that match are changed, if their number is as it was shown', async (w) => {
  const server = await w.open()
  await post(server, 30, '', (n) => (n < 25 ? `wrong ${n}` : `right ${n}`))
  await post(server, 4, '?delay=1000', (n) => `wrong later ${n}`)
  const path = '/jobs/mine/remove?text=wrong'
  const call = async (query: string) => server.call('POST', path + query)
  assert.deepEqual((await call('&dry=1')).json, { matched: 29, scanned: 34, complete: true })
  assertProblem(await call(''), 400, 'invalid parameter')
  assertProblem(await call('&expect=28'), 409, 'count differs')
  assert.equal((await pageOf(server, '/jobs/mine?limit=100')).jobs.length, 34, 'nothing was done')
  assert.deepEqual((await call('&state=delayed&expect=4')).json, {
    matched: 4,
    done: 4,
    failed: 0,
    complete: true,
  })
  assert.deepEqual((await call('&expect=25')).json, { matched: 25, done: 25, failed: 0, complete: true })
  const { jobs } = await pageOf(server, '/jobs/mine?limit=100')
  assert.deepEqual(
    jobs.map(({ job }) => job),
    [25, 26, 27, 28, 29].map((n) => `right ${n}`),
  )
  for (let n = 0; n < 5; n++) {
    const taken = await server.call('GET', '/q/mine?lease=30')
    const headers = { 'x-lease': taken.headers.get('x-lease') ?? '' }
    assert.equal((await server.call('PUT', '/q/mine?failed', { body: '"no"', headers })).status, 204)
  }
  assert.equal((await pageOf(server, '/jobs/mine?state=failed')).jobs.length, 5)
  const retried = await server.call('POST', '/jobs/mine/retry?state=failed&expect=5')
  assert.deepEqual(retried.json, { matched: 5, done: 5, failed: 0, complete: true })
  assert.equal((await pageOf(server, '/jobs/mine?state=waiting')).jobs.length, 5)
  const cancelled = await server.call('POST', '/jobs/mine/cancel?expect=5')
  assert.deepEqual(cancelled.json, { matched: 5, done: 5, failed: 0, complete: true })
  assert.deepEqual((await pageOf(server, '/jobs/mine?state=running')).jobs, [])
})

onBothWorlds(
  'search - one action changes a bounded number of jobs, and says that there are more',
  async (w) => {
    const server = await w.open()
    await post(server, 700, '', (n) => n)
    await post(server, 700, '', (n) => n)
    const remove = async (query: string) => (await server.call('POST', `/jobs/mine/remove?${query}`)).json
    assert.deepEqual(await remove('dry'), { matched: 1_000, scanned: 1_000, complete: false })
    assert.deepEqual(await remove('expect=1000'), { matched: 1_000, done: 1_000, failed: 0, complete: false })
    assert.deepEqual(await remove('expect=400'), { matched: 400, done: 400, failed: 0, complete: true })
  },
)

onBothWorlds('search - what is wrong is refused', async (w) => {
  const server = await w.open()
  for (const path of ['constructor', '__proto__', 'erase'])
    assertProblem(await server.call('POST', `/jobs/mine/${path}?dry=1`), 404, 'no such action')
  for (const query of [
    'cursor=x',
    'cursor=0-1e9',
    'limit=0',
    'limit=101',
    'state=lost',
    `text=${'x'.repeat(1_025)}`,
  ])
    assertProblem(await server.call('GET', `/jobs/mine?${query}`), 400, 'invalid parameter')
  assertProblem(await server.call('POST', '/jobs/mine/retry?state=waiting&dry=1'), 400, 'invalid parameter')
  assertProblem(await server.call('POST', '/jobs/mine/cancel?expect=-1'), 400, 'invalid parameter')
})
