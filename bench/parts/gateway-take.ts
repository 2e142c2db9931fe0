import type { RedisServer } from '../../test/support/redis-server.ts'
import { openSite, type Site } from '../gateway/crew.ts'
import type { SiteKind } from '../gateway/server-child.ts'
import type { Pumped } from '../pump.ts'
import { crewMember, type QueueChild } from '../queues/crew.ts'
import { payloadOf } from '../queues/payload.ts'
import { atLeast, exactly, heading, table } from '../report.ts'
import { interleaved } from '../rounds.ts'
import { commandsRun, endChildren, type Stage } from '../stage.ts'
import { sum } from '../statistics.ts'
import { redisCpu } from '../trips.ts'

const KINDS: readonly SiteKind[] = ['gateway', 'bare']
const QUEUE = 'taken'
const IN_FLIGHT = 50

/** Jobs for every second: more than are taken. A client that finds none has failed. */
const JOBS_A_SECOND: Readonly<Record<SiteKind, number>> = { gateway: 12_000, bare: 40_000 }

interface Taken extends Pumped {
  /** Redis commands a job, inside scripts too. */
  commands: number
  /** Microseconds of CPU a job. */
  serverCpu: number
  redisCpu: number
}

/** A job is taken by one request and finished by another, beside handlers that send one command each. */
export async function gatewayTake(stage: Stage): Promise<void> {
  const rounds = stage.quick ? 3 : 10
  const ms = stage.quick ? 200 : 1_000
  heading(
    `gateway-take: take and finish over HTTP, jobs of 1 KB, ${IN_FLIGHT} clients, ${rounds} rounds of ${ms} ms`,
  )
  const sites = new Map<SiteKind, Site>()
  const filler = await crewMember('soloflight', stage.server, [
    { queue: QUEUE, submits: true, works: false, deduplicated: false },
  ])
  try {
    for (const kind of KINDS) sites.set(kind, await openSite(kind, stage, IN_FLIGHT))
    const measure = (kind: SiteKind, forMs: number) =>
      take(kind, sites.get(kind) as Site, filler, stage.server, forMs)
    for (const kind of KINDS) await measure(kind, stage.quick ? 2 * ms : 5_000)
    const results = await interleaved(KINDS, rounds, (kind) => measure(kind, ms))
    const median = (kind: SiteKind, of: (taken: Taken) => number) => results.median(kind, of)
    table(
      [
        'take and finish',
        'jobs/s',
        'of bare',
        'p50 ms',
        'p99 ms',
        'commands',
        'CPU µs of server',
        'client',
        'Redis',
      ],
      KINDS.map((kind) => [
        kind,
        median(kind, ({ rate }) => rate * 1000).toFixed(0),
        results.ratio(kind, 'bare', ({ rate }) => rate).toFixed(2),
        median(kind, ({ p50 }) => p50).toFixed(2),
        median(kind, ({ p99 }) => p99).toFixed(2),
        median(kind, ({ commands }) => commands).toFixed(1),
        median(kind, ({ serverCpu }) => serverCpu).toFixed(0),
        median(kind, ({ cpu }) => cpu).toFixed(0),
        median(kind, (taken) => taken.redisCpu).toFixed(0),
      ]),
    )
    const faults = KINDS.map((kind) => sum(results.values(kind, ({ lost, wrong }) => lost + wrong)))
    exactly('take and finish, lost or twice; by the bare handlers', faults, [0, 0])
    // Handlers that do less cannot be slower: if they seem to be, the ratio says nothing.
    atLeast(
      'bare handlers, of the gateway',
      results.ratio('bare', 'gateway', ({ rate }) => rate),
      1,
    )
    const ratio = results.ratio('gateway', 'bare', ({ rate }) => rate)
    atLeast('take and finish over HTTP, of handlers with a Redis command each', ratio, 0.6, { goal: 0.8 })
  } finally {
    await endChildren([filler, ...[...sites.values()].flatMap(({ server, client }) => [server, client])])
    await stage.server.call('FLUSHALL')
  }
}

async function take(
  kind: SiteKind,
  { server, client }: Site,
  filler: QueueChild,
  redis: RedisServer,
  ms: number,
): Promise<Taken> {
  await redis.call('FLUSHALL')
  const count = Math.ceil((JOBS_A_SECOND[kind] * ms) / 1_000)
  if (kind === 'gateway') await filler.call('fill', QUEUE, count, 1_000)
  else await fillList(redis, count)
  const cpuBefore = await server.call('cpu')
  const redisBefore = await redisCpu(redis)
  await redis.resetStats()
  const pumped = await client.call('takeAndFinish', `/q/${QUEUE}`, IN_FLIGHT, ms)
  const commands = await commandsRun(redis)
  const redisAfter = await redisCpu(redis)
  const jobs = pumped.rate * ms
  return {
    ...pumped,
    commands: commands / jobs,
    serverCpu: ((await server.call('cpu')) - cpuBefore) / jobs,
    redisCpu: (redisAfter - redisBefore) / jobs,
  }
}

async function fillList(redis: RedisServer, count: number): Promise<void> {
  for (let from = 0; from < count; from += 1_000) {
    const jobs = Array.from({ length: 1_000 }, (_, n) => JSON.stringify(payloadOf(from + n)))
    await redis.call('RPUSH', QUEUE, ...jobs)
  }
}
