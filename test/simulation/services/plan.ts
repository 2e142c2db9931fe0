import type { Random } from '../random.ts'
import type { CommonPlan } from '../world.ts'

/** The faults and callers of a run, derived from the seed. */
export interface ServicesPlan extends CommonPlan {
  /** A run without faults. */
  calm: boolean
  services: string[]
  lease: number
  /** Option `unavailableAfter`, ms. */
  unavailableAfter: number
  /** Redis delivers the messages of one connection in order, and loses or repeats none alone. */
  ordered: true
  lost: 0
  repeated: 0
  /** Fraction of callers and handlers of each kind. */
  mix: {
    burst: number
    pemit: number
    stream: number
    broadcast: number
    notify: number
    abort: number
    /** Calls that wait for a first process. */
    wait: number
    /** Processes that unregister a service, and register it again. */
    unregister: number
    fails: number
    kills: number
  }
}

/** Most runs have few kinds of faults, but many of them: that finds more than a few of every kind. */
export function servicesPlanOf(random: Random): ServicesPlan {
  const calm = random.chance(0.1)
  // Only processes die, so that the time in which callers are told can be checked exactly.
  const deaths = !calm && random.chance(0.2)
  const lease = random.pick([200, 500, 1000, 3000])
  const often = (most: number) => (calm || deaths || random.chance(0.55) ? 0 : random.between(0, most))
  const part = (most: number) => (calm || deaths || random.chance(0.65) ? 0 : random.between(0, most))
  return {
    calm,
    processes: 2 + random.below(4),
    services: ['sums', 'mails'].slice(0, 1 + random.below(2)),
    lease,
    duration: lease * random.between(3, 10),
    calls: 10 + random.below(50),
    unavailableAfter: random.pick([lease / 2, lease, lease * 3]),
    // In a run without faults, latency must not cost a lease.
    latency: Math.min(random.pick([0.2, 1, 5]), lease / 100),
    spikes: part(0.3),
    spike: lease * random.between(0.1, 1),
    ordered: true,
    lost: 0,
    repeated: 0,
    refused: part(0.2),
    faults: {
      pause: often(6),
      kill: deaths ? random.between(1, 5) : often(4),
      cut: often(8),
      deafen: often(6),
      freeze: often(3),
      close: often(3),
      flush: random.chance(0.7) ? 0 : often(3),
    },
    mix: {
      burst: random.pick([0, 0.5, 0.9]),
      pemit: random.pick([0, 0.3, 0.6]),
      stream: random.pick([0, 0.1, 0.3]),
      broadcast: random.pick([0, 0.1, 0.2]),
      notify: random.pick([0, 0.1]),
      abort: random.pick([0, 0.2, 0.4]),
      wait: random.pick([0, 0.5]),
      unregister: random.pick([0, 0, 0.1]),
      fails: random.pick([0, 0.2, 0.5]),
      kills: calm ? 0 : random.pick([0, 0, 0.1]),
    },
  }
}
