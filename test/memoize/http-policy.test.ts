import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { invalidatedBy } from '../../src/memoize/engine/invalidation.ts'
import type { HeaderFields } from '../../src/memoize/engine/message.ts'
import { cacheStatus } from '../../src/memoize/engine/responses.ts'
import {
  freshenedFields,
  notModified,
  requestedRange,
  validatorsOf,
} from '../../src/memoize/policy/conditional.ts'
import {
  CacheControl,
  endToEndFields,
  fromRawHeaders,
  parseList,
  toRawHeaders,
} from '../../src/memoize/policy/fields.ts'
import {
  NO_DIRECTIVES,
  primaryKeyOf,
  requestDirectives,
  variantKey,
  varyNames,
} from '../../src/memoize/policy/request.ts'
import {
  explicitLifetime,
  heuristicLifetime,
  initialAge,
  MAX_KEEP_MS,
  mayStaleIfError,
  planFor,
  privateFieldsOf,
  privateReason,
  reusability,
  staleWindows,
  UNKNOWN_AGE,
} from '../../src/memoize/policy/response.ts'

// The caching policy: pure functions of one request and one response. RFC 9110, RFC 9111.
const SECOND = 1_000
const HOUR = 3_600 * SECOND
const date = (at: number): string => new Date(at).toUTCString()
const control = (...lines: string[]): CacheControl => new CacheControl(lines)

describe('http fields', () => {
  test('a list is split at commas outside of quoted strings', () => {
    assert.deepEqual(parseList('a, b ,,c'), ['a', 'b', 'c'])
    assert.deepEqual(parseList('a="x, y", b="\\", z", c'), ['a="x, y"', 'b="\\", z"', 'c'])
    assert.deepEqual(parseList(''), [])
  })

  test('an unclosed quote hides no members', () => {
    assert.deepEqual(parseList('a="x, no-store'), ['a="x', 'no-store'])
    assert.ok(control('x="y, no-store').has('no-store'), 'no-store stands behind an open quote')
  })

  test('hop-by-hop fields and those named in Connection are removed', () => {
    const headers = {
      Connection: ['close, X-One', 'x-two'],
      'Keep-Alive': '5',
      TE: 'x',
      'x-one': '1',
      'X-Two': '2',
      A: '3',
    }
    assert.deepEqual({ ...endToEndFields(headers) }, { a: '3' })
  })

  test('a field that could split the message is refused', () => {
    for (const headers of [
      { a: 'x\r\ny: z' },
      { a: 'x\n' },
      { a: ['ok', 'x\0'] },
      { 'a b': 'x' },
      { 'a\r\nb': 'x' },
      { a: '\u0100' },
    ])
      assert.throws(() => endToEndFields(headers), TypeError, JSON.stringify(headers))
    assert.throws(() => endToEndFields({ a: 5 } as unknown as HeaderFields), TypeError)
  })

  test('lines of a name stay separate; names of inherited properties are ordinary names', () => {
    const raw = ['Set-Cookie', 'a=1', 'set-cookie', 'b=2', '__proto__', 'x', 'Set-Cookie', 'c=3']
    const headers = fromRawHeaders(raw)
    assert.deepEqual(headers['set-cookie'], ['a=1', 'b=2', 'c=3'])
    assert.equal(Object.getOwnPropertyDescriptor(headers, '__proto__')?.value, 'x')
    assert.deepEqual(toRawHeaders(endToEndFields(headers)), [
      'set-cookie',
      'a=1',
      'set-cookie',
      'b=2',
      'set-cookie',
      'c=3',
      '__proto__',
      'x',
    ])
  })
})

