// Runs the public suite once, in a process of its own: it changes its tests as it runs them. Prints the results as JSON.
//   node --import tsx test/memoize/cache-tests/client.ts <where the cache listens>

import { createRequire } from 'node:module'
import { getResults, runTests } from 'http-cache-tests/client/runner.mjs'
import { makeCacheTest, testResults, testUUIDs } from 'http-cache-tests/client/test.mjs'
import suites, { type CacheTest } from 'http-cache-tests/tests/index.mjs'

// The client that the suite itself uses: Node's own fetch adds request fields that would decide many tests.
const require = createRequire(createRequire(import.meta.url).resolve('http-cache-tests/package.json'))
const fetch: (url: string, init?: unknown) => Promise<{ status: number }> = require('node-fetch')

// Node counts a timeout from the beginning of the turn of its event loop, which is long when a hundred tests begin
// in it. A pause of three seconds that is shorter than that lets an age look wrong.
const { setTimeout: original } = globalThis
globalThis.setTimeout = ((run: () => void, ms = 0) => {
  const end = performance.now() + ms
  const again = (): unknown => (performance.now() < end ? original(again, end - performance.now()) : run())
  return original(again, ms)
}) as typeof setTimeout

/** How long the suite pauses in a test, ms. */
const PAUSE = 3000
/**
 * Tests find responses fresh for two seconds, of which Date may take one away. What they show is only true if the requests of
 * a test follow each other within the other one, ms.
 */
const SLOWEST = 900
/** So often tests that were too slow are run again, so many at a time. */
const ROUNDS = 5
const AT_ONCE = 10

/** The first request, the last response and the number of requests of each test, by its id in addresses. */
const times = new Map<string, { first: number; last: number; requests: number }>()

async function timedFetch(url: string, init?: unknown): Promise<unknown> {
  const id = /\/test\/([^/?]+)/.exec(url)?.[1]
  if (id === undefined) {
    // What a test sets up. A kept connection may be closed just as it is used again, and the proxy repeats no request with a body.
    const response = await fetch(url, init)
    return response.status === 502 ? fetch(url, init) : response
  }
  const now = performance.now()
  const time = times.get(id) ?? { first: now, last: now, requests: 0 }
  times.set(id, time)
  time.requests++
  const response = await fetch(url, init)
  time.last = performance.now()
  return response
}

/** Whether a test failed on a machine that was too busy for it: nothing is shown. */
function wasTooSlow({ id, requests }: CacheTest): boolean {
  const time = times.get(testUUIDs[id] ?? '')
  if (testResults[id] === true || !time) return false
  const pauses = requests.slice(0, time.requests - 1).filter((request) => 'pause_after' in request).length
  return time.last - time.first - pauses * PAUSE > SLOWEST
}

/** The suite changes its tests as it runs them. */
const untouched = structuredClone(suites)
const [base = ''] = process.argv.slice(2)
await runTests(suites, timedFetch, false, base)
for (let round = 0; round < ROUNDS; round++) {
  const again = structuredClone(untouched.flatMap(({ tests }) => tests).filter(wasTooSlow))
  for (const { id } of again) delete testResults[id]
  while (again.length > 0) await Promise.all(again.splice(0, AT_ONCE).map(makeCacheTest))
}
// Its connections are kept alive, and would keep the process so.
process.stdout.write(JSON.stringify(getResults()), () => process.exit())
