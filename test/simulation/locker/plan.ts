import type { Random } from '../random.ts'
import type { CommonFault, CommonPlan } from '../world.ts'

/** The faults of a run, and their frequencies. All of it follows from the seed. */
export interface Plan extends CommonPlan {
  /** No faults: then leases are handed over at once. */
  calm: boolean
  keys: string[]
  /** Leases, ms. */
  leases: number[]
  ttls: number[]
  /** `unavailableAfter`, ms. */
  unavailableAfter: number
  maxHold: number
  /** Whether claims are sent at the end of a tick. */
  batched: boolean
  faults: Record<Fault, number>
  /** Proportions of the kinds of works and callers. */
  mix: { hand: number; refresh: number; invalidate: number; nested: number; abort: number; burst: number }
  /** Whether the store evicts results. */
  evicts: boolean
  /** Proportion of the processes that have a cache. */
  cached: number
  fresh: Freshness
  /** Proportion of the callers that only wait. */
  waits: number
}

/** Options of callers and works about freshness. */
export interface Freshness {
  /** Proportion of the calls that accept stale values, and their staleWhileRevalidate, ms. */
  content: number
  tolerances: number[]
  /** Proportion of the calls with a softTimeout, and the softTimeout, ms. */
  hasty: number
  soft: number
  /** Proportion of the works that call noStore, and their bypassFor, ms. */
  unkept: number
  passes: number[]
  /** Proportion of the works that call setTtl. */
  decides: number
  /** Proportion of the calls with abortUnwanted. */
  unwanted: number
  /** The tags of each key. */
  tags: Record<string, string[]>
}

export type Fault =
  | CommonFault
  /** All records are lost. */
  | 'flush'
  /** The server's clock is set forward or back. */
  | 'step'

function freshnessOf(random: Random, lease: number): Freshness {
  const part = (most: number) => (random.chance(0.5) ? 0 : random.between(most / 3, most))
  return {
    content: random.chance(0.65) ? 0 : random.between(0.4, 1),
    tolerances: [lease / 2, lease * random.between(2, 10)],
    hasty: part(0.6),
    soft: lease * random.between(0, 1),
    unkept: part(0.6),
    passes: [lease * random.between(0, 2), lease * random.between(2, 10)],
    decides: part(0.4),
    unwanted: part(1),
    tags: random.chance(0.5) ? {} : { a: ['t'], b: ['t', 'u'], c: ['u'] },
  }
}

/** Most runs have few kinds of faults, each often: that finds more than a little of each. */
export function planOf(random: Random): Plan {
  const calm = random.chance(0.1)
  const lease = random.pick([100, 200, 500, 1000])
  const fresh = freshnessOf(random, lease)
  const ttls = [[0], [0, lease], [lease / 4], [lease * 3], [lease * 20], [0, lease / 4, lease * 10]]
  const often = (most: number) => (calm || random.chance(0.55) ? 0 : random.between(0, most))
  const part = (most: number) => (calm || random.chance(0.6) ? 0 : random.between(0, most))
  return {
    calm,
    processes: 2 + random.below(4),
    keys: ['a', 'b', 'c'].slice(0, 1 + random.below(3)),
    leases: random.chance(0.7) ? [lease] : [lease, lease * 2, Math.max(lease / 2, 100)],
    // Values that never become stale.
    ttls: random.pick(fresh.content > 0 ? [[lease / 4], [0, lease]] : ttls),
    duration: lease * random.between(3, 14),
    calls: 10 + random.below(50),
    unavailableAfter: random.pick([lease / 2, lease, lease * 3]),
    maxHold: random.chance(0.2) ? lease * random.between(1, 4) : 3_600_000,
    latency: random.pick([0.2, 1, 5]),
    spikes: part(0.3),
    spike: lease * random.between(0.1, 2.5),
    ordered: random.chance(0.6),
    batched: random.chance(0.5),
    lost: part(0.6),
    repeated: part(0.4),
    refused: part(0.2),
    faults: {
      pause: often(6),
      kill: often(4),
      cut: often(10),
      deafen: often(6),
      freeze: often(3),
      close: often(3),
      flush: random.chance(0.85) ? 0 : often(3),
      step: random.chance(0.85) ? 0 : often(3),
    },
    mix: {
      hand: random.pick([0, 0.2, 0.5]),
      refresh: random.pick([0, 0.1, 0.4]),
      invalidate: random.pick([0, 0.2, 0.4, 0.6]),
      nested: random.pick([0, 0, 0.3]),
      abort: random.pick([0, 0.2, 0.5]),
      burst: random.pick([0, 0.5, 0.9]),
    },
    evicts: random.chance(0.1),
    cached: 0.5,
    fresh,
    // The last draw: the other choices of a seed stay as they are.
    waits: random.pick([0, 0, 0.2, 0.5]),
  }
}
