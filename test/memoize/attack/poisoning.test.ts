// Cache poisoning: what one client sends must not be in the response to another. See "Practical Web Cache Poisoning", "Web
// Cache Entanglement" (Kettle, 2018, 2020) and "Your Cache Has Fallen" (Nguyen et al., 2019).

import { type App, attacks, type Row, reflecting, type Said } from '../../support/attack-scene.ts'

const PAGE = { status: 200, has: 'GET /page of shop.example for nobody', lacks: /evil/i }

/** A page whose links depend on forwarding fields, or on a field that any client may send. */
const believing =
  (...names: string[]): App =>
  ({ host, field }) => ({ body: `<script src="//${names.map(field).find(Boolean) ?? host}/x.js">` })

const OWN = { status: 200, has: '<script src="//shop.example/x.js">', lacks: 'evil' }

/** Fields that the default key does not cover. The recipes of docs/http-cache-keys.md cover them. */
const UNKEYED: Row[] = [
  ...[
    'X-Forwarded-Host',
    'X-Forwarded-Proto',
    'X-Forwarded-For',
    'X-Forwarded-Port',
    'X-Forwarded-Prefix',
    'X-Forwarded-Scheme',
    'X-Host',
    'X-Original-URL',
    'X-Rewrite-URL',
    'X-HTTP-Method-Override',
    'Forwarded',
    'Origin',
    'Referer',
    'User-Agent',
    'X-Api-Key',
  ].flatMap((name): Row[] => {
    const field = name.toLowerCase()
    const app = believing(field)
    return [
      {
        attack: `${name} in vary`,
        sends: `GET /page\n${name}: evil.example`,
        answered: { has: 'evil' },
        asks: 'GET /page',
        gets: OWN,
        app,
        options: { vary: [field] },
      },
      {
        attack: `${name} in the key`,
        sends: `GET /page\n${name}: evil.example`,
        asks: 'GET /page',
        gets: OWN,
        app,
        options: {
          key: ({ url, headers }) => JSON.stringify([headers['host'], url, headers[field] ?? null]),
        },
      },
      {
        attack: `${name} in the Vary of the response`,
        sends: `GET /page\n${name}: evil.example`,
        asks: 'GET /page',
        gets: OWN,
        app: (seen) => ({
          ...(app(seen) as Said),
          headers: { 'cache-control': 'max-age=60', vary: name },
        }),
      },
    ]
  }),
  {
    attack: 'two fields of which the key has one text: the parts stay apart',
    sends: 'GET /page\nX-A: 1","2\nX-B: 3',
    asks: 'GET /page\nX-A: 1\nX-B: 2","3',
    gets: { run: 2 },
    options: { vary: ['x-a', 'x-b'] },
  },
  {
    attack: 'a field in two lines is the same as in one, and no other',
    sends: 'GET /page\nX-A: a\nX-A: b',
    asks: 'GET /page\nX-A: ab',
    gets: { run: 2 },
    options: { vary: ['x-a'] },
  },
  {
    attack: 'an empty field is not an absent one',
    sends: 'GET /page\nX-A:',
    asks: 'GET /page',
    gets: { run: 2 },
    options: { vary: ['x-a'] },
  },
]

