import type { Build } from '../library.ts'
import { crewMember, type QueueChild } from '../queues/crew.ts'
import type { QueueName } from '../queues/entrant.ts'
import type { Stage } from '../stage.ts'
import { commandsATrip, measureTrips, type TripSource, type Trips } from '../trips.ts'

/** Without deduplication; and deduplicated by payload, no two of which are the same. */
export const KINDS = ['plain', 'deduplicated'] as const
export type Kind = (typeof KINDS)[number]

/** Two processes: one that submits jobs, and one that runs them. */
export interface Pair {
  name: QueueName
  producer: QueueChild
  worker: QueueChild
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

function sourceOf(pair: Pair, kind: Kind): TripSource {
  return {
    pump: (inFlight, ms) => pair.producer.call('pump', queueOf(pair, kind), inFlight, ms),
    usage: () => pair.worker.call('usage'),
  }
}

/** Round trips for a while, so many at once. */
export function trips(pair: Pair, kind: Kind, inFlight: number, stage: Stage, ms: number): Promise<Trips> {
  return measureTrips(sourceOf(pair, kind), inFlight, stage, ms)
}

/** Commands that clients send a round trip. */
export function clientCommands(pair: Pair, kind: Kind, inFlight: number, stage: Stage): Promise<number> {
  return commandsATrip(sourceOf(pair, kind), inFlight, stage)
}
