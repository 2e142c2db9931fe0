/**
 * Compares soloflight with its peers, and with the figures that it has to reach.
 *
 *   npm run bench                      everything
 *   npm run bench -- hits cold         single parts
 *   npm run bench -- --quick           few rounds, few peers: within two minutes
 *   npm run bench -- --strict          a missed time is a failure too, not only a missed count
 */

import { readFile } from 'node:fs/promises'
import { cpus, loadavg } from 'node:os'
import { parseArgs } from 'node:util'
import { RedisServer } from '../test/support/redis-server.ts'
import { BUS_ENTRANTS } from './bus/entrant.ts'
import { ENTRANTS } from './contenders/contender.ts'
import { buildLibrary } from './library.ts'
import { bus } from './parts/bus.ts'
import { busFanOut } from './parts/bus-fan-out.ts'
import { busIdle } from './parts/bus-idle.ts'
import { cold } from './parts/cold.ts'
import { connections } from './parts/connections.ts'
import { gatewayPolls } from './parts/gateway-polls.ts'
import { gatewayTake } from './parts/gateway-take.ts'
import { gatewayWait } from './parts/gateway-wait.ts'
import { hits } from './parts/hits.ts'
import { http, httpRefresh } from './parts/http.ts'
import { keys } from './parts/keys.ts'
import { many } from './parts/many.ts'
import { memory } from './parts/memory.ts'
import { queue } from './parts/queue.ts'
import { queueBulk } from './parts/queue-bulk.ts'
import { queueIdle } from './parts/queue-idle.ts'
import { queueKill } from './parts/queue-kill.ts'
import { queueLost } from './parts/queue-lost.ts'
import { queueMemory } from './parts/queue-memory.ts'
import { redisHits } from './parts/redis-hits.ts'
import { services } from './parts/services.ts'
import { servicesIdle } from './parts/services-idle.ts'
import { starts } from './parts/starts.ts'
import { streams } from './parts/streams.ts'
import { streamsIdle } from './parts/streams-idle.ts'
import { QUEUE_ENTRANTS } from './queues/entrant.ts'
import { summary, table } from './report.ts'
import { SERVICES_ENTRANTS } from './services/entrant.ts'
import type { Stage } from './stage.ts'

const PARTS: Record<string, (stage: Stage) => Promise<void>> = {
  hits,
  starts,
  'redis-hits': redisHits,
  many,
  cold,
  keys,
  connections,
  memory,
  streams,
  'streams-idle': streamsIdle,
  http,
  'http-refresh': httpRefresh,
  queue,
  'queue-bulk': queueBulk,
  'queue-memory': queueMemory,
  'queue-idle': queueIdle,
  'queue-kill': queueKill,
  'queue-lost': queueLost,
  services,
  'services-idle': servicesIdle,
  bus,
  'bus-fan-out': busFanOut,
  'bus-idle': busIdle,
  'gateway-wait': gatewayWait,
  'gateway-take': gatewayTake,
  'gateway-polls': gatewayPolls,
}

async function versionOf(name: string): Promise<string> {
  const url = new URL(`./node_modules/${name}/package.json`, import.meta.url)
  const { version }: { version: string } = JSON.parse(await readFile(url, 'utf8'))
  return version
}

/** The version of a peer that has a package of its own, which may not be installed yet. */
async function pinnedVersionOf(peer: string): Promise<string> {
  const url = new URL(`./peers/${peer}/package.json`, import.meta.url)
  const { dependencies }: { dependencies: Record<string, string> } = JSON.parse(await readFile(url, 'utf8'))
  return dependencies[peer] ?? ''
}

/** What the package depends on, the bench has in the same version. */
async function checkVersions(): Promise<void> {
  const read = async (file: string): Promise<Record<string, string>> =>
    JSON.parse(await readFile(new URL(file, import.meta.url), 'utf8')).dependencies
  const [own, bench] = await Promise.all([read('../package.json'), read('./package.json')])
  for (const name of ['ioredis', 'lru-cache']) {
    if (own[name] !== bench[name])
      throw new Error(`Expected ${name} ${own[name]}, the bench has ${bench[name]}`)
  }
}

async function introduce(server: RedisServer, quick: boolean) {
  const redis = /redis_version:(\S+)/.exec(String(await server.call('INFO', 'server')))?.[1]
  const [cpu] = cpus()
  console.log(
    `Node ${process.version}, Redis ${redis} on loopback, ${cpus().length} × ${cpu?.model.trim()}, load ${loadavg()[0]?.toFixed(1)}`,
  )
  if (quick) console.log('Quick: few rounds, few peers')
  const entrants = [...Object.values(ENTRANTS), ...Object.values(QUEUE_ENTRANTS)]
  const packages = entrants.flatMap((entrant) => ('package' in entrant ? [entrant.package] : []))
  const separate: readonly { peer?: string; load: unknown }[] = [
    ...Object.values(SERVICES_ENTRANTS),
    ...Object.values(BUS_ENTRANTS),
  ]
  const peers = separate.flatMap(({ peer }) => peer ?? [])
  const rows = await Promise.all([
    ...packages.map(async (name) => [name, await versionOf(name)]),
    ...peers.map(async (name) => [name, await pinnedVersionOf(name)]),
  ])
  table(['peer', 'version'], rows)
}

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      quick: { type: 'boolean', default: false },
      strict: { type: 'boolean', default: false },
    },
  })
  const unknown = positionals.filter((name) => !(name in PARTS))
  if (unknown.length > 0) {
    throw new Error(`Expected parts out of ${Object.keys(PARTS).join(', ')}, got ${unknown.join(', ')}`)
  }
  await checkVersions()
  await buildLibrary()
  await using server = await RedisServer.start({ port: 'free' })
  await introduce(server, values.quick)
  for (const [name, part] of Object.entries(PARTS)) {
    if (positionals.length > 0 && !positionals.includes(name)) continue
    const startedAt = performance.now()
    await part({ server, quick: values.quick })
    console.log(`  (${((performance.now() - startedAt) / 1000).toFixed(0)} s)`)
  }
  const missed = summary()
  if (missed.some(({ kind }) => kind === 'count' || values.strict)) process.exitCode = 1
}

await main()