const HOST: Row[] = [
  ...[
    'evil.example',
    'shop.example.evil.example',
    'shop.example:8080',
    'shop.example.',
    'shop.example:80@evil.example',
    'evil@shop.example',
    'shop.example/evil',
    'shop.example?evil',
    'shop.example#evil',
    'shop.example\\evil',
    'shop.example\tevil',
    'shop.example, evil.example',
    '"shop.example"evil',
    '[::1]evil',
    '',
  ].map(
    (host): Row => ({
      attack: `Host: ${host}`,
      sends: `GET /page\nHost: ${host}`,
      asks: 'GET /page',
      gets: PAGE,
    }),
  ),
  {
    attack: 'Host in capitals is the same host, and is answered by what the key says',
    sends: 'GET /page\nHost: SHOP.EXAMPLE',
    answered: { has: 'of shop.example' },
    asks: 'GET /page',
    gets: { ...PAGE, run: 1 },
  },
  {
    attack: 'two Host lines',
    sends: 'GET /page\nHost: shop.example\nHost: evil.example',
    asks: 'GET /page',
    gets: PAGE,
  },
  {
    attack: 'two Host lines, the other way round',
    sends: 'GET /page\nHost: evil.example\nHost: shop.example',
    asks: 'GET /page',
    gets: PAGE,
  },
  {
    attack: 'a blank before the colon',
    sends: 'GET /page\nHost : evil.example',
    asks: 'GET /page',
    gets: PAGE,
  },
  { attack: 'an indented Host line', sends: 'GET /page\n Host: evil.example', asks: 'GET /page', gets: PAGE },
  {
    attack: 'the absolute form, of another host',
    sends: 'GET http://evil.example/page',
    asks: 'GET /page',
    gets: PAGE,
  },
  {
    attack: 'the absolute form, of this host',
    sends: 'GET http://shop.example/page',
    asks: 'GET /page',
    gets: PAGE,
  },
  {
    attack: 'the absolute form, of this host and another Host',
    sends: 'GET http://shop.example/page\nHost: evil.example',
    asks: 'GET /page',
    gets: PAGE,
  },
  {
    attack: 'the absolute form with a user',
    sends: 'GET http://evil@shop.example/page',
    asks: 'GET /page',
    gets: PAGE,
  },
  { attack: 'another scheme', sends: 'GET evil://shop.example/page', asks: 'GET /page', gets: PAGE },
  { attack: 'the form of CONNECT', sends: 'GET evil.example:80', asks: 'GET /page', gets: PAGE },
  { attack: 'a path of two slashes', sends: 'GET //evil.example/page', asks: 'GET /page', gets: PAGE },
  { attack: 'no Host at all', sends: 'GET /page HTTP/1.0\r\n\r\n', asks: 'GET /page', gets: PAGE },
]

/** A field that is named in Connection is removed by proxies: "hop-by-hop header abuse" (Davison, 2019). */
const HOP_BY_HOP: Row[] = [
  ...[
    'Cookie',
    'Authorization',
    'X-Auth',
    'cookie, x-auth',
    'X-Auth, close',
    'keep-alive, X-Auth',
    '"X-Auth"',
  ].map(
    (names): Row => ({
      attack: `Connection: ${names}`,
      sends: `GET /page\nX-Auth: evil\nConnection: close, ${names}`,
      asks: 'GET /page',
      gets: PAGE,
      options: { vary: ['x-auth'] },
    }),
  ),
  ...[
    'Host',
    'Cache-Control',
    'Vary',
    'Accept-Encoding',
    'Content-Length',
    'Connection',
    '__proto__',
    ',,',
  ].map(
    (names): Row => ({
      attack: `Connection: ${names}, with nothing of that name to hide`,
      sends: `GET /page\nConnection: close, ${names}`,
      asks: 'GET /page',
      gets: PAGE,
    }),
  ),
  ...Object.entries({
    'Set-Cookie': { 'cache-control': 'max-age=60', 'set-cookie': 'a=b' },
    'Cache-Control': { 'cache-control': 'private' },
    Vary: { 'cache-control': 'max-age=60', vary: 'X-Auth' },
    'close, vary, x': { 'cache-control': 'max-age=60', vary: 'X-Auth' },
  }).map(
    ([names, headers]): Row => ({
      attack: `a response whose Connection names ${names}: it still says whom it is for`,
      sends: 'GET /page\nX-Auth: evil',
      asks: 'GET /page',
      gets: { has: 'for nobody', lacks: /evil/, run: 2 },
      app: (seen) => ({ ...(reflecting(seen) as Said), headers: { connection: names, ...headers } }),
      options: { ttl: 60_000 },
      // Other servers refuse such a response, or remove the field.
      on: ['node', 'express 5', 'express 4'],
    }),
  ),
  ...[
    'Transfer-Encoding: identity',
    'TE: trailers',
    'Upgrade: h2c',
    'Keep-Alive: evil',
    'Proxy-Connection: evil',
  ].map((line): Row => ({ attack: line, sends: `GET /page\n${line}`, asks: 'GET /page', gets: PAGE })),
]