describe('http cache-control', () => {
  test('names are case-insensitive, values may be quoted', () => {
    assert.equal(control('MaX-aGe=60').seconds('max-age'), 60)
    assert.equal(control('max-age="60"').seconds('max-age'), 60)
    assert.equal(control('max-age=0060').seconds('max-age'), 60)
    assert.equal(control('max-age=99999999999').seconds('max-age'), 2 ** 31)
    assert.equal(control('public').seconds('max-age'), undefined)
  })

  test('an invalid number counts as 0', () => {
    for (const value of ["'60'", '-60', '60.5', 'a60', '60a', ' 60', '', '1e3'])
      assert.equal(control(`max-age=${value}`).seconds('max-age'), 0, value)
    assert.equal(control('max-age').seconds('max-age'), 0)
  })

  test('the smallest of several values counts', () => {
    assert.equal(control('max-age=60, max-age=30').seconds('max-age'), 30)
    assert.equal(control('max-age=30', 'max-age=60').seconds('max-age'), 30)
  })

  test('a directive inside a quoted string does not count', () => {
    assert.equal(control('x="max-age=60, no-store", max-age=1').seconds('max-age'), 1)
    assert.equal(control('x="max-age=60, no-store"').has('no-store'), false)
  })

  test('the qualified forms of no-cache and private name fields', () => {
    const some = control('no-cache="A, b", private="c"')
    assert.equal(some.hasUnqualified('no-cache'), false)
    assert.deepEqual(privateFieldsOf(some), ['c', 'a', 'b'])
    assert.deepEqual(privateFieldsOf(control('private="Vary, a"')), ['a'])
    assert.ok(control('no-cache="a", no-cache').hasUnqualified('no-cache'), 'one of them is bare')
  })
})

describe('http age', () => {
  const now = Date.UTC(2026, 0, 1)
  const age = (headers: HeaderFields, took = 0): number =>
    initialAge(headers, { responseTime: now, responseDelay: took })

  test('is Age plus the response delay', () => {
    assert.equal(age({ age: '30', date: date(now) }, 500), 30_500)
    assert.equal(age({}, 500), 500)
  })

  test('is at least the time since Date', () => {
    assert.equal(age({ age: '30', date: date(now - HOUR) }), HOUR)
    assert.equal(age({ date: date(now + HOUR) }), 0)
    assert.equal(age({ date: date(now - SECOND) }), 0)
    assert.equal(age({ date: 'foo' }), 0)
  })

  test('is unknown when Age is invalid', () => {
    for (const value of ['abc', '-7200', '7200.0', '7200;foo=bar', '', '0, 0', '3600, 3600'])
      assert.equal(age({ age: value }), UNKNOWN_AGE, value)
    assert.equal(age({ age: ['0', '0'] }), UNKNOWN_AGE)
    assert.equal(age({ age: ['0', '7200'] }), UNKNOWN_AGE)
    assert.equal(age({ age: '0,7200' }), 0)
    assert.equal(age({ age: '7200,0' }), 7_200_000)
  })
})

describe('http freshness', () => {
  const now = Date.UTC(2026, 0, 1)
  const lifetime = (headers: HeaderFields): number | undefined =>
    explicitLifetime({ date: date(now), ...headers }, CacheControl.of(headers))

  test('s-maxage before max-age before Expires', () => {
    const expires = date(now + HOUR)
    assert.equal(lifetime({ 'cache-control': 'max-age=1, s-maxage=5', expires }), 5 * SECOND)
    assert.equal(lifetime({ 'cache-control': 'max-age=1', expires }), SECOND)
    assert.equal(lifetime({ expires }), HOUR)
    assert.equal(lifetime({}), undefined)
  })

  test('no-cache means a lifetime of 0', () => {
    assert.equal(lifetime({ 'cache-control': 'no-cache, max-age=60' }), 0)
  })

  test('an invalid Expires is in the past; the earliest of several counts', () => {
    assert.equal(lifetime({ expires: '0' }), 0)
    assert.equal(lifetime({ expires: date(now - HOUR) }), 0)
    assert.equal(lifetime({ expires: [date(now + HOUR), date(now + SECOND)] }), SECOND)
  })

  test('the heuristic lifetime is a tenth of the time since Last-Modified, for heuristically cacheable statuses', () => {
    const headers = { date: date(now), 'last-modified': date(now - 10 * HOUR) }
    assert.equal(heuristicLifetime(200, headers, control()), HOUR)
    assert.equal(heuristicLifetime(201, headers, control()), 0)
    assert.equal(heuristicLifetime(599, headers, control('public')), HOUR)
    assert.equal(heuristicLifetime(200, { date: date(now), 'last-modified': date(0) }, control()), 24 * HOUR)
    assert.equal(heuristicLifetime(200, { date: date(now) }, control()), 0)
  })

  test('directives of the response that forbid serving stale override the defaults', () => {
    const defaults = { staleWhileRevalidate: 7, staleIfError: 8 }
    const none = { whileRevalidate: 0, ifError: 0, onDemand: 0 }
    for (const directive of ['must-revalidate', 'proxy-revalidate', 'no-cache'])
      assert.deepEqual(staleWindows(control(`${directive}, stale-if-error=9`), defaults), none, directive)
    assert.deepEqual(staleWindows(control('s-maxage=1'), defaults), none)
    const said = staleWindows(control('s-maxage=1, stale-while-revalidate=2, stale-if-error=3'), defaults)
    assert.deepEqual(said, { whileRevalidate: 2_000, ifError: 3_000, onDemand: 0 })
    const silent = staleWindows(control('max-age=1'), defaults)
    assert.deepEqual([silent.whileRevalidate, silent.ifError], [7, 8])
  })
})

