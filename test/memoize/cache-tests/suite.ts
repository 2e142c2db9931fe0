import { fileURLToPath } from 'node:url'
import suites from 'http-cache-tests/tests/index.mjs'
import { compiled } from '../../support/compiled.ts'
import { Program } from './program.ts'

type Kind = 'required' | 'optimal' | 'check'

/** How a test failed: in what it set up (what it is about was not reached), or in what it asserts. */
export interface Failure {
  id: string
  kind: Kind
  message: string
}

/** The result of one run, counted as the suite's published results are: browsers' own tests left out. */
export interface Tally {
  counts: Record<Kind, { passed: number; of: number }>
  failures: Failure[]
}

export interface CacheUnderTest {
  processes: number
  /** Where the processes share what they keep. */
  redis?: string
  /** Whether it is told to share responses that set cookies. */
  shareSetCookie?: boolean
}

const LISTENING = /Listening on .*?(\d+)[/ }]/gs
const SERVER = fileURLToPath(import.meta.resolve('http-cache-tests/server/server.mjs'))
const CLIENT = fileURLToPath(new URL('./client.ts', import.meta.url))
const PROXY = fileURLToPath(new URL('../../../examples/reverse-proxy.ts', import.meta.url))

/** Runs the public suite against examples/reverse-proxy.ts, with the suite's own server behind it. */
export async function runSuite({ processes, redis, shareSetCookie }: CacheUnderTest): Promise<Tally> {
  const env = { npm_config_protocol: 'http', npm_config_port: '0', npm_config_pidfile: '/dev/null' }
  await using origin = new Program([SERVER], env)
  const [, originPort] = await origin.wrote(LISTENING)
  await using proxy = new Program([
    await compiled(PROXY),
    ...['--origin', `http://localhost:${originPort}`, '--port', '0', '--processes', String(processes)],
    ...(redis === undefined ? [] : ['--redis', redis]),
    ...(shareSetCookie ? ['--share-set-cookie'] : []),
  ])
  const [, port] = await proxy.wrote(LISTENING, processes)
  await using client = new Program([await compiled(CLIENT), `http://localhost:${port}`])
  return tally(JSON.parse(await client.output()))
}

function tally(results: Record<string, true | [string, string]>): Tally {
  const counted: Tally = {
    counts: { required: { passed: 0, of: 0 }, optimal: { passed: 0, of: 0 }, check: { passed: 0, of: 0 } },
    failures: [],
  }
  for (const test of suites.flatMap((suite) => suite.tests)) {
    if (test.browser_only) continue
    const kind = test.kind ?? 'required'
    const result = results[test.id] ?? ['Harness', 'it did not run']
    counted.counts[kind].of++
    if (result === true) counted.counts[kind].passed++
    else counted.failures.push({ id: test.id, kind, message: result.join(': ') })
  }
  return counted
}
