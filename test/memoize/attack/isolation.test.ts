// One client's request must not cost the others: errors about that client, withdrawn pages, a lost lease, a lost invalidation.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import pDefer from 'p-defer'
import { MemoryStore } from '../../../src/index.ts'
import { type App, attacks, type Row, reflecting, Site } from '../../support/attack-scene.ts'
import { setup } from '../../support/setup.ts'
import { until } from '../../support/wait.ts'

const PAGE = { status: 200, has: 'GET /page of shop.example for nobody', lacks: /evil/i }

// With default options.
const FORWARDED: Row[] = [
  'X-Forwarded-Host',
  'X-Forwarded-Proto',
  'X-Forwarded-Port',
  'X-Forwarded-Prefix',
  'X-Forwarded-Scheme',
  'Forwarded',
  'X-Host',
  'X-Original-URL',
  'X-Rewrite-URL',
  'X-HTTP-Method-Override',
].map(
  (name): Row => ({
    attack: `${name}, without any option`,
    sends: `GET /page\n${name}: evil.example`,
    asks: 'GET /page',
    gets: { status: 200, has: 'link of shop.example', lacks: 'evil' },
    app: ({ host, field }) => ({ body: `link of ${field(name.toLowerCase()) ?? host}` }),
  }),
)

// errorTtl does not store errors about the client.
const ERRORS: Row[] = [
  400, 401, 403, 405, 406, 407, 408, 411, 412, 413, 415, 416, 417, 421, 425, 426, 428, 429, 431,
].map(
  (status): Row => ({
    attack: `HHO with errorTtl, ${status}`,
    sends: `GET /page\nX-Long: ${'a'.repeat(9_000)}`,
    answered: { status },
    asks: 'GET /page',
    gets: { ...PAGE, lacks: 'refused' },
    app: (seen) =>
      (seen.field('x-long')?.length ?? 0) > 8_000
        ? { status, headers: {}, body: 'refused' }
        : reflecting(seen),
    options: { errorTtl: 60_000 },
  }),
)

// Node takes the first of these lines: the cache decides by what the handler sees.
const READINGS: Row[] = [
  'Referer',
  'User-Agent',
  'Content-Type',
  'From',
  'Max-Forwards',
  'Retry-After',
  'Server',
  'Etag',
  'Location',
  'Age',
  'Expires',
  'Last-Modified',
].map(
  (name): Row => ({
    attack: `${name} twice: the handler sees what it would see without a cache`,
    sends: `GET /page\n${name}: good\n${name}: evil`,
    answered: { status: 200, has: 'said good.' },
    asks: `GET /page\n${name}: good`,
    gets: { status: 200, has: 'said good.', lacks: 'evil' },
    app: ({ field }) => ({ body: `said ${field(name.toLowerCase())}.` }),
    options: { vary: [name.toLowerCase()] },
    on: ['node', 'express 5', 'express 4'],
  }),
)

// A page that was withdrawn.
const withdrawn =
  (status: number, headers: Record<string, string>): App =>
  ({ run }) =>
    run === 1
      ? { headers: { 'cache-control': 'max-age=0' }, body: 'withdrawn' }
      : { status, headers, body: 'gone' }

const WITHDRAWN: Row[] = (
  [
    [410, { 'cache-control': 'no-store' }],
    [404, { 'cache-control': 'no-store' }],
    [200, { 'cache-control': 'private' }],
    [200, { 'cache-control': 'no-store' }],
    [404, {}],
    [451, { 'cache-control': 'max-age=0' }],
  ] as const
).flatMap(([status, headers]): Row[] =>
  ['max-stale', 'max-stale=99999', 'only-if-cached, max-stale'].map((demand) => ({
    attack: `a page withdrawn by ${status} ${JSON.stringify(headers)}, asked for with ${demand}`,
    // The first response is stored for stale-if-error; the second request removes it.
    sends: ['GET /page', 'GET /page'],
    asks: `GET /page\nCache-Control: ${demand}`,
    gets: { lacks: 'withdrawn' },
    app: withdrawn(status, headers),
    options: { staleIfError: 60_000 },
  })),
)

attacks('unkeyed fields, without any option', FORWARDED)
attacks('errors about the client', ERRORS)
attacks('two readings of one request', READINGS)
attacks('withdrawn pages', WITHDRAWN)

// Requests that wait while the attacker's request gets an error about itself.
for (const status of [400, 403, 405, 413, 429, 431]) {
  test(`isolation - a ${status} for the attacker is not served to the requests that wait`, async () => {
    const gate = pDefer<void>()
    let runs = 0
    await using site = new Site(async (seen) => {
      runs++
      await gate.promise
      return seen.field('x-long') ? { status, headers: {}, body: 'refused' } : reflecting(seen)
    })
    await site.open('node', { store: new MemoryStore() })
    const attacker = site.ask('GET /page\nX-Long: 1')
    await until(() => runs === 1, { what: 'the attacker to be first' })
    const victims = Promise.all(Array.from({ length: 5 }, () => site.ask('GET /page')))
    await new Promise((resolve) => setTimeout(resolve, 100))
    gate.resolve()
    ;(await attacker).check({ status }, 'the attacker')
    for (const victim of await victims) victim.check(PAGE, 'a victim')
  })
}

// A record that vanishes while its page is being made.
test('isolation - a lost lease is no error for the others', async () => {
  await using t = await setup()
  const gate = pDefer<void>()
  let runs = 0
  await using site = new Site(async (seen) => {
    runs++
    if (runs === 1) await gate.promise
    return reflecting(seen)
  })
  for (let i = 0; i < 2; i++) await site.open('node', { redis: t.redis, cache: false })
  const first = site.ask('GET /page')
  await until(() => runs === 1, { what: 'the page to be made' })
  const client = await t.client()
  await client.flushall()
  // The other process gets a new grant.
  ;(await site.ask('GET /page')).check(PAGE, 'at the other process')
  const second = site.ask('GET /page')
  await new Promise((resolve) => setTimeout(resolve, 100))
  gate.resolve()
  for (const answer of await Promise.all([first, second])) answer.check(PAGE, 'who waited')
})

// The stale options of a locker apply to its own values only.
test('isolation - stale options of the locker do not apply to pages', async () => {
  await using site = new Site(() => ({ headers: { 'cache-control': 'max-age=1' }, body: 'page' }))
  await site.open('node', { store: new MemoryStore(), staleWhileRevalidate: 60_000, staleIfError: 60_000 })
  await site.ask('GET /page')
  await new Promise((resolve) => setTimeout(resolve, 1_200))
  ;(await site.ask('GET /page')).check({ status: 200, run: 2 }, 'after its lifetime')
})

// An unsafe request while Redis is away.
test('isolation - an invalidation while Redis is away is not lost', async () => {
  await using t = await setup()
  let version = 1
  await using site = new Site((seen) => {
    if (seen.method === 'POST') version++
    return { body: `version ${version}` }
  })
  await site.open('node', { redis: t.redis, unavailableAfter: 300 }, { maxUnshared: 9 })
  ;(await site.ask('GET /page')).check({ has: 'version 1' }, 'before')
  await t.server.freeze()
  await site.ask('POST /page')
  t.server.thaw()
  await new Promise((resolve) => setTimeout(resolve, 2_500))
  ;(await site.ask('GET /page')).check({ has: 'version 2' }, 'afterwards')
  assert.equal(version, 2)
})
