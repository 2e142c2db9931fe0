import type { Random } from '../random.ts'
import type { CommonPlan } from '../world.ts'
import type { Mode } from './history.ts'

/** The faults and users of a run, derived from the seed. */
export interface BusPlan extends CommonPlan {
  /** A run without faults. */
  calm: boolean
  queues: string[]
  topics: string[]
  /** Of the queues, ms. */
  ttl: number
  /** Of the consumers, ms. */
  lease: number
  /** Option `unavailableAfter`, ms. */
  unavailableAfter: number
  /** 0: none. */
  maxsize: number
  /** Number of keys that messages have; 0: none. */
  keys: number
  /** Messages that a topic keeps. */
  keep: number
  retain: boolean
  /** Largest deviation of the clock of a process: part of the time. */
  drift: number
  /** Signals that anybody sends. */
  forged: number
  /** How consumers consume, by weight. */
  modes: Record<Mode, number>
  /** Redis delivers the messages of one connection in order, and loses or repeats none alone. */
  ordered: true
  lost: 0
  repeated: 0
  /** How often each call is made, by weight. */
  acts: Record<'push' | 'consume' | 'attach' | 'info' | 'close' | 'flush' | 'publish' | 'subscribe', number>
  /** Fractions of calls of each kind. */
  mix: {
    burst: number
    /** Pushes that wait for room. */
    wait: number
    /** Consumers that stop after some messages; that iterate; that stop at a message. */
    max: number
    iterate: number
    stops: number
    /** Messages that are acknowledged late; never. */
    late: number
    never: number
  }
}

/** Most runs have few kinds of faults, but many of them: that finds more than a few of every kind. */
export function busPlanOf(random: Random): BusPlan {
  const calm = random.chance(0.15)
  const lease = random.pick([200, 500, 1000, 3000])
  const often = (most: number) => (calm || random.chance(0.55) ? 0 : random.between(0, most))
  const part = (most: number) => (calm || random.chance(0.65) ? 0 : random.between(0, most))
  const weight = () => random.pick([0, 0, 1, 3])
  const modes = { default: weight(), reliable: weight(), exclusive: weight(), reader: random.pick([0, 0, 1]) }
  if (modes.default + modes.reliable + modes.exclusive === 0)
    modes[random.chance(0.5) ? 'default' : 'reliable'] = 1
  return {
    calm,
    processes: 2 + random.below(3),
    queues: ['mails', 'jobs'].slice(0, 1 + random.below(2)),
    topics: ['news'],
    ttl: Math.ceil(lease * random.pick([0.5, 1, 4, 20])),
    lease,
    duration: lease * random.between(3, 10),
    calls: 20 + random.below(120),
    unavailableAfter: Math.ceil(random.pick([lease / 2, lease, lease * 3])),
    maxsize: random.pick([0, 0, 3, 10]),
    keys: random.pick([0, 0, 1, 3]),
    keep: random.pick([0, 3, 1000]),
    retain: random.chance(0.3),
    drift: random.pick([0, 0, 0.005]),
    forged: calm ? 0 : random.pick([0, 0, 0.2]),
    modes,
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
      kill: often(4),
      cut: often(8),
      deafen: often(6),
      freeze: often(3),
      close: often(3),
      flush: random.chance(0.7) ? 0 : often(3),
    },
    acts: {
      push: random.pick([4, 10]),
      consume: random.pick([1, 4]),
      attach: random.pick([0, 1]),
      info: 0.5,
      close: random.pick([0, 0, 0, 0.3]),
      flush: random.pick([0, 0, 0, 0.3]),
      publish: random.pick([0, 4]),
      subscribe: random.pick([0, 1]),
    },
    mix: {
      burst: random.pick([0, 0.5, 0.9]),
      wait: random.pick([0, 0.5]),
      max: random.pick([0, 0.5]),
      iterate: random.pick([0, 0.3]),
      stops: random.pick([0, 0.1]),
      late: random.pick([0, 0.5, 1]),
      never: random.pick([0, 0, 0.2]),
    },
  }
}
