import type { RedisServer } from '../../test/support/redis-server.ts'
import type { Build } from '../library.ts'
import type { Pumped } from '../pump.ts'
import { crewMember, type QueueChild } from '../queues/crew.ts'
import type { QueueName } from '../queues/entrant.ts'
import { commandsRun, commandsSent, type Stage } from '../stage.ts'
import { sum } from '../statistics.ts'

/** Without deduplication; and deduplicated by payload, no two of which are the same. */
export const KINDS = ['plain', 'deduplicated'] as const
export type Kind = (typeof KINDS)[number]

/** Two processes: one that submits jobs, and one that runs them. */
export interface Pair {
  name: QueueName
  producer: QueueChild
  worker: QueueChild
}

/** What came of round trips. */
export interface Trips extends Pumped {
  /** Redis commands a round trip, inside scripts too. */
  commands: number
  /** Microseconds of CPU a round trip; the producer's is `cpu`. */
  workerCpu: number
  redisCpu: number
}

const queueOf = ({ name }: Pair, kind: Kind) => `trips-${kind}.${name}`

/** Opens both, with a queue of each kind. `build`: the library that they measure. */
export async function openPair(name: QueueName, { server }: Stage, build?: Build): Promise<Pair> {
  const terms = KINDS.map((kind) => ({
    queue: `trips-${kind}.${name}`,
    deduplicated: kind === 'deduplicated',
  }))
  const [producer, worker] = await Promise.all([
    crewMember(
      name,
      server,
      terms.map((each) => ({ ...each, submits: true, works: false })),
      build,
    ),
    crewMember(
      name,
      server,
      terms.map((each) => ({ ...each, submits: false, works: true })),
      build,
    ),
  ])
  return { name, producer, worker }
}

/** Round trips for a while, so many at once. */
export async function trips(
  pair: Pair,
  kind: Kind,
  inFlight: number,
  { server }: Stage,
  ms: number,
): Promise<Trips> {
  const before = await pair.worker.call('usage')
  const redisBefore = await redisCpu(server)
  await server.resetStats()
  const pumped = await pair.producer.call('pump', queueOf(pair, kind), inFlight, ms)
  const commands = await commandsRun(server)
  const redisAfter = await redisCpu(server)
  const after = await pair.worker.call('usage')
  const runs = after.runs - before.runs
  return {
    ...pumped,
    commands: commands / runs,
    workerCpu: (after.cpu - before.cpu) / runs,
    redisCpu: (redisAfter - redisBefore) / runs,
  }
}

/** Commands that clients send a round trip. */
export async function clientCommands(
  pair: Pair,
  kind: Kind,
  inFlight: number,
  { server }: Stage,
): Promise<number> {
  const runs = async () => (await pair.worker.call('usage')).runs
  const before = await runs()
  const sent = await commandsSent(server, () =>
    pair.producer.call('pump', queueOf(pair, kind), inFlight, 150),
  )
  return sent / ((await runs()) - before)
}

/** Microseconds of CPU that the server used. */
async function redisCpu(server: RedisServer): Promise<number> {
  const info = String(await server.call('INFO', 'cpu'))
  const used = info.matchAll(/^used_cpu_(?:sys|user):([\d.]+)/gm)
  return sum(Array.from(used, ([, seconds]) => Number(seconds) * 1e6))
}
