import type { Random } from './random.ts'

/** What may go wrong in a run, and how often. All of it follows from the seed. */
export interface Plan {
  /** Nothing goes wrong but what the callers do: then handing over must take no time. */
  calm: boolean
  processes: number
  keys: string[]
  /** Leases that are asked for, ms. */
  leases: number[]
  ttls: number[]
  /** How long the faults last, ms. */
  duration: number
  calls: number
  /** How long the store may be silent, ms. */
  unavailableAfter: number
  maxHold: number
  /** How long a request or a message is under way as a rule, ms … */
  latency: number
  /** … how often longer, and how long then at most. */
  spikes: number
  spike: number
  /** Whether what was sent first on a connection arrives first. */
  ordered: boolean
  /** Whether claims go out at the end of a tick. */
  batched: boolean
  /** Part of the messages that are lost, and that come twice. */
  lost: number
  repeated: number
  /** Part of the requests that are refused. */
  refused: number
  /** How often each happens in the run. */
  faults: Record<Fault, number>
  /** Part of the works and callers that are of a kind. */
  mix: { hand: number; refresh: number; invalidate: number; nested: number; abort: number; burst: number }
  /** Whether the store forgets results before their time. */
  evicts: boolean
}

export type Fault =
  | 'pause'
  | 'kill'
  | 'cut'
  | 'deafen'
  | 'freeze'
  | 'close'
  /** All records are lost. */
  | 'flush'
  /** The clock of the server is set forward or back. */
  | 'step'

/** Most runs have few kinds of faults, and those often: that finds more than a little of everything. */
export function planOf(random: Random): Plan {
  const calm = random.chance(0.1)
  const lease = random.pick([100, 200, 500, 1000])
  const often = (most: number) => (calm || random.chance(0.55) ? 0 : random.between(0, most))
  const part = (most: number) => (calm || random.chance(0.6) ? 0 : random.between(0, most))
  return {
    calm,
    processes: 2 + random.below(4),
    keys: ['a', 'b', 'c'].slice(0, 1 + random.below(3)),
    leases: random.chance(0.7) ? [lease] : [lease, lease * 2, Math.max(lease / 2, 100)],
    ttls: random.pick([[0], [0, lease], [lease * 3], [lease * 20], [0, lease / 4, lease * 10]]),
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
      invalidate: random.pick([0, 0.2, 0.5]),
      nested: random.pick([0, 0, 0.3]),
      abort: random.pick([0, 0.2, 0.5]),
      burst: random.pick([0, 0.5, 0.9]),
    },
    evicts: random.chance(0.1),
  }
}