describe('http shareability', () => {
  const reason = (
    headers: HeaderFields,
    status = 200,
    authorized = false,
    allowed = {},
  ): string | undefined =>
    privateReason(
      { authorized, status, headers, control: CacheControl.of(headers) },
      { shareSetCookie: false, shareAuthorized: false, ...allowed },
    )

  test('reasons why a response is private', () => {
    assert.equal(reason({}), undefined)
    assert.equal(reason({ 'cache-control': 'No-Store, max-age=9' }), 'no-store')
    assert.equal(reason({ 'cache-control': 'private, max-age=9' }), 'private')
    assert.equal(reason({ 'cache-control': 'private="x", max-age=9' }), undefined)
    assert.equal(reason({ 'set-cookie': ['a=b'] }), 'set-cookie')
    assert.equal(reason({ vary: ['a', 'b, *'] }), 'vary')
    assert.equal(reason({ 'content-type': 'Text/Event-Stream; x' }), 'stream')
    for (const status of [100, 206, 304, 600]) assert.equal(reason({}, status), 'status', String(status))
  })

  test('shareSetCookie and shareAuthorized', () => {
    assert.equal(reason({ 'set-cookie': ['a=b'] }, 200, false, { shareSetCookie: true }), undefined)
    assert.equal(reason({}, 200, true, { shareAuthorized: true }), undefined)
  })

  test('a response to Authorization is shared when its directives permit it', () => {
    assert.equal(reason({ 'cache-control': 'max-age=60' }, 200, true), 'authorization')
    for (const directive of ['public', 's-maxage=60', 'must-revalidate'])
      assert.equal(reason({ 'cache-control': directive }, 200, true), undefined, directive)
  })

  test('must-understand: unknown statuses are private; for known ones no-store is ignored', () => {
    assert.equal(reason({ 'cache-control': 'max-age=60, must-understand' }, 599), 'must-understand')
    assert.equal(reason({ 'cache-control': 'max-age=60, must-understand, no-store' }), undefined)
  })
})

describe('http storage plan', () => {
  const lifetimes = {
    ttl: 0,
    errorTtl: 0,
    heuristics: false,
    staleWhileRevalidate: 0,
    staleIfError: 0,
    revalidate: false,
  }
  const plan = (headers: HeaderFields, given = {}, status = 200) =>
    planFor(
      { status, headers },
      CacheControl.of(headers),
      { responseTime: Date.now(), responseDelay: 0 },
      { ...lifetimes, ...given },
    )

  test('a response is stored for its lifetime and its stale windows', () => {
    assert.equal(plan({ 'cache-control': 'max-age=60' }).keep, 60_000)
    assert.equal(plan({ 'cache-control': 'max-age=60', age: '20' }).keep, 40_000)
    assert.equal(
      plan({ 'cache-control': 'max-age=60, stale-while-revalidate=5, stale-if-error=9' }).keep,
      69_000,
    )
    assert.equal(plan({ 'cache-control': 'max-age=99999999999' }).keep, MAX_KEEP_MS)
  })

  test('a response that is not fresh is stored only for validation', () => {
    const headers = { 'cache-control': 'no-cache', etag: '"a"' }
    assert.equal(plan(headers).keep, 0)
    assert.ok(plan(headers, { revalidate: true }).keep > HOUR, 'kept for validation')
    assert.equal(plan(headers, { revalidate: true }, 503).keep, 0)
  })

  test('the options apply to responses that state no freshness; errors are never served stale', () => {
    assert.deepEqual([plan({}).keep, plan({}).collapse], [0, true])
    assert.equal(plan({}, { ttl: 5 }).keep, 5)
    assert.equal(plan({}, { ttl: 5 }, 201).keep, 0)
    assert.equal(plan({}, { ttl: 5, errorTtl: 3 }, 500).keep, 3)
    assert.equal(plan({}, { ttl: 5, errorTtl: 3 }, 404).keep, 3)
    assert.equal(plan({}, { staleIfError: 100, staleWhileRevalidate: 100 }, 500).keep, 0)
    assert.equal(plan({ 'cache-control': 'stale-if-error=60' }, {}, 500).keep, 0)
    assert.equal(plan({ 'cache-control': 'max-age=0' }, { ttl: 5 }).keep, 0)
    assert.equal(plan({ 'cache-control': 'max-age=0' }).collapse, false)
  })
})

