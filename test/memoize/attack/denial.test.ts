// Cache-poisoned denial of service: an error that one client provokes must not be served to others. See "Your Cache Has
// Fallen" (Nguyen, Lo Iacono, Federrath, 2019): oversized fields (HHO), meta characters (HMC), overridden methods (HMO).

import { type App, attacks, type Row, reflecting } from '../../support/attack-scene.ts'

const PAGE = { status: 200, has: 'GET /page of shop.example for nobody' }

/** Refuses some requests, with errors that state no freshness. */
const strict =
  (refuses: (field: (name: string) => string | undefined) => boolean, status: number): App =>
  (seen) =>
    refuses(seen.field) ? { status, headers: {}, body: 'refused' } : reflecting(seen)

const ROWS: Row[] = [
  ...[
    400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 421, 422, 424,
    425, 426, 428, 429, 431, 451, 500, 501, 502, 503, 504, 505, 511,
  ].map(
    (status): Row => ({
      attack: `HHO: a field that is too long, ${status}`,
      sends: `GET /page\nX-Long: ${'a'.repeat(9_000)}`,
      answered: { status },
      asks: 'GET /page',
      gets: PAGE,
      app: strict((field) => (field('x-long')?.length ?? 0) > 8_000, status),
      options: { ttl: 60_000, heuristics: true, staleWhileRevalidate: 60_000, staleIfError: 60_000 },
    }),
  ),
  {
    attack: 'HHO: more than the server reads',
    sends: `GET /page\nX-Long: ${'a'.repeat(20_000)}`,
    answered: { status: 431 },
    asks: 'GET /page',
    gets: PAGE,
    options: { errorTtl: 60_000 },
  },
  ...['\x01', '\x07', '\x0b', '\x0c', '\x1b', '\x7f', '\0', 'a\rb', '\rX-Auth: evil'].map(
    (character): Row => ({
      attack: `HMC: ${JSON.stringify(character)} in a field`,
      sends: `GET /page\nX-Metachar: ${character}`,
      asks: 'GET /page',
      gets: PAGE,
      options: { errorTtl: 60_000 },
    }),
  ),
  ...['\x80', '\xff', '\xc3\xa9', 'jndi:ldap://x', '<script>', '() { :; };', '%0d%0a', '\t\t'].map(
    (character): Row => ({
      attack: `HMC: ${JSON.stringify(character)} in a field, which the server passes on`,
      sends: `GET /page\nX-Metachar: ${character}`,
      asks: 'GET /page',
      gets: PAGE,
      app: strict((field) => field('x-metachar') !== undefined, 400),
    }),
  ),
  ...['X-HTTP-Method-Override', 'X-HTTP-Method', 'X-Method-Override'].flatMap((name): Row[] =>
    ['POST', 'DELETE', 'HEAD', 'EVIL'].map((method) => ({
      attack: `HMO: ${name}: ${method}`,
      sends: `GET /page\n${name}: ${method}`,
      answered: { status: 405 },
      asks: 'GET /page',
      gets: PAGE,
      app: strict((field) => field(name.toLowerCase()) !== undefined, 405),
      options: { unkeyed: 'allow' },
    })),
  ),
  {
    attack: 'an Expect that cannot be met',
    sends: 'GET /page\nExpect: evil',
    asks: 'GET /page',
    gets: PAGE,
    options: { errorTtl: 60_000 },
  },
  ...[
    'Upgrade: evil\nConnection: upgrade, close',
    'Upgrade: websocket\nConnection: upgrade, close',
    'Upgrade: h2c',
  ].map(
    (lines): Row => ({
      attack: lines.replaceAll('\n', ', '),
      sends: `GET /page\n${lines}`,
      asks: 'GET /page',
      gets: PAGE,
      options: { errorTtl: 60_000 },
    }),
  ),
  {
    attack: 'a version that nobody speaks',
    sends: 'GET /page HTTP/9.9\r\nHost: shop.example\r\n\r\n',
    asks: 'GET /page',
    gets: PAGE,
    options: { errorTtl: 60_000 },
  },
  {
    attack: 'a range that nobody can satisfy',
    sends: 'GET /page\nRange: bytes=99999-',
    asks: 'GET /page',
    gets: PAGE,
    app: strict((field) => field('range') !== undefined, 416),
    options: { errorTtl: 60_000 },
  },
  {
    attack: 'a condition that fails',
    sends: 'GET /page\nIf-Match: "evil"',
    asks: 'GET /page',
    gets: PAGE,
    app: strict((field) => field('if-match') !== undefined, 412),
    options: { errorTtl: 60_000 },
  },
  {
    attack: 'a redirect to itself, by another spelling of the URL',
    sends: 'GET /page/',
    asks: 'GET /page',
    gets: PAGE,
    app: (seen) =>
      seen.url === '/page/'
        ? { status: 301, headers: { location: '/page', 'cache-control': 'max-age=60' }, body: '' }
        : reflecting(seen),
  },
  {
    attack: 'a handler that an attacker can make throw',
    sends: 'GET /page\nX-Throw: 1',
    answered: { status: 500 },
    asks: 'GET /page',
    gets: PAGE,
    app: (seen) => {
      if (seen.field('x-throw')) throw new Error('provoked')
      return reflecting(seen)
    },
    on: ['node', 'express 5', 'express 4'],
  },
  {
    attack: 'an error does not take the place of a page that is kept',
    sends: ['GET /page', 'GET /page\nX-Long: 1\nCache-Control: no-cache'],
    asks: 'GET /page',
    gets: { ...PAGE, run: 1 },
    app: strict((field) => field('x-long') !== undefined, 503),
    options: { staleIfError: 60_000 },
  },
]

attacks('denial of service', ROWS)
