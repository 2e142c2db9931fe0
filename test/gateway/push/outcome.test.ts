import assert from 'node:assert/strict'
import { test } from 'node:test'
import { retryAfterOf } from '../../../src/gateway/push/outcome.ts'

test('push - Retry-After is seconds or a date, a day at most; anything else is nothing', () => {
  const now = Date.UTC(2026, 0, 1, 12)
  const expected: [string | undefined, number][] = [
    [undefined, 0],
    ['0', 0],
    ['120', 120_000],
    ['9999999999', 86_400_000],
    ['Thu, 01 Jan 2026 12:00:30 GMT', 30_000],
    ['Thu, 01 Jan 2026 11:00:00 GMT', 0],
    ['Fri, 31 Dec 2027 00:00:00 GMT', 86_400_000],
    ['Fri, 99 Xyz 2027 00:00:00 GMT', 0],
  ]
  for (const [header, ms] of expected) assert.equal(retryAfterOf(header, now), ms, header)
  for (const odd of ['', '-1', '1.5', '1e9', ' 5', 'soon', '2026-01-01T12:00:30Z', '99999999999'])
    assert.equal(retryAfterOf(odd, now), 0, odd)
})
