// Who may do what: tokens and their scopes, pages of other origins, names of the host.

import assert from 'node:assert/strict'
import { request } from 'node:http'
import { test } from 'node:test'
import { createGateway, type GatewayOptions, type Scope } from '../../src/gateway/index.ts'
import { ROUTES as TABLE } from '../../src/gateway/routes/index.ts'
import { assertProblem, type GatewayServer, serve } from '../support/gateway.ts'

/** Every route that is not public, with the scope that it needs; 'changes': it changes or takes something. */
const EXPECTED: readonly [method: string, path: string, scope: Scope, effect: 'reads' | 'changes'][] = [
  ['POST', '/q/:queue', 'submit', 'changes'],
  ['POST', '/qb/:queue', 'submit', 'changes'],
  ['GET', '/q/:queue', 'work', 'changes'],
  ['GET', '/qb/:queue', 'work', 'changes'],
  ['PUT', '/q/:queue', 'work', 'changes'],
  ['PUT', '/qb/:queue', 'work', 'changes'],
  ['DELETE', '/qb/:queue', 'work', 'changes'],
  ['PATCH', '/q/:queue', 'work', 'changes'],
  ['DELETE', '/q/:queue', 'admin', 'changes'],
  ['GET', '/j/:queue', 'read', 'reads'],
  ['GET', '/j/:queue/:id', 'read', 'reads'],
  ['GET', '/j/:queue/:id/log', 'read', 'reads'],
  ['POST', '/j/:queue/:id/cancel', 'admin', 'changes'],
  ['POST', '/j/:queue/:id/retry', 'admin', 'changes'],
  ['DELETE', '/j/:queue/:id', 'admin', 'changes'],
  ['GET', '/control/:queue', 'read', 'reads'],
  ['POST', '/control/:queue', 'admin', 'changes'],
  ['GET', '/status/:queue', 'read', 'reads'],
  ['GET', '/status/', 'read', 'reads'],
  ['GET', '/stats/', 'read', 'reads'],
  ['GET', '/metrics', 'read', 'reads'],
  ['GET', '/locks/:key', 'read', 'reads'],
  ['GET', '/locks/:key/wait', 'read', 'reads'],
  ['POST', '/locks/:key/wait', 'read', 'reads'],
  ['POST', '/locks/:key/claim', 'work', 'changes'],
  ['PUT', '/locks/:key', 'work', 'changes'],
  ['PATCH', '/locks/:key', 'work', 'changes'],
  ['POST', '/locks/:key/fail', 'work', 'changes'],
  ['POST', '/locks/:key/release', 'work', 'changes'],
  ['GET', '/locks/', 'read', 'reads'],
  ['GET', '/events', 'read', 'reads'],
  ['GET', '/j/:queue/:id/events', 'read', 'reads'],
  ['GET', '/streams/:key', 'read', 'reads'],
  ['GET', '/overview', 'read', 'reads'],
  ['GET', '/overview/events', 'read', 'reads'],
  ['GET', '/w/', 'read', 'reads'],
  ['POST', '/w/:queue', 'work', 'changes'],
  ['DELETE', '/w/:queue', 'work', 'changes'],
  ['GET', '/jobs/:queue', 'read', 'reads'],
  ['POST', '/jobs/:queue/:action', 'admin', 'changes'],
  ['POST', '/s/:service/:event', 'submit', 'changes'],
  ['POST', '/b/:topic', 'submit', 'changes'],
  ['GET', '/b/:topic', 'read', 'reads'],
]

/** The same with paths that can be asked for. */
const ROUTES = EXPECTED.map(
  ([method, path, ...rest]) => [method, path.replace(/:(\w+)/g, '$1'), ...rest] as const,
)

const SCOPES: readonly Scope[] = ['read', 'submit', 'work', 'admin']

async function open(options: GatewayOptions): Promise<GatewayServer & AsyncDisposable> {
  const server = await serve(createGateway(options))
  return { ...server, [Symbol.asyncDispose]: () => server.close() }
}

test('access - what the bindings of a request say of its caller is not believed', async () => {
  await using gateway = createGateway({ tokens: [{ token: 'secret', scopes: ['admin'] }] })
  const caller = { scopes: ['admin'], by: 'token' }
  const response = await gateway.fetch(new Request('http://localhost/stats/'), { caller })
  assert.equal(response.status, 401)
})

test('access - every route demands its scope, and admin implies all', async () => {
  const tokens = SCOPES.map((scope) => ({ token: `token-${scope}`, scopes: [scope] }))
  await using gateway = await open({ tokens })
  for (const [method, path, needed] of ROUTES) {
    const name = `${method} ${path}`
    const none = await gateway.call(method, path)
    assertProblem(none, 401, 'token required')
    assert.equal(none.headers.get('www-authenticate'), 'Bearer', name)
    for (const authorization of [
      'Bearer token',
      'Bearer token-read2',
      'Basic token-admin',
      'token-admin',
      '',
    ])
      assert.equal((await gateway.call(method, path, { headers: { authorization } })).status, 401, name)
    for (const scope of SCOPES) {
      const { status, text } = await gateway.call(method, path, {
        headers: { authorization: `Bearer token-${scope}` },
      })
      const isRefused = text.includes('insufficient scope')
      assert.equal(
        isRefused,
        scope !== needed && scope !== 'admin',
        `${name} with ${scope}: ${status} ${text}`,
      )
      if (isRefused) assert.equal(status, 403)
    }
  }
  const { status } = await gateway.call('GET', '/healthz')
  assert.equal(status, 200, 'a probe needs no token')
})

