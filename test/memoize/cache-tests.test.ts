// http-cache-tests, the public suite for HTTP caches, against examples/reverse-proxy.ts. `npm run cache-tests` prints details.

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { setup } from '../support/setup.ts'
import { OPTIMAL_REASONS, REASONS } from './cache-tests/reasons.ts'
import { type CacheUnderTest, runSuite } from './cache-tests/suite.ts'

async function passes(cache: CacheUnderTest): Promise<void> {
  const { counts, failures } = await runSuite(cache)
  const failed = (kind: string) => failures.filter((failure) => failure.kind === kind)
  const unexpected = [
    ...failed('required').filter(({ id }) => !(id in REASONS)),
    ...failed('optimal').filter(({ id }) => !(id in OPTIMAL_REASONS)),
  ]
  assert.deepEqual(unexpected, [])
  assert.equal(counts.required.of, 157)
  assert.equal(counts.optimal.of, 86)
  assert.ok(counts.required.passed >= 150, `${counts.required.passed} of the required tests`)
  assert.ok(counts.optimal.passed >= 70, `${counts.optimal.passed} of the optimal tests`)
}

// Concurrently: both spend most of their time waiting.
describe('cache-tests', { concurrency: true }, () => {
  test('one process passes 150 required and 70 optimal tests', async () => {
    await passes({ processes: 1 })
  })

  test('four processes behind one port pass as many', async () => {
    await using t = await setup()
    await passes({ processes: 4, redis: t.url })
  })
})
