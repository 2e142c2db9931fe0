// The dashboard's files and the sessions of browsers, over HTTP.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { brotliDecompressSync, gunzipSync } from 'node:zlib'
import { bundleDashboard } from '../../scripts/dashboard/bundle.ts'
import { encodingFor, takeAssetsFrom } from '../../src/gateway/dashboard/assets.ts'
import { CookieSessions, SESSION_SECONDS } from '../../src/gateway/dashboard/cookie-sessions.ts'
import { createGateway, type GatewayOptions } from '../../src/gateway/index.ts'
import { assertProblem, type GatewayServer, serve } from '../support/gateway.ts'

takeAssetsFrom(bundleDashboard)

async function open(options: GatewayOptions = {}): Promise<GatewayServer & AsyncDisposable> {
  const server = await serve(createGateway(options))
  return { ...server, [Symbol.asyncDispose]: () => server.close() }
}

/** The bytes of an answer as they were sent: fetch of Node would decompress them. */
async function bytesOf(gateway: GatewayServer, path: string, encoding: string): Promise<[Buffer, Headers]> {
  const headers = { 'accept-encoding': encoding }
  const response = await gateway.gateway.fetch(new Request(`http://localhost${path}`, { headers }))
  assert.equal(response.status, 200)
  return [Buffer.from(await response.arrayBuffer()), response.headers]
}

