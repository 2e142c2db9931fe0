// Two processes serve prices, a third serves reports, which need prices. Five callers want the same report: it is made once.
// The process that is asked for a price is killed meanwhile; the other one answers.
//   npx tsx examples/services.ts                                      Services objects of this process, nothing else needed
//   npx tsx examples/services.ts --redis redis://localhost:6379       processes of their own
// In your program: import { Services } from 'soloflight'
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { MemoryServices, Services } from '../src/index.ts'
import { redisUrl } from './queue/place.ts'
import { LEASE, type Reports, servePrices, serveReports } from './services/shop.ts'

/** How to end each process that serves prices, by its name. */
type Ends = Map<unknown, () => unknown>

async function callAll(services: Services, ends: Ends): Promise<void> {
  services.on('down', ({ service }) => console.log(`a process does not serve ${service} any more`))
  const reports = services.require<Reports>('reports', { wait: 5_000 })
  const onProgress = (name: unknown) => {
    const end = ends.get(name)
    if (!end || ends.size < 2) return
    ends.delete(name)
    console.log(`${name} ends in the middle of it`)
    end()
  }
  // Identical calls share one run, from whichever processes they come.
  const shared = reports.with({ dedupe: true, onProgress })
  const received = await Promise.all(Array.from({ length: 5 }, () => shared.emit('total', ['tea', 'coffee'])))
  console.log(`5 callers received: ${[...new Set(received)].join(', ')}`)
  const processes = await services.list('prices')
  console.log(`${processes.length} process serves prices`)
}

/** Objects that share a memory store stand for processes, as in tests. */
async function inOneProcess(): Promise<void> {
  const store = new MemoryServices()
  const open = () => new Services({ store, lease: LEASE })
  const [first, second, third, caller] = [open(), open(), open(), open()]
  await servePrices(first, 'object 1')
  await servePrices(second, 'object 2')
  await serveReports(third, 'object 3')
  const end = (services: Services) => () => services.close({ grace: 0 })
  await callAll(
    caller,
    new Map([
      ['object 1', end(first)],
      ['object 2', end(second)],
    ]),
  )
  await Promise.all([first, second, third, caller].map((services) => services.close()))
}

async function inSeveralProcesses(redis: string): Promise<void> {
  const file = fileURLToPath(new URL('./services/process.ts', import.meta.url))
  const start = (SERVES: string): ChildProcess =>
    fork(file, { env: { ...process.env, REDIS_URL: redis, SERVES } })
  const processes = ['prices', 'prices', 'reports'].map(start)
  const names = await Promise.all(processes.map(async (child) => (await once(child, 'message'))[0] as string))
  const caller = new Services({ redis, lease: LEASE })
  const ends: Ends = new Map()
  for (const [index, child] of processes.slice(0, 2).entries())
    ends.set(names[index], () => child.kill('SIGKILL'))
  await callAll(caller, ends)
  await caller.close()
  for (const child of processes) if (child.connected) child.disconnect()
}

const redis = redisUrl()
await (redis === undefined ? inOneProcess() : inSeveralProcesses(redis))
