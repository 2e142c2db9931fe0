// Runs the public suite once, in a process of its own: it changes its tests as it runs them. Prints the results as JSON.
//   node --import tsx test/memoize/cache-tests/client.ts <where the cache listens>

import { createRequire } from 'node:module'
import { getResults, runTests } from 'http-cache-tests/client/runner.mjs'
import suites from 'http-cache-tests/tests/index.mjs'

// The client that the suite itself uses: Node's own fetch adds request fields that would decide many tests.
const require = createRequire(createRequire(import.meta.url).resolve('http-cache-tests/package.json'))
const fetch: unknown = require('node-fetch')

// Node counts a timeout from the beginning of the turn of its event loop, which is long when a hundred tests begin
// in it. A pause of three seconds that is shorter than that lets an age look wrong.
const { setTimeout: original } = globalThis
globalThis.setTimeout = ((run: () => void, ms = 0) => {
  const end = performance.now() + ms
  const again = (): unknown => (performance.now() < end ? original(again, end - performance.now()) : run())
  return original(again, ms)
}) as typeof setTimeout

const [base = ''] = process.argv.slice(2)
await runTests(suites, fetch, false, base)
// Its connections are kept alive, and would keep the process so.
process.stdout.write(JSON.stringify(getResults()), () => process.exit())