test('access - with an empty list of tokens nobody may do anything; without one, everybody', async () => {
  await using closed = await open({ tokens: [] })
  assertProblem(
    await closed.call('GET', '/j/foo', { headers: { authorization: 'Bearer x' } }),
    401,
    'token required',
  )
  await using opened = await open({})
  assert.equal((await opened.call('GET', '/j/foo')).status, 200)
})

test('access - pages of other origins change and take nothing, GETs that take included', async () => {
  await using gateway = await open({})
  await gateway.call('POST', '/q/foo', { body: '1' })
  const foreign: Record<string, string>[] = [
    { origin: 'https://evil.example' },
    { origin: 'null' },
    { origin: 'http://127.0.0.1:1' },
    { origin: 'file://' },
    { 'sec-fetch-site': 'cross-site' },
    { 'sec-fetch-site': 'same-site' },
    { 'sec-fetch-site': 'CROSS-SITE' },
    { origin: gateway.url, 'sec-fetch-site': 'cross-site' },
  ]
  for (const [method, path, , effect] of ROUTES)
    for (const headers of foreign) {
      const answer = await gateway.fetch(method, path, { headers: { host: '127.0.0.1', ...headers } })
      if (effect === 'changes') assertProblem(answer, 403, 'cross-site request')
      else assert.notEqual(answer.status, 403, `${method} ${path}`)
    }
  const { job_count } = (await gateway.call('GET', '/j/foo')).json as { job_count: number }
  assert.equal(job_count, 1)
  const own = { origin: 'https://localhost', 'sec-fetch-site': 'same-origin' }
  assert.equal((await gateway.fetch('GET', '/q/foo', { headers: own })).status, 200)
})

/** The status of a request with this Host, or to this target. */
function statusOf({ port }: GatewayServer, host: string, path = '/j/foo'): Promise<number> {
  return new Promise((resolve, reject) => {
    const sent = request({ port, host: '127.0.0.1', path, headers: { host } }, (response) => {
      response.resume()
      resolve(response.statusCode ?? 0)
    })
    sent.on('error', reject)
    sent.end()
  })
}

test('access - a request to a name that is not ours is refused: a page cannot come by DNS rebinding', async () => {
  await using gateway = await open({})
  for (const host of ['localhost', 'LOCALHOST:5000', '127.0.0.1', '[::1]:80'])
    assert.equal(await statusOf(gateway, host), 200, host)
  for (const host of ['evil.example', 'localhost.evil.example', 'localhost.', '127.0.0.2', '0.0.0.0', '[::]'])
    assert.equal(await statusOf(gateway, host), 421, host)
  for (const host of ['a@localhost', 'localhost/x', 'evil.example\\localhost', '%6c'])
    assert.ok((await statusOf(gateway, host)) >= 400, host)
  assert.equal(await statusOf(gateway, 'localhost', 'http://evil.example/j/foo'), 421)
  assert.equal(await statusOf(gateway, 'evil.example', 'http://localhost/j/foo'), 421)
  await using named = await open({ hosts: ['jobs.example.com'] })
  assert.equal(await statusOf(named, 'jobs.example.com:8080'), 200)
  assert.equal(await statusOf(named, 'localhost'), 421)
})

test('access - HEAD takes nothing', async () => {
  await using gateway = await open({})
  await gateway.call('POST', '/q/foo', { body: '1' })
  const head = await gateway.call('HEAD', '/q/foo')
  assert.deepEqual([head.status, head.headers.get('allow')], [405, 'GET'])
  const counted = await gateway.call('HEAD', '/j/foo')
  assert.deepEqual([counted.status, counted.headers.get('content-length')], [200, null])
  assert.equal((await gateway.call('GET', '/q/foo')).text, '1')
})

test('access - the list above names every route of the table, with its scope and effect', () => {
  const declared = TABLE.filter(({ scope, summary }) => scope !== 'public' && summary !== undefined).map(
    ({ method, path, scope, effect }) => [method, [path].flat()[0], scope, effect],
  )
  const expected = EXPECTED.filter(([method, path]) => path !== '/qb/:queue' || /GET|POST/.test(method))
  assert.deepEqual(expected.map(String).sort(), declared.map(String).sort())
})

test('access - options that are wrong are refused, and no token is shown', () => {
  const wrong: [GatewayOptions, RegExp][] = [
    [{ tokens: [{ token: 'se cret', scopes: [] }] }, /`tokens\[0\]\.token` to be letters/],
    [{ tokens: [{ token: 'x', scopes: ['root' as Scope] }] }, /scopes\[0\]/],
    [{ hosts: ['Localhost'] }, /hosts\[0\]/],
    [{ hosts: ['localhost:80'] }, /hosts\[0\]/],
    [{ basePath: 'jobs' }, /basePath/],
    [{ basePath: '/jobs/' }, /basePath/],
    [{ maxBody: 0 }, /maxBody/],
    [{ maxSockets: 0 }, /maxSockets/],
    [{ services: {} as never }, /services/],
    [{ bus: {} as never }, /bus/],
    [{ maxWait: Number.POSITIVE_INFINITY }, /maxWait/],
    [{ heartbeat: 0 }, /heartbeat/],
    [{ maxStreams: 0 }, /maxStreams/],
    [{ maxWaits: 1 } as GatewayOptions, /did you mean `maxWait`/],
    [{ queueOptions: { leese: 1 } as object }, /did you mean `lease`/],
  ]
  for (const [options, message] of wrong)
    assert.throws(
      () => createGateway(options),
      (error: Error) =>
        error instanceof TypeError && message.test(error.message) && !error.message.includes('se cret'),
    )
})