describe('http request directives', () => {
  test('Cache-Control of a request', () => {
    const demands = requestDirectives({
      'cache-control': 'max-age=1, min-fresh=2, max-stale, no-cache, only-if-cached',
    })
    const { maxAge, minFresh, maxStale, noCache, onlyIfCached, noStore } = demands
    assert.deepEqual([maxAge, minFresh, maxStale], [1_000, 2_000, Number.POSITIVE_INFINITY])
    assert.deepEqual([noCache, onlyIfCached, noStore], [true, true, false])
  })

  test('Pragma counts only without Cache-Control', () => {
    assert.equal(requestDirectives({ pragma: 'no-cache' }).noCache, true)
    assert.equal(requestDirectives({ pragma: 'no-cache', 'cache-control': 'x' }).noCache, false)
    assert.equal(requestDirectives({ pragma: 'foo' }), NO_DIRECTIVES)
  })

  test('a stored response is reusable by its age and the request directives', () => {
    const stored = {
      lifetime: 60_000,
      whileRevalidate: 10_000,
      ifError: 20_000,
      onDemand: Number.MAX_SAFE_INTEGER,
    }
    const judged = (age: number, cc = '') =>
      reusability(stored, age, requestDirectives(cc ? { 'cache-control': cc } : {}))
    assert.equal(judged(59_999), 'fresh')
    assert.equal(judged(60_000), 'stale-while-revalidate')
    assert.equal(judged(70_000), 'no')
    assert.equal(judged(10_000, 'max-age=5'), 'no')
    assert.equal(judged(10_000, 'no-cache'), 'no')
    assert.equal(judged(10_000, 'min-fresh=51'), 'no')
    assert.equal(judged(10_000, 'min-fresh=50'), 'fresh')
    assert.equal(judged(65_000, 'min-fresh=1'), 'no')
    assert.equal(judged(75_000, 'max-stale=20'), 'max-stale')
    assert.equal(judged(85_000, 'max-stale=20'), 'no')
    assert.equal(
      reusability(
        { ...stored, onDemand: 0, whileRevalidate: 0 },
        75_000,
        requestDirectives({ 'cache-control': 'max-stale' }),
      ),
      'no',
    )
    assert.deepEqual([mayStaleIfError(stored, 79_999), mayStaleIfError(stored, 80_000)], [true, false])
  })
})

