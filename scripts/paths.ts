/**
 * Which source files a call passes through: one call of each kind, followed by the coverage of the inspector.
 *
 * Usage: npm run paths [-- run hit submit http stream]
 *
 * A file counts when a function of it runs between the moment of the call and its result. Both sides are counted: the
 * process that does the work and the process that waits, which share this process through two connections.
 */
import { once } from 'node:events'
import { createServer } from 'node:http'
import { Session } from 'node:inspector/promises'
import type { AddressInfo } from 'node:net'
import { relative, sep } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { Locker } from '../src/locker/index.ts'
import { memoizeHandler } from '../src/memoize/node.ts'
import { RedisQueue } from '../src/queue/index.ts'
import { setup } from '../test/support/setup.ts'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const SOURCE = new URL('../src/', import.meta.url).href

/** The files below `src` whose functions ran during `call`, in the order of their names. */
async function visited(session: Session, call: () => Promise<unknown>): Promise<string[]> {
  await session.post('Profiler.startPreciseCoverage', { callCount: true, detailed: false })
  await session.post('Profiler.takePreciseCoverage')
  await call()
  const { result } = await session.post('Profiler.takePreciseCoverage')
  await session.post('Profiler.stopPreciseCoverage')
  return result
    .filter(({ url, functions }) => url.startsWith(SOURCE) && functions.some(ran))
    .map(({ url }) => relative(ROOT, fileURLToPath(url)).split(sep).join('/'))
    .sort()
}

/** The function that stands for the module itself has no name and begins at 0. */
function ran(functionCoverage: {
  functionName: string
  ranges: { startOffset: number; count: number }[]
}): boolean {
  const [range] = functionCoverage.ranges
  return (
    range !== undefined && range.count > 0 && (functionCoverage.functionName !== '' || range.startOffset > 0)
  )
}

await using t = await setup()
const session = new Session()
session.connect()
await session.post('Profiler.enable')

const redis = t.redis
const locker = new Locker({ redis })
const other = new Locker({ redis })
const queue = new RedisQueue('paths', { redis })
const worker = new RedisQueue('paths', { redis })
worker.process('job', async () => 'done')
const server = createServer(
  memoizeHandler(locker, { ttl: 60_000 }, (_request, response) => response.end('page')),
)
server.listen(0, '127.0.0.1')
await once(server, 'listening')
const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
const work = async () => {
  await sleep(20)
  return 'value'
}
const page = async (path: string) => (await fetch(url + path)).text()

const CALLS: Record<string, { warm: () => Promise<unknown>; call: () => Promise<unknown> }> = {
  run: { warm: () => locker.run('warm', work), call: () => locker.run('cold', work) },
  hit: { warm: () => locker.run('hit', work), call: () => locker.run('hit', work, { ttl: 60_000 }) },
  wait: {
    warm: () => Promise.all([locker.run('w', work), other.run('w', work)]),
    call: () => Promise.all([locker.run('wait', work), other.run('wait', work)]),
  },
  submit: {
    warm: () => queue.submit('job', 0),
    call: () => queue.submit('job', 1),
  },
  http: { warm: () => page('/warm'), call: () => page('/cold') },
  httpHit: { warm: () => page('/hit'), call: () => page('/hit') },
  stream: {
    warm: () => drain('warm-stream'),
    call: () => drain('stream'),
  },
}

async function drain(key: string): Promise<void> {
  for await (const chunk of locker.stream(key, async function* () {
    yield 'one'
  }))
    void chunk
}

const asked = process.argv.slice(2)
for (const [name, { warm, call }] of Object.entries(CALLS)) {
  if (asked.length > 0 && !asked.includes(name)) continue
  await warm()
  const files = await visited(session, call)
  console.log(`${name}: ${files.length} files`)
  for (const file of files) console.log(`  ${file}`)
}

server.close()
server.closeAllConnections()
await Promise.all([queue.close(), worker.close(), locker.close(), other.close()])
session.disconnect()
