import type { Random } from '../locker/random.ts'

/** What may go wrong in a run, and how often. All of it follows from the seed. */
export interface QueuePlan {
  /** Nothing goes wrong but what the callers do. */
  calm: boolean
  processes: number
  commands: string[]
  /** Payloads that are handed in: of few, so that many are identical. */
  payloads: number
  lease: number
  maxStalls: number
  maxHold: number
  /** Attempts that a submission asks for, at most. */
  attempts: number
  /** Of results and failures, ms. */
  ttls: number[]
  /** How long failures are kept to be listed, ms; 0: not at all. */
  retained: number
  /** How long the faults last, ms. */
  duration: number
  calls: number
  /** How long the store may be silent, ms. */
  unavailableAfter: number
  /** How long a request or a message is under way as a rule, ms … */
  latency: number
  /** … how often longer, and how long then at most. */
  spikes: number
  spike: number
  /** Whether what was sent first on a connection arrives first. */
  ordered: boolean
  /** Part of the messages that are lost alone. */
  lost: number
  /** Messages do not come twice: Redis has no way to do that. */
  repeated: 0
  /** Part of the requests that are refused. */
  refused: number
  /** Part of the outcomes that are too large for a message. */
  large: number
  /** How often each happens in the run. */
  faults: Record<QueueFault, number>
  /** Part of the callers and handlers that are of a kind. */
  mix: {
    enqueue: number
    rerun: number
    abort: number
    delay: number
    end: number
    pause: number
    burst: number
    kills: number
    poison: number
    fails: number
  }
}

export type QueueFault =
  | 'pause'
  | 'kill'
  | 'cut'
  | 'deafen'
  | 'freeze'
  | 'close'
  /** All records are lost. */
  | 'flush'

/** Most runs have few kinds of faults, and those often: that finds more than a little of everything. */
export function queuePlanOf(random: Random): QueuePlan {
  const calm = random.chance(0.12)
  const lease = random.pick([100, 200, 500, 1000, 3000])
  const often = (most: number) => (calm || random.chance(0.55) ? 0 : random.between(0, most))
  const part = (most: number) => (calm || random.chance(0.6) ? 0 : random.between(0, most))
  return {
    calm,
    processes: 2 + random.below(4),
    commands: ['add', 'mul'].slice(0, 1 + random.below(2)),
    payloads: random.pick([1, 3, 8]),
    lease,
    maxStalls: random.pick([0, 1, 3]),
    maxHold: random.chance(0.2) ? lease * random.between(1, 4) : 3_600_000,
    attempts: random.pick([1, 1, 3]),
    ttls: random.pick([[0], [0, lease], [lease * 3], [lease * 20], [0, lease / 4, lease * 10]]),
    retained: random.pick([0, lease * 5]),
    duration: lease * random.between(3, 10),
    calls: 10 + random.below(50),
    unavailableAfter: random.pick([lease / 2, lease, lease * 3]),
    // Where nothing goes wrong, no lease is lost to the way.
    latency: Math.min(random.pick([0.2, 1, 5]), calm ? lease / 100 : 5),
    spikes: part(0.3),
    spike: lease * random.between(0.1, 1.5),
    ordered: random.chance(0.7),
    lost: part(0.5),
    repeated: 0,
    refused: part(0.2),
    large: random.chance(0.7) ? 0 : 0.5,
    faults: {
      pause: often(6),
      kill: often(4),
      cut: often(8),
      deafen: often(6),
      freeze: often(3),
      close: often(3),
      flush: random.chance(0.85) ? 0 : often(3),
    },
    mix: {
      enqueue: random.pick([0, 0.3, 0.7]),
      rerun: random.pick([0, 0.2, 0.5]),
      abort: random.pick([0, 0.2, 0.5]),
      delay: random.pick([0, 0.2, 0.5]),
      end: random.pick([0, 0.1, 0.3]),
      pause: random.pick([0, 0, 0.1]),
      burst: random.pick([0, 0.5, 0.9]),
      kills: calm ? 0 : random.pick([0, 0, 0.1]),
      poison: calm || random.chance(0.8) ? 0 : 0.2,
      fails: random.pick([0, 0.2, 0.5]),
    },
  }
}