describe('http vary', () => {
  const index = (...names: string[]) => ({ names, id: 'i' })
  const key = (names: string[], headers: HeaderFields) => variantKey('p', index(...names), headers)

  test('names are in lower case, unique, and include the option `vary`', () => {
    assert.deepEqual(varyNames({ vary: ['B, a', 'b'] }, ['c']), ['a', 'b', 'c'])
  })

  test('different field values never have the same key', () => {
    const keys = [
      key(['a', 'b'], { a: 'x', b: 'y' }),
      key(['a', 'b'], { a: 'x","y' }),
      key(['a', 'b'], { a: 'x', b: '' }),
      key(['a', 'b'], { a: 'x' }),
      key(['a', 'b'], { b: 'x' }),
      key(['a', 'b'], { a: 'null', b: 'x' }),
      key(['a', 'b'], { a: 'x, y' }),
      key(['a', 'b'], { a: 'x,y' }),
      key(['a', 'b'], { a: 'X, y' }),
    ]
    assert.equal(new Set(keys).size, keys.length)
  })

  test('values that differ only in case and whitespace of a list have the same key', () => {
    assert.equal(
      key(['accept-language'], { 'accept-language': 'en, DE' }),
      key(['accept-language'], { 'accept-language': ['EN ', ' de'] }),
    )
    assert.equal(key(['a'], { a: ['x', 'y'] }), key(['a'], { a: ' x, y ' }))
    assert.notEqual(
      key(['accept-language'], { 'accept-language': 'en, de' }),
      key(['accept-language'], { 'accept-language': 'de, en' }),
    )
  })

  test('another index has other keys', () => {
    assert.notEqual(variantKey('p', { names: [], id: '1' }, {}), variantKey('p', { names: [], id: '2' }, {}))
  })

  test('long fields have short, different keys', () => {
    const long = 'x'.repeat(100_000)
    assert.ok(key(['a'], { a: long }).length < 100, 'a digest')
    assert.notEqual(key(['a'], { a: long }), key(['a'], { a: `${long}y` }))
  })
})

describe('http conditions', () => {
  const stored = { etag: '"a"', 'last-modified': date(HOUR) }

  test('If-None-Match compares weakly, with each member', () => {
    for (const tags of ['"a"', 'W/"a"', '"x", "a"', '*'])
      assert.ok(notModified({ 'if-none-match': tags }, stored), tags)
    for (const tags of ['"b"', 'a', '"a', ''])
      assert.ok(!notModified({ 'if-none-match': tags }, stored), tags)
    assert.ok(notModified({ 'if-none-match': '"a,b"' }, { etag: 'W/"a,b"' }), 'a comma in a tag')
  })

  test('If-Modified-Since counts only without If-None-Match', () => {
    assert.ok(notModified({ 'if-modified-since': date(HOUR) }, stored), 'the same date')
    assert.ok(!notModified({ 'if-modified-since': date(HOUR - SECOND) }, stored), 'an earlier date')
    assert.ok(
      !notModified({ 'if-modified-since': date(HOUR), 'if-none-match': '"b"' }, stored),
      'another tag',
    )
    assert.ok(!notModified({ 'if-modified-since': 'foo' }, stored), 'no date')
    assert.ok(!notModified({}, stored), 'no condition')
  })

  test('validation uses both validators', () => {
    assert.deepEqual(validatorsOf(stored), { 'if-none-match': '"a"', 'if-modified-since': date(HOUR) })
    assert.deepEqual(validatorsOf({}), {})
  })

  test('a 304 updates all fields but those of the stored bytes', () => {
    const before = { a: '1', b: '2', age: '9', 'content-length': '5', 'content-type': 'x', etag: '"a"' }
    const after = freshenedFields(before, {
      a: '3',
      'content-length': '0',
      'content-encoding': 'gzip',
      'content-type': 'y',
      etag: '"b"',
    })
    assert.deepEqual(
      { ...after },
      { a: '3', b: '2', 'content-length': '5', 'content-type': 'y', etag: '"a"' },
    )
  })
})

describe('http ranges', () => {
  const part = (range: string, more: HeaderFields = {}, response: HeaderFields = {}) =>
    requestedRange({ range, ...more }, response, 10)

  test('first and last, open range, suffix', () => {
    assert.deepEqual(part('bytes=0-1'), { first: 0, last: 1 })
    assert.deepEqual(part('bytes=8-'), { first: 8, last: 9 })
    assert.deepEqual(part('bytes=-3'), { first: 7, last: 9 })
    assert.deepEqual(part('bytes=-30'), { first: 0, last: 9 })
    assert.deepEqual(part('bytes=5-99'), { first: 5, last: 9 })
  })

  test('unsatisfiable, invalid and several ranges', () => {
    for (const range of ['bytes=10-', 'bytes=-0', 'bytes=99-100'])
      assert.equal(part(range), 'unsatisfiable', range)
    for (const range of ['bytes=5-4', 'bytes=-', 'bytes=a-b', 'lines=1-2', 'bytes=0-1,3-4', ''])
      assert.equal(part(range), undefined, range)
  })

  test('If-Range: strong tag or exact date', () => {
    const same = { first: 0, last: 1 }
    assert.deepEqual(part('bytes=0-1', { 'if-range': '"a"' }, { etag: '"a"' }), same)
    assert.equal(part('bytes=0-1', { 'if-range': '"b"' }, { etag: '"a"' }), undefined)
    assert.equal(part('bytes=0-1', { 'if-range': 'W/"a"' }, { etag: 'W/"a"' }), undefined)
    assert.deepEqual(part('bytes=0-1', { 'if-range': date(HOUR) }, { 'last-modified': date(HOUR) }), same)
    assert.equal(
      part('bytes=0-1', { 'if-range': date(2 * HOUR) }, { 'last-modified': date(HOUR) }),
      undefined,
    )
  })
})

