/**
 * Which source files a call passes through: one call of each kind, followed by the coverage of the inspector.
 *
 * Usage: npm run paths [-- run hit submit call http stream]
 *
 * A file counts when a function of it runs between the moment of the call and its result. Both sides are counted: the
 * process that does the work and the process that waits, which share this process through two connections. Nothing else is
 * open meanwhile.
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
import { Services } from '../src/services/index.ts'
import { setup } from '../test/support/setup.ts'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const SOURCE = new URL('../src/', import.meta.url).href

/** The files below `src` whose functions ran during `call`, in the order of their names. */
async function visited(call: () => Promise<unknown>): Promise<string[]> {
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
const { redis } = t
const session = new Session()
session.connect()
await session.post('Profiler.enable')

const work = async () => {
  await sleep(20)
  return 'value'
}

type Measure = (call: () => Promise<unknown>) => Promise<void>

/** Each opens what its call needs, makes a call like it first, and has it measured. */
const CALLS: Record<string, (measure: Measure) => Promise<void>> = {
  async run(measure) {
    await using locker = new Locker({ redis })
    await locker.run('warm', work)
    await measure(() => locker.run('cold', work))
  },
  async hit(measure) {
    await using locker = new Locker({ redis })
    await locker.run('hit', work)
    await measure(() => locker.run('hit', work, { ttl: 60_000 }))
  },
  async wait(measure) {
    await using one = new Locker({ redis })
    await using other = new Locker({ redis })
    const both = (key: string) => Promise.all([one.run(key, work), other.run(key, work)])
    await both('warm')
    await measure(() => both('wait'))
  },
  async submit(measure) {
    await using queue = new RedisQueue('paths', { redis })
    await using worker = new RedisQueue('paths', { redis })
    worker.process('job', async () => 'done')
    await queue.submit('job', 0)
    await measure(() => queue.submit('job', 1))
  },
  async call(measure) {
    await using serving = new Services({ redis })
    await using calling = new Services({ redis })
    const sums = await serving.register('sums')
    sums.on('add', (a: number, b: number) => a + b)
    await calling.require('sums').emit('add', 1, 1)
    await measure(() => calling.require('sums').emit('add', 1, 2))
  },
  http: (measure) => request('/cold', measure),
  httpHit: (measure) => request('/warm', measure),
  async stream(measure) {
    await using locker = new Locker({ redis })
    const read = async (key: string) => {
      for await (const _chunk of locker.stream(key, () => ['one']));
    }
    await read('warm')
    await measure(() => read('cold'))
  },
}

async function request(path: string, measure: Measure): Promise<void> {
  await using locker = new Locker({ redis })
  const handler = memoizeHandler(locker, { ttl: 60_000 }, (_request, response) => response.end('page'))
  const server = createServer(handler).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const page = async (path: string) =>
    (await fetch(`http://127.0.0.1:${(server.address() as AddressInfo).port}${path}`)).text()
  await page('/warm')
  await measure(() => page(path))
  server.close()
  server.closeAllConnections()
}

const asked = process.argv.slice(2)
for (const [name, run] of Object.entries(CALLS)) {
  if (asked.length > 0 && !asked.includes(name)) continue
  await run(async (call) => {
    const files = await visited(call)
    console.log([`${name}: ${files.length} files`, ...files].join('\n  '))
  })
}
session.disconnect()
