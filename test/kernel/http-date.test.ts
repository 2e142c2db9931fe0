import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { parseHttpDate, parseRetryAfter } from '../../src/kernel/http-date.ts'

const DAY = 86_400_000

describe('http dates', () => {
  const at = Date.UTC(1994, 10, 6, 8, 49, 37)

  test('the three forms', () => {
    assert.equal(parseHttpDate('Sun, 06 Nov 1994 08:49:37 GMT'), at)
    assert.equal(parseHttpDate('Sunday, 06-Nov-94 08:49:37 GMT'), at)
    assert.equal(parseHttpDate('Sun Nov  6 08:49:37 1994'), at)
    assert.equal(parseHttpDate('SUN, 06 NOV 1994 08:49:37 gmt'), at)
  })

  test('a two-digit year is at most 50 years ahead', () => {
    const now = Date.UTC(2026, 0, 1)
    assert.equal(parseHttpDate('Thursday, 18-Aug-50 02:01:18 GMT', now), Date.UTC(2050, 7, 18, 2, 1, 18))
    assert.equal(parseHttpDate('Thursday, 18-Aug-77 02:01:18 GMT', now), Date.UTC(1977, 7, 18, 2, 1, 18))
  })

  test('everything else is invalid', () => {
    const wrong = [
      '0',
      '',
      'foo',
      '2026-01-01',
      'Sun, 06 Nov 1994 08:49:37 UTC',
      'Sun, 32 Nov 1994 08:49:37 GMT',
      'Sun, 06 Foo 1994 08:49:37 GMT',
      'Sun, 06 Nov 1994 24:49:37 GMT',
      'Sun, 6 Nov 1994 8:49:37 GMT',
    ]
    for (const value of wrong) assert.equal(parseHttpDate(value), undefined, value)
  })
})

test('http dates - Retry-After is seconds or a date, within a bound; anything else is nothing', () => {
  const now = Date.UTC(2026, 0, 1, 12)
  const expected: [string | undefined, number][] = [
    [undefined, 0],
    ['0', 0],
    ['120', 120_000],
    ['9999999999', DAY],
    ['Thu, 01 Jan 2026 12:00:30 GMT', 30_000],
    ['Thu Jan  1 12:00:30 2026', 30_000],
    ['Thu, 01 Jan 2026 11:00:00 GMT', 0],
    ['Fri, 31 Dec 2027 00:00:00 GMT', DAY],
    ['Fri, 99 Xyz 2027 00:00:00 GMT', 0],
  ]
  for (const [header, ms] of expected) assert.equal(parseRetryAfter(header, DAY, now), ms, header)
  for (const odd of ['', '-1', '1.5', '1e9', ' 5', 'soon', '2026-01-01T12:00:30Z', '99999999999'])
    assert.equal(parseRetryAfter(odd, DAY, now), 0, odd)
})