describe('http keys', () => {
  const key = (method: string, url: string, headers: HeaderFields = { host: 'h' }) =>
    primaryKeyOf({ method, url, headers }, { key: undefined })

  test('host, path and query; GET and HEAD have the same key', () => {
    assert.equal(key('GET', '/a?b'), key('HEAD', '/a?b'))
    assert.equal(key('GET', '/', { host: 'H' }), key('GET', '/'))
    const different = [
      key('GET', '/a'),
      key('GET', '/a?'),
      key('GET', '/A'),
      key('GET', '/a', { host: 'g' }),
      key('GET', '/a/../a'),
      key('POST', '/a'),
      key('GET', '//a'),
    ]
    assert.equal(new Set(different).size, different.length)
  })

  test('different targets never have the same key', () => {
    const texts = ['', 'a', '\n', 'a\n', '["a"]', '[', '\na', ' ']
    const keys = texts.flatMap((method) =>
      texts.flatMap((host) => texts.map((path) => key(method, `/${path}`, { host }))),
    )
    assert.equal(new Set(keys).size, texts.length ** 3)
  })

  test('a request with an ambiguous host bypasses the cache', () => {
    assert.equal(key('GET', '/', { host: ['a', 'b'] }), undefined)
    assert.equal(key('GET', 'http://a/', { host: 'b' }), undefined)
    assert.equal(key('GET', 'http://u@h/', { host: 'h' }), undefined)
    for (const url of ['', '*', 'a', 'ftp://h/', 'http://', 'javascript:1', 'http://h/', 'https://h'])
      assert.equal(key('GET', url), undefined, url)
  })

  test('a custom key never equals a default key', () => {
    const own = primaryKeyOf({ method: 'GET', url: '/x', headers: {} }, { key: () => '/a' })
    assert.notEqual(own, key('GET', '/a', { host: '' }))
    assert.equal(primaryKeyOf({ method: 'GET', url: '/x', headers: {} }, { key: () => undefined }), undefined)
  })

  test('an unsafe request invalidates its target, and Location and Content-Location on the same host', () => {
    const urls = (url: string, location: string[], status = 201) =>
      invalidatedBy({ method: 'POST', url, headers: { host: 'h' } }, { status, headers: { location } }).map(
        ({ url }) => url,
      )
    const named = ['c', '/d?e', 'http://h/f', 'http://g/x', 'http://h:81/x', 'http://[']
    assert.deepEqual(urls('/a/b', named), ['/a/b', '/a/c', '/d?e', '/f'])
    assert.deepEqual(urls('//g/a', ['/b']), ['//g/a', '/b'])
    assert.deepEqual(urls('http://h/a', []), ['/a'])
    assert.deepEqual([...urls('/a', [], 199), ...urls('/a', [], 400), ...urls('*', [])], [])
  })
})

test('http cache-status - the member of the cache', () => {
  assert.equal(cacheStatus('c', { hit: true, ttl: 1_001 }), 'c; hit; ttl=2')
  assert.equal(cacheStatus('c', { hit: true, ttl: -1_000 }), 'c; hit; ttl=-1')
  assert.equal(
    cacheStatus('c', { forwardReason: 'stale', originStatus: 304, stored: true }),
    'c; fwd=stale; fwd-status=304; stored',
  )
  assert.equal(cacheStatus('c', { forwardReason: 'miss', collapsed: true }), 'c; fwd=miss; collapsed')
  assert.equal(cacheStatus('c', {}), 'c')
})
