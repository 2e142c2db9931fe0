// Private data does not leak to other clients: cookies that are set, responses to credentials, responses that state that they
// are private.

import { type App, attacks, type Row, reflecting, type Said } from '../../support/attack-scene.ts'

const OWN = { status: 200, has: 'for nobody', lacks: 'victim' }

const withHeaders =
  (headers: Said['headers'] & object): App =>
  (seen) => ({ ...(reflecting(seen) as Said), headers })

/** Responds with data of one user, known by a field that is not in the key: only private responses are safe. */
const session =
  (headers: Said['headers'] & object): App =>
  ({ field }) => {
    const who = field('x-user') ?? 'nobody'
    return { headers: { ...headers, 'set-cookie': [`sid=${who}`, `csrf=${who}`] }, body: `for ${who}` }
  }

const COOKIES: Row[] = [
  ...[
    { 'cache-control': 'max-age=60' },
    { 'cache-control': 'public, max-age=60' },
    { 'cache-control': 's-maxage=60' },
    { 'cache-control': 'max-age=60', vary: 'Accept' },
    { 'cache-control': 'max-age=60, must-revalidate', etag: '"1"' },
    { 'cache-control': 'max-age=60, no-cache="x"' },
    { 'cache-control': 'max-age=60, private="x"' },
    { 'cache-control': 'must-understand, max-age=60' },
    { 'cache-control': 'immutable, max-age=60' },
    { expires: 'Fri, 01 Jan 2100 00:00:00 GMT' },
    {},
  ].map(
    (headers): Row => ({
      attack: `Set-Cookie beside ${JSON.stringify(headers)}`,
      sends: 'GET /page\nX-User: victim',
      answered: { has: 'sid=victim' },
      asks: 'GET /page',
      gets: { ...OWN, has: 'sid=nobody' },
      app: session(headers as Record<string, string>),
      options: { ttl: 60_000, heuristics: true, staleWhileRevalidate: 60_000 },
    }),
  ),
  ...[200, 203, 204, 301, 302, 404, 410, 500].map(
    (status): Row => ({
      attack: `Set-Cookie of ${status}`,
      sends: 'GET /page\nX-User: victim',
      asks: 'GET /page',
      gets: { status, has: 'sid=nobody', lacks: 'victim' },
      app: (seen) => ({
        ...(session({ 'cache-control': 'max-age=60' })(seen) as Said),
        status,
        ...(status === 204 && { body: '' }),
      }),
      options: { errorTtl: 60_000 },
    }),
  ),
  {
    attack: 'Set-Cookie, asked for by HEAD',
    sends: 'HEAD /page\nX-User: victim',
    asks: 'GET /page',
    gets: { ...OWN, has: 'sid=nobody' },
    app: session({ 'cache-control': 'max-age=60' }),
  },
  {
    attack: 'Set-Cookie, asked for by a range',
    sends: 'GET /page\nX-User: victim\nRange: bytes=0-1',
    asks: 'GET /page',
    gets: { ...OWN, has: 'sid=nobody' },
    app: session({ 'cache-control': 'max-age=60' }),
  },
  {
    attack: 'what is withheld by private="set-cookie" stays with its client, cookies and all',
    sends: 'GET /page\nX-User: victim',
    answered: { has: 'sid=victim' },
    asks: 'GET /page',
    gets: { lacks: /sid=victim/ },
    app: session({ 'cache-control': 'max-age=60, private="set-cookie"' }),
    options: { shareSetCookie: true },
  },
]

const CREDENTIALS: Row[] = [
  ...['Basic dmljdGlt', 'Bearer victim', 'Negotiate victim', 'victim', ''].flatMap((credentials): Row[] => [
    {
      attack: `Authorization: ${credentials}, then without`,
      sends: `GET /page\nAuthorization: ${credentials}`,
      asks: 'GET /page',
      gets: { ...OWN, run: 2 },
    },
    {
      attack: `without, then Authorization: ${credentials}`,
      sends: 'GET /page',
      asks: `GET /page\nAuthorization: ${credentials}`,
      gets: { status: 200, has: `for ${credentials}`, run: 2 },
    },
  ]),
  ...[
    'aUTHORIZATION: Bearer victim',
    'Authorization: Bearer victim\nAuthorization: Bearer x',
    'authorization:\tBearer victim',
  ].map(
    (line): Row => ({
      attack: line.replaceAll('\n', ', '),
      sends: `GET /page\n${line}`,
      asks: 'GET /page',
      gets: { ...OWN, run: 2 },
    }),
  ),
  ...[
    'Cookie: sid=victim',
    'cOOKIE: sid=victim',
    'Cookie: a\nCookie: sid=victim',
    'Cookie:',
    'Cookie: =victim;',
  ].map(
    (line): Row => ({
      attack: line.replaceAll('\n', ', '),
      sends: `GET /page\n${line}`,
      asks: 'GET /page',
      gets: { ...OWN, run: 2 },
    }),
  ),
  {
    attack: 'Cookie in the key: everyone has his own',
    sends: 'GET /page\nCookie: sid=victim',
    asks: 'GET /page\nCookie: sid=other',
    gets: { status: 200, has: 'for sid=other', lacks: 'victim' },
    options: { vary: ['cookie'] },
  },
  {
    attack: 'credentials as part of a URL',
    sends: 'GET http://victim:secret@shop.example/page',
    asks: 'GET /page',
    gets: OWN,
  },
  {
    attack: 'what is public may be shared, whoever asked first',
    sends: 'GET /page\nAuthorization: Bearer victim',
    asks: 'GET /page',
    gets: { status: 200, run: 1 },
    app: () => ({ headers: { 'cache-control': 'public, max-age=60' }, body: 'for all' }),
  },
]

const STATUS: Row[] = [
  {
    attack: '206 of an application is not the page',
    sends: 'GET /page\nX-User: victim',
    asks: 'GET /page',
    gets: { status: 200, lacks: 'victim' },
    app: ({ field }) =>
      field('x-user')
        ? {
            status: 206,
            headers: { 'cache-control': 'max-age=60', 'content-range': 'bytes 0-5/9' },
            body: 'victim',
          }
        : { body: 'page' },
  },
  {
    attack: '304 of an application without a question is not the page',
    sends: 'GET /page\nX-User: victim',
    asks: 'GET /page',
    gets: { status: 200, has: 'page' },
    app: ({ field }) =>
      field('x-user')
        ? { status: 304, headers: { 'cache-control': 'max-age=60' }, body: '' }
        : { body: 'page' },
  },
  ...['text/event-stream', 'TEXT/EVENT-STREAM', ' text/event-stream; charset=x'].map(
    (type): Row => ({
      attack: `a stream of events: ${type}`,
      sends: 'GET /page\nX-Auth: victim',
      asks: 'GET /page',
      gets: { ...OWN, run: 2 },
      app: withHeaders({ 'cache-control': 'max-age=60', 'content-type': type }),
    }),
  ),
]

attacks('Set-Cookie', COOKIES)
attacks('credentials', CREDENTIALS)
attacks('statuses and types', STATUS)