/** A body on a request that should have none; parameters that only one side sees. */
const PARAMETERS: Row[] = [
  {
    attack: 'fat GET',
    sends: 'GET /page\n\nq=evil',
    answered: { has: 'evil' },
    asks: 'GET /page',
    gets: PAGE,
    on: ['node', 'express 5', 'express 4'],
  },
  {
    attack: 'fat GET, in chunks',
    sends: 'GET /page\nTransfer-Encoding: chunked\n\n6\r\nq=evil\r\n0\r\n\r\n',
    asks: 'GET /page',
    gets: PAGE,
  },
  { attack: 'fat HEAD', sends: 'HEAD /page\n\nq=evil', asks: 'GET /page', gets: PAGE },
  {
    attack: 'fat GET with a form',
    sends:
      'GET /page\nContent-Type: application/x-www-form-urlencoded\nX-HTTP-Method-Override: POST\n\nq=evil',
    asks: 'GET /page',
    gets: PAGE,
  },
  ...['POST', 'PUT', 'DELETE', 'OPTIONS', 'QUERY'].map(
    (method): Row => ({
      attack: `${method} twice is done twice`,
      sends: `${method} /page\nX-Auth: evil`,
      asks: `${method} /page`,
      gets: { status: 200, has: `${method} /page of shop.example for nobody`, run: 2 },
    }),
  ),
  { attack: 'a POST is no GET', sends: 'POST /page\n\nq=evil', asks: 'GET /page', gets: PAGE },
  ...['get', 'GETX', 'PURGE', 'TRACE', 'OPTIONS', 'PROPFIND', 'PATCH', 'DELETE', 'QUERY'].map(
    (method): Row => ({
      attack: `method ${method}`,
      sends: `${method} /page\nX-Auth: evil`,
      asks: 'GET /page',
      gets: PAGE,
    }),
  ),
  ...[
    '/page?q=evil',
    '/page?',
    '/page?&',
    '/page;q=evil',
    '/page?utm_content=x;q=evil',
    '/page?q=good&q=evil',
    '/page?q[]=evil',
    '/page%3Fq=evil',
    '/page%23evil',
    '/page/',
    '/page//',
    '/page/.',
    '/page/../page',
    '/./page',
    '/x/../page?evil',
    '/x%2f..%2fpage?evil',
    '/%70age?evil',
    '/PAGE',
    '/page%00evil',
    '/page%0d%0aX-Evil:1',
    '/page%20',
    '/page\\evil',
  ].map(
    (url): Row => ({
      attack: `the URL ${url}`,
      sends: `GET ${url}`,
      asks: 'GET /page',
      gets: PAGE,
    }),
  ),
]

/** A part of a response, or a 304, must not be served as the whole. */
const VIEWS: Row[] = [
  ...[
    'bytes=0-1',
    'bytes=-1',
    'bytes=0-0,2-3',
    'bytes=999-',
    'bytes=0-',
    'bytes=0-1\nRange: bytes=2-3',
    'evil',
    'bytes=1-0',
  ].map(
    (range): Row => ({
      attack: `Range: ${range}`,
      sends: `GET /page\nRange: ${range}`,
      asks: 'GET /page',
      gets: PAGE,
    }),
  ),
  ...[
    'If-None-Match: *',
    'If-None-Match: "1"',
    'If-None-Match: W/"1", "2"',
    'If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT',
    'If-Match: "evil"',
    'If-Unmodified-Since: Thu, 01 Jan 1970 00:00:00 GMT',
    'If-Range: "1"\nRange: bytes=0-1',
  ].map(
    (condition): Row => ({
      attack: condition.replaceAll('\n', ', '),
      sends: `GET /page\n${condition}`,
      asks: 'GET /page',
      gets: PAGE,
      // This application evaluates conditions and ranges itself.
      app: (seen) => {
        const headers = {
          'cache-control': 'max-age=60',
          etag: '"1"',
          'last-modified': 'Thu, 01 Jan 2015 00:00:00 GMT',
        }
        const fails = ['if-match', 'if-unmodified-since'].some((name) => seen.field(name))
        if (fails) return { status: 412, headers, body: '' }
        const knows = ['if-none-match', 'if-modified-since'].some((name) => seen.field(name))
        if (knows) return { status: 304, headers, body: '' }
        if (seen.field('range'))
          return { status: 206, headers: { ...headers, 'content-range': 'bytes 0-1/9' }, body: 'ev' }
        return { ...(reflecting(seen) as Said), headers }
      },
    }),
  ),
  { attack: 'HEAD before GET', sends: 'HEAD /page', asks: 'GET /page', gets: PAGE },
  {
    attack: 'HEAD, by an application that answers it otherwise',
    sends: 'HEAD /page',
    asks: 'GET /page',
    gets: PAGE,
    app: (seen) => (seen.method === 'HEAD' ? { status: 404, body: '' } : reflecting(seen)),
  },
  ...[
    'no-store',
    'no-cache',
    'only-if-cached',
    'max-age=0',
    'max-stale',
    'min-fresh=99999',
    'private',
    'evil="',
  ].map(
    (value): Row => ({
      attack: `Cache-Control of a request: ${value}`,
      sends: `GET /page\nCache-Control: ${value}`,
      asks: 'GET /page',
      gets: PAGE,
    }),
  ),
]

