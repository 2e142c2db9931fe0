// Runs the public suite http-cache-tests (the one behind cache-tests.fyi) against examples/reverse-proxy.ts: npm run cache-tests

import { setup } from '../../support/setup.ts'
import { OPTIMAL_REASONS, REASONS } from './reasons.ts'
import { type CacheUnderTest, runSuite } from './suite.ts'

async function report(title: string, cache: CacheUnderTest): Promise<void> {
  const { counts, failures } = await runSuite(cache)
  const { required, optimal, check } = counts
  console.log(`\n${title}`)
  console.log(`  required ${required.passed} of ${required.of}, optimal ${optimal.passed} of ${optimal.of}`)
  console.log(`  and ${check.passed} of ${check.of} of those that only look at what a cache does`)
  for (const { id, kind, message } of failures) {
    if (kind === 'check') continue
    console.log(`  ${kind} ${id}: ${message}`)
    const reason = kind === 'required' ? REASONS[id] : OPTIMAL_REASONS[id]
    console.log(`    ${reason ?? 'NOT EXPECTED'}`)
  }
}

await using t = await setup()
await report('One process, nothing else', { processes: 1 })
await report('Four processes behind one port, on Redis', { processes: 4, redis: t.url })
await report('One process, told to share responses that set cookies', { processes: 1, shareSetCookie: true })
