import type { Random } from '../random.ts'
import type { CommonPlan } from '../world.ts'

/** The faults and callers of a run, derived from the seed. */
export interface QueuePlan extends CommonPlan {
  /** A run without faults. */
  calm: boolean
  commands: string[]
  /** Number of different payloads: few, so that many jobs are identical. */
  payloads: number
  lease: number
  maxStalls: number
  maxHold: number
  /** Largest `attempts` of a submission. */
  attempts: number
  /** The ttls of results and failures, ms. */
  ttls: number[]
  /** Retention of failed jobs, ms; 0: none. */
  retained: number
  /** Option `unavailableAfter` of the queues, ms. */
  unavailableAfter: number
  /** Messages are not duplicated: Redis cannot do that. */
  repeated: 0
  /** Fraction of outcomes that are too large for a message. */
  large: number
  /** Jobs are taken only: no process has a worker until the faults have stopped. */
  takersOnly: boolean
  /** Leases of taken jobs, ms. One that is longer than the run ends only with the job, or when it is given back. */
  takenLeases: number[]
  /** Fraction of callers and handlers of each kind. */
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
    /** Calls of `take`, of all calls; and those that are aborted, of these. */
    take: number
    leave: number
    /** Submissions with `conflict: 'exclusive'`, of those with a key. */
    exclusive: number
    /** Posts of several jobs, of all calls. Set by the world. */
    post: number
  }
}

/** Longer than a run, ms. */
export const LONG_LEASE = 30 * 60_000

/** Most runs have few kinds of faults, but many of them: that finds more than a few of every kind. */
export function queuePlanOf(random: Random): QueuePlan {
  const calm = random.chance(0.12)
  const lease = random.pick([100, 200, 500, 1000, 3000])
  const often = (most: number) => (calm || random.chance(0.55) ? 0 : random.between(0, most))
  const part = (most: number) => (calm || random.chance(0.6) ? 0 : random.between(0, most))
  const plan: QueuePlan = {
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
    // In a run without faults, latency must not cost a lease.
    latency: Math.min(random.pick([0.2, 1, 5]), calm ? lease / 100 : 5),
    spikes: part(0.3),
    spike: lease * random.between(0.1, 1.5),
    ordered: random.chance(0.7),
    lost: part(0.5),
    repeated: 0,
    refused: part(0.2),
    large: random.chance(0.7) ? 0 : 0.5,
    takersOnly: false,
    takenLeases: [lease],
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
      take: random.pick([0, 0, 0.3, 0.6]),
      leave: random.pick([0, 0, 0.4]),
      exclusive: random.pick([0, 0.5]),
      post: 0,
    },
  }
  plan.takersOnly = plan.mix.take > 0 && random.chance(0.6)
  if (random.chance(0.6)) plan.takenLeases.push(overtakes(plan) ? 2 * lease : LONG_LEASE)
  return plan
}

/** Whether a call may be run after a search for what it has taken, which was sent a second later. */
function overtakes({ ordered, spikes, faults }: QueuePlan): boolean {
  return !ordered || (spikes > 0 && faults.cut > 0)
}