test('dashboard - the page allows nothing but its own files, which are kept for ever', async () => {
  await using gateway = await open()
  const page = await gateway.call('GET', '/')
  assert.equal(page.status, 200)
  assert.match(page.headers.get('content-type') ?? '', /^text\/html/)
  const policy = page.headers.get('content-security-policy') ?? ''
  for (const part of [
    "default-src 'none'",
    "script-src 'self'",
    "frame-ancestors 'none'",
    "form-action 'none'",
  ])
    assert.ok(policy.includes(part), part)
  assert.ok(!policy.includes('unsafe'))
  assert.deepEqual(
    ['cache-control', 'referrer-policy', 'x-frame-options', 'x-content-type-options'].map((name) =>
      page.headers.get(name),
    ),
    ['no-cache', 'no-referrer', 'DENY', 'nosniff'],
  )
  assert.ok(!/<script>|<style|style=|onerror|https?:\/\//.test(page.text), page.text)
  const files = [...page.text.matchAll(/"(assets\/[^"]+)"/g)].map(([, file]) => file ?? '')
  assert.equal(files.length, 3)
  for (const file of files) {
    assert.match(file, /-[0-9a-f]{12}\./)
    const { status, headers } = await gateway.call('GET', `/${file}`)
    assert.deepEqual([status, headers.get('cache-control')], [200, 'public, max-age=31536000, immutable'])
  }
  assertProblem(await gateway.call('GET', '/assets/main.js'), 404, 'no such route')
  assertProblem(await gateway.call('GET', '/assets/index.html'), 404, 'no such route')
  assertProblem(await gateway.call('GET', '/assets/..%2f..%2fpackage.json'), 404, 'no such route')
})

test('dashboard - its files come in the encoding that the client accepts', async () => {
  await using gateway = await open()
  const [plain] = await bytesOf(gateway, '/', 'identity')
  for (const [accepted, encoding, unpack] of [
    ['gzip, deflate, br', 'br', brotliDecompressSync],
    ['gzip', 'gzip', gunzipSync],
  ] as const) {
    const [bytes, headers] = await bytesOf(gateway, '/', accepted)
    assert.deepEqual([headers.get('content-encoding'), headers.get('vary')], [encoding, 'accept-encoding'])
    assert.deepEqual(unpack(bytes), plain)
  }
  const cases = [undefined, '', '*', 'br;q=0, gzip;q=0.5', 'br;q=0', 'BR', 'gzip;q=x'] as const
  assert.deepEqual(cases.map(encodingFor), [
    'identity',
    'identity',
    'identity',
    'gzip',
    'identity',
    'br',
    'identity',
  ])
})

test('dashboard - below a base path, and not at all', async () => {
  await using based = await open({ basePath: '/jobs' })
  assert.equal((await based.call('GET', '/jobs/')).status, 200)
  const response = await fetch(`${based.url}/jobs`, { redirect: 'manual' })
  assert.deepEqual([response.status, response.headers.get('location')], [308, 'jobs/'])
  await using none = await open({ dashboard: false })
  for (const path of ['/', '/session']) assertProblem(await none.call('GET', path), 404, 'no such route')
})

const TOKENS = [
  { token: 'secret-read', scopes: ['read'] as const, name: 'looker' },
  { token: 'secret-admin', scopes: ['admin'] as const },
]

async function signIn(gateway: GatewayServer, token: string, headers: Record<string, string> = {}) {
  const answer = await gateway.call('POST', '/session', { body: JSON.stringify({ token }), headers })
  const cookie = answer.headers.get('set-cookie') ?? ''
  return { answer, cookie, pair: cookie.split(';')[0] ?? '' }
}

test('sessions - a token is exchanged for a cookie, which any gateway with the token accepts until it ends', async () => {
  await using gateway = await open({ tokens: TOKENS, basePath: '' })
  await using other = await open({ tokens: TOKENS })
  assert.deepEqual((await gateway.call('GET', '/session')).json, { tokens: true, scopes: [] })
  assertProblem((await signIn(gateway, 'secret')).answer, 401, 'token required')
  assertProblem(await gateway.call('POST', '/session', { body: '{"token":1}' }), 400, 'invalid json')
  const { answer, cookie, pair } = await signIn(gateway, 'secret-read')
  assert.deepEqual(answer.json, { tokens: true, scopes: ['read'], name: 'looker' })
  assert.match(cookie, /^soloflight-session-\d+=[^;]+; Path=\/; Max-Age=43200; HttpOnly; SameSite=Strict$/)
  assert.ok(!cookie.includes('secret'))
  // The other gateway listens on another port, for which the cookie has another name.
  const elsewhere = pair.replace(/-\d+=/, `-${other.port}=`)
  for (const [where, value] of [
    [gateway, pair],
    [other, elsewhere],
  ] as const) {
    assert.equal((await where.call('GET', '/status/', { headers: { cookie: value } })).status, 200)
    const wrong = `${value.slice(0, -4)}AAAA`
    assertProblem(await where.call('GET', '/status/', { headers: { cookie: wrong } }), 401, 'token required')
  }
  await using later = await open({ tokens: [{ token: 'another', scopes: ['read'] }] })
  const moved = pair.replace(/-\d+=/, `-${later.port}=`)
  assertProblem(await later.call('GET', '/status/', { headers: { cookie: moved } }), 401, 'token required')
  const over = await gateway.call('DELETE', '/session')
  assert.match(over.headers.get('set-cookie') ?? '', /=; Path=\/; Max-Age=0;/)
  const secure = await signIn(gateway, 'secret-read', { origin: gateway.url.replace('http:', 'https:') })
  assert.match(secure.cookie, /; Secure$/)
})

test('sessions - with a cookie, a change must come from a page of ours', async () => {
  await using gateway = await open({ tokens: TOKENS })
  const { pair: cookie } = await signIn(gateway, 'secret-admin')
  const post = (headers: Record<string, string>) =>
    gateway.call('POST', '/q/foo', { body: '1', headers: { cookie, ...headers } })
  for (const headers of [
    {},
    { origin: 'https://evil.example' },
    { origin: 'null' },
    { 'sec-fetch-site': 'same-site' },
    { 'sec-fetch-site': 'none' },
  ])
    assertProblem(await post(headers as Record<string, string>), 403, 'cross-site request')
  assertProblem(await gateway.call('GET', '/q/foo', { headers: { cookie } }), 403, 'cross-site request')
  assert.equal((await post({ origin: gateway.url })).status, 201)
  assert.equal((await post({ 'sec-fetch-site': 'same-origin' })).status, 201)
  // A session cannot be started for somebody from elsewhere.
  assertProblem(
    (await signIn(gateway, 'secret-admin', { origin: 'https://evil.example' })).answer,
    403,
    'cross-site request',
  )
  const host = { host: 'evil.example' }
  const foreign = await gateway.gateway.fetch(new Request('http://evil.example/session', { headers: host }))
  assert.equal(foreign.status, 421)
})

test('sessions - another cookie of the same name does not hide a good one, up to four', async () => {
  await using gateway = await open({ tokens: TOKENS })
  const { pair } = await signIn(gateway, 'secret-admin')
  const [name] = pair.split('=')
  const scopesWith = async (others: number) => {
    const cookies = [...Array.from({ length: others }, () => `${name}=x`), pair].join('; ')
    const { json } = await gateway.call('GET', '/session', { headers: { cookie: cookies } })
    return (json as { scopes: string[] }).scopes.length
  }
  assert.ok((await scopesWith(3)) > 0)
  assert.equal(await scopesWith(4), 0)
})

test('sessions - one ends when its time is over, and is not accepted for longer than any is given', () => {
  const [grant] = TOKENS
  assert.ok(grant)
  const sessions = new CookieSessions(TOKENS)
  const now = 1_800_000_000_000
  const session = sessions.start(grant, now)
  assert.equal(sessions.find(session, now)?.grant.token, grant.token)
  assert.equal(sessions.find(session, now + (SESSION_SECONDS - 1) * 1000)?.grant.token, grant.token)
  assert.equal(sessions.find(session, now + SESSION_SECONDS * 1000), undefined)
  assert.equal(sessions.find(session, now - 1000 * SESSION_SECONDS), undefined, 'from the future')
  assert.equal(sessions.find(session, now - 59_000)?.grant.token, grant.token, 'clocks differ')
  assert.equal(sessions.find(session, now - 61_000), undefined)
  for (const forged of [
    '',
    '.',
    'a.b',
    `${session}x`,
    session.replace('1', '2'),
    `9${session}`,
    'x'.repeat(10_000),
  ])
    assert.equal(sessions.find(forged, now), undefined)
})