const varying =
  (vary: string | string[]): App =>
  (seen) => ({
    ...(reflecting(seen) as Said),
    headers: { 'cache-control': 'max-age=60', vary },
  })

const VARY: Row[] = [
  ...[
    'X-Auth',
    'x-AUTH',
    ' X-Auth ',
    'Accept, X-Auth',
    ',,X-Auth,,',
    '*',
    'X-Auth, *',
    '"X-Auth"',
    'X-Auth; q=1',
  ].map(
    (vary): Row => ({
      attack: `Vary: ${vary}`,
      sends: 'GET /page\nX-Auth: evil',
      asks: 'GET /page',
      gets: PAGE,
      app: varying(vary),
    }),
  ),
  {
    attack: 'Vary in two lines',
    sends: 'GET /page\nX-Auth: evil',
    asks: 'GET /page',
    gets: PAGE,
    app: varying(['Accept', 'X-Auth']),
  },
  {
    attack:
      'Vary that one variant lacks: the next response tells of it, and the first is not for others then',
    sends: ['GET /page', 'GET /page\nX-Auth: evil\nCache-Control: no-cache'],
    asks: 'GET /page',
    gets: PAGE,
    app: (seen) => (seen.field('x-auth') ? varying('X-Auth')(seen) : reflecting(seen)),
  },
  ...['constructor', '__proto__', 'toString', 'hasOwnProperty', 'constructor, X-Auth'].map(
    (vary): Row => ({
      attack: `Vary: ${vary}`,
      sends: 'GET /page',
      asks: 'GET /page',
      gets: { ...PAGE, run: 1 },
      app: varying(vary),
    }),
  ),
  ...['en', 'EN', 'en-us', 'en;q=1', 'en ; q = 1', 'evil"', '\\', ','].map(
    (language): Row => ({
      attack: `Accept-Language: ${language}`,
      sends: `GET /page\nAccept-Language: ${language}`,
      asks: 'GET /page',
      gets: { status: 200, has: 'speaks nothing' },
      app: ({ field }) => ({
        headers: { 'cache-control': 'max-age=60', vary: 'Accept-Language' },
        body: `speaks ${field('accept-language') ?? 'nothing'}`,
      }),
    }),
  ),
]

/** Names of inherited properties, as fields and as parameters. */
const NAMES: Row[] = [
  '__proto__',
  'constructor',
  'prototype',
  'toString',
  'then',
  'hasOwnProperty',
  '0',
  '-1',
].flatMap((name): Row[] => [
  {
    attack: `a field named ${name}`,
    sends: `GET /page\n${name}: evil`,
    asks: 'GET /page',
    gets: { ...PAGE, run: 1 },
  },
  {
    attack: `a field of the response named ${name}`,
    sends: 'GET /page',
    asks: 'GET /page',
    gets: { ...PAGE, run: 1 },
    app: (seen) => ({
      ...(reflecting(seen) as Said),
      headers: Object.fromEntries([
        ['cache-control', 'max-age=60'],
        [name, 'v'],
      ]),
    }),
  },
  {
    attack: `a key, a tag and a field in vary named ${name}`,
    sends: `GET /page\n${name}: evil`,
    asks: 'GET /page',
    // Node drops a field of this name: handlers cannot depend on it.
    gets: { ...PAGE, lacks: 'evil', ...(name !== '__proto__' && { run: 2 }) },
    options: { key: ({ url }) => (url === '/page' ? name : url), tags: () => [name], vary: [name] },
  },
])

