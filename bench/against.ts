/**
 * Compares this checkout with another one, call by call: both are built, run in processes of their own, and take turns.
 *
 *   git worktree add ../before <commit>
 *   npm run bench:against -- ../before                 everything, about 15 minutes
 *   npm run bench:against -- ../before hits queue      some parts
 *
 * Each row is the median of the ratios of the pairs, over several processes of each, with its 95 % interval. A row fails if the interval does not exclude that
 * the call became slower by 5 %.
 */

import { resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { LOCALHOST } from '../test/support/ports.ts'
import { portOf, RedisServer } from '../test/support/redis-server.ts'
import type { Route } from './bus/bus.ts'
import { carry } from './bus/carry.ts'
import { fire } from './cannon.ts'
import type { Layers, Name } from './contenders/contender.ts'
import type { Site } from './http-child.ts'
import { type Build, buildLibrary } from './library.ts'
import { closePair as closeBuses, labelOf, openPair as openBuses, ROUTES } from './parts/bus.ts'
import { forkSite } from './parts/http.ts'
import { closePair, openPair as openServices, tripsBetween } from './parts/services.ts'
import { type Kind, openPair, trips } from './parts/trips.ts'
import { heading, table } from './report.ts'
import { interleaved } from './rounds.ts'
import { endChildren, forkChild, open, type Stage } from './stage.ts'
import { median, medianInterval } from './statistics.ts'
import { measureTrips } from './trips.ts'

const BUILDS: readonly Build[] = ['soloflight-bench', 'soloflight-bench-baseline']
const [OWN, BASELINE] = BUILDS as [Build, Build]
/** Processes differ too, by what their engine has optimised: each build is opened anew so often … */
const OPENINGS = 6
/** … and takes so many turns each time. */
const ROUNDS = 10
const WARM_UPS = 8
/** The lowest ratio that counts as unchanged. */
const LIMIT = 0.95

/** What one turn gave. `cpu`: microseconds a call, where it is measured. */
interface Turn {
  rate: number
  cpu?: number
}

/** A call that both builds make, in processes that are open. */
interface Comparison {
  turn: (build: Build, round: number) => Promise<Turn>
  close: () => Promise<void>
}

type Opening = (stage: Stage) => Promise<Comparison>

/** Opens the same thing with both builds. */
async function both<T>(make: (build: Build) => Promise<T>): Promise<(build: Build) => T> {
  const made = new Map<Build, T>()
  for (const build of BUILDS) made.set(build, await make(build))
  return (build) => made.get(build) as T
}

/** Calls of a contender: hits of 1,000 keys, or keys that were never asked for. */
function calls(name: Name, layers: Layers, inFlight: number, kind: 'hits' | 'cold' | 'spin'): Opening {
  return async (stage) => {
    const childOf = await both(async (build) => {
      const child = await forkChild(build)
      await open(child, name, stage, [layers], { prefix: build, ttl: kind === 'cold' ? 10_000 : 600_000 })
      if (kind !== 'cold') await child.call('fill', name, 'user', 1_000)
      return child
    })
    return {
      turn: (build, round) => {
        if (kind === 'spin') return childOf(build).call('spin', name, 'user', 1_000, 200)
        const keys = kind === 'cold' ? `cold-${round}` : 'user'
        return childOf(build).call('pump', name, keys, kind === 'cold' ? 100_000 : 1_000, inFlight, 200)
      },
      close: () => endChildren(BUILDS.map(childOf)),
    }
  }
}

function jobs(kind: Kind, inFlight: number): Opening {
  return async (stage) => {
    const pairOf = await both((build) => openPair('soloflight', stage, build))
    return {
      turn: async (build) => {
        const { rate, cpu, workerCpu } = await trips(pairOf(build), kind, inFlight, stage, 300)
        return { rate, cpu: cpu + workerCpu }
      },
      close: () => endChildren(BUILDS.flatMap((build) => [pairOf(build).producer, pairOf(build).worker])),
    }
  }
}

function serviceCalls(inFlight: number): Opening {
  return async (stage) => {
    const pairOf = await both((build) => openServices('soloflight', stage, build))
    return {
      turn: async (build) => {
        const source = tripsBetween(pairOf(build))
        const { rate, cpu, workerCpu } = await measureTrips(source, inFlight, stage, 300)
        return { rate, cpu: cpu + workerCpu }
      },
      close: async () => {
        for (const build of BUILDS) await closePair(pairOf(build))
      },
    }
  }
}

function messages(route: Route): Opening {
  return async (stage) => {
    const pairOf = await both((build) => openBuses('soloflight', stage, build))
    return {
      turn: async (build) => {
        const pair = pairOf(build)
        const { rate, senderCpu, receiverCpu } = await carry(pair, pair.queueOf(route), stage, 300)
        return { rate, cpu: senderCpu + receiverCpu }
      },
      close: async () => {
        for (const build of BUILDS) await closeBuses(pairOf(build))
      },
    }
  }
}

function pages(kind: Site['kind']): Opening {
  return async ({ server }) => {
    const redis = { host: LOCALHOST, port: portOf(server) }
    const siteOf = await both(async (build) => {
      const child = await forkSite(build)
      const site: Site = { kind, redis, ttl: 600_000, staleWhileRevalidate: 0, takes: 0 }
      return { child, port: await child.call('listen', build, site) }
    })
    return {
      turn: async (build) => ({ rate: (await fire(siteOf(build).port, 1)).rate }),
      close: () => endChildren(BUILDS.map((build) => siteOf(build).child)),
    }
  }
}

const PARTS: Record<string, Record<string, Opening>> = {
  hits: {
    'hit in the process, run': calls('soloflight', 'both', 1, 'spin'),
    'hit in the process, memoize': calls('soloflight, memoize', 'both', 1, 'spin'),
    'hit in the process, request': calls('soloflight, request', 'both', 1, 'spin'),
  },
  'redis-hits': {
    'hit in Redis, 64 in flight': calls('soloflight', 'redis', 64, 'hits'),
    'hit in Redis, 1 in flight': calls('soloflight', 'redis', 1, 'hits'),
  },
  cold: {
    'cold run, embedded': calls('soloflight', 'memory', 64, 'cold'),
    'cold run, 64 in flight': calls('soloflight', 'redis', 64, 'cold'),
    'cold run, 1 in flight': calls('soloflight', 'redis', 1, 'cold'),
  },
  queue: {
    'job, 50 in flight': jobs('plain', 50),
    'job, 1 in flight': jobs('plain', 1),
    'deduplicated job, 50 in flight': jobs('deduplicated', 50),
  },
  services: {
    'call of a service, 50 in flight': serviceCalls(50),
    'call of a service, 1 in flight': serviceCalls(1),
  },
  bus: Object.fromEntries(ROUTES.map((route) => [`message of the bus, ${labelOf(route)}`, messages(route)])),
  http: {
    'memoised page, node:http': pages('memoised'),
    'memoised page, Fetch': pages('Fetch core'),
  },
}

function ratios(own: readonly Turn[], baseline: readonly Turn[], of: (turn: Turn) => number): number[] {
  return own.map((turn, round) => of(turn) / of(baseline[round] ?? { rate: Number.NaN }))
}

async function compare(opening: Opening, stage: Stage): Promise<{ speed: number[]; cpu: number[] }> {
  const speed: number[] = []
  const cpu: number[] = []
  for (let opened = 0; opened < OPENINGS; opened++) {
    const { turn, close } = await opening(stage)
    try {
      for (let round = 0; round < WARM_UPS; round++) for (const build of BUILDS) await turn(build, -1 - round)
      const results = await interleaved(BUILDS, ROUNDS, turn)
      const [own, baseline] = [results.of(OWN), results.of(BASELINE)]
      speed.push(...ratios(own, baseline, ({ rate }) => rate))
      cpu.push(...ratios(own, baseline, (each) => each.cpu ?? Number.NaN))
    } finally {
      await close()
      await stage.server.call('FLUSHALL')
    }
  }
  return { speed, cpu }
}

async function main(): Promise<void> {
  const { positionals } = parseArgs({ allowPositionals: true })
  const [checkout, ...names] = positionals
  if (checkout === undefined) throw new Error('Expected the folder of another checkout')
  await buildLibrary()
  await buildLibrary(resolve(checkout), BASELINE)
  await using server = await RedisServer.start({ port: 'free' })
  const parts = names.length > 0 ? names : Object.keys(PARTS)
  const rows: string[][] = []
  heading(`This checkout, of ${checkout}: ${OPENINGS * ROUNDS} pairs, in ${OPENINGS} processes of each`)
  for (const part of parts) {
    for (const [name, opening] of Object.entries(PARTS[part] ?? {})) {
      const { speed, cpu } = await compare(opening, { server, quick: false })
      const [low, high] = medianInterval(speed)
      const unchanged = low > LIMIT
      if (!unchanged) process.exitCode = 1
      const row = [name, median(speed), low, high, median(cpu)].map((cell) =>
        typeof cell === 'number' ? cell.toFixed(3) : cell,
      )
      rows.push([...row, unchanged ? 'yes' : 'NO'])
      console.log(`  ${row.join('  ')}`)
    }
  }
  console.log()
  table(['call', 'speed', 'from', 'to', 'CPU', `surely above ${LIMIT}`], rows)
}

await main()