/** The attacker ends a response and begins another: "HTTP response splitting" (Klein, 2004). */
const SPLITTING: Row[] = [
  '%0d%0aSet-Cookie:%20evil=1',
  '%0aSet-Cookie:%20evil=1',
  '%0d%0a%0d%0aevil',
  '%00evil',
  '%c4%8d%c4%8aevil:1',
].map(
  (text): Row => ({
    attack: `Location: ${text}`,
    sends: `GET /go?to=${text}`,
    answered: { lacks: /^(set-cookie|evil)/im },
    asks: 'GET /page',
    gets: PAGE,
    app: (seen) => {
      if (!seen.url.startsWith('/go')) return reflecting(seen)
      const to = decodeURIComponent(seen.url.slice('/go?to='.length))
      return { status: 302, headers: { location: to, 'cache-control': 'max-age=60' }, body: '' }
    },
  }),
)

/** The recommendations of docs/http-cache-keys.md, beyond `vary`. */
const RECIPES: Row[] = [
  ...[
    'X-Forwarded-Host: evil.example',
    'X-Forwarded-Host: shop.example\nX-Forwarded-Host: evil.example',
    'X-Forwarded-Host: shop.example, evil.example',
    'X-Forwarded-Proto: evil',
    'X-Forwarded-Proto: https\nX-Forwarded-Proto: evil',
    'X-Forwarded-Host: shop.example","/page',
  ].map(
    (lines): Row => ({
      attack: `a list of hosts, ${lines.replaceAll('\n', ', ')}`,
      sends: `GET /page\n${lines}`,
      asks: 'GET /page',
      gets: { status: 200, has: 'http of shop.example.', lacks: 'evil' },
      app: ({ host, field }) => ({
        body: `${field('x-forwarded-proto') ?? 'http'} of ${field('x-forwarded-host') ?? host}.`,
      }),
      options: {
        key: ({ url, headers }) => {
          const host = String(headers['x-forwarded-host'] ?? headers['host']).toLowerCase()
          const scheme = String(headers['x-forwarded-proto'] ?? 'http')
          const known = host === 'shop.example' && (scheme === 'http' || scheme === 'https')
          return known ? JSON.stringify([scheme, host, url]) : undefined
        },
      },
    }),
  ),
  ...[
    'Cookie: locale=de; sid=evil',
    'Cookie: sid=evil; locale=de',
    'Cookie: locale=de\nCookie: sid=evil',
    'Cookie: locale=de;',
    'Cookie: locale=evil',
  ].map(
    (lines): Row => ({
      attack: `a cookie for the locale, ${lines.replaceAll('\n', ', ')}`,
      sends: `GET /page\n${lines}`,
      asks: 'GET /page\nCookie: locale=de',
      gets: { status: 200, has: 'for locale=de', lacks: 'evil', run: 2 },
      options: {
        cookies: 'allow',
        key: ({ url, headers }) => {
          const [, locale = ''] = /^locale=(\w+)$/.exec(String(headers['cookie'] ?? 'locale=en')) ?? []
          return ['de', 'en'].includes(locale) ? JSON.stringify([headers['host'], url, locale]) : undefined
        },
      },
    }),
  ),
  {
    attack: 'tokens in the key',
    sends: 'GET /page\nAuthorization: Bearer evil',
    asks: 'GET /page\nAuthorization: Bearer own',
    gets: { status: 200, has: 'for Bearer own', lacks: 'evil' },
    options: { vary: ['authorization'], shareAuthorized: true },
  },
]

attacks('unkeyed fields', UNKEYED)
attacks('recipes', RECIPES)
attacks('host', HOST)
attacks('hop by hop', HOP_BY_HOP)
attacks('parameters, methods and paths', PARAMETERS)
attacks('ranges, conditions and request directives', VIEWS)
attacks('vary', VARY)
attacks('names of prototypes', NAMES)
attacks('response splitting', SPLITTING)
