import type { History } from './history.ts'
import type { Link } from './link.ts'
import type { SimProcess } from './process.ts'
import { Random } from './random.ts'
import type { Scheduler } from './scheduler.ts'
import type { Subscription } from './subscription.ts'

/** What every plan says about the network, the processes and the faults. */
export interface CommonPlan {
  processes: number
  /** How long the faults last, ms. */
  duration: number
  calls: number
  /** Mean latency of requests and messages, ms. */
  latency: number
  /** Probability of a longer latency, and its maximum. */
  spikes: number
  spike: number
  /** Whether messages of a connection arrive in order. */
  ordered: boolean
  /** Probability that a message is lost, and that it is repeated. */
  lost: number
  repeated: number
  /** Probability that a request is refused. */
  refused: number
  /** How often each fault happens in the run. */
  faults: Record<CommonFault | 'flush', number>
  /** `burst`: the proportion of the calls that come in bursts. */
  mix: { burst: number }
}

export type CommonFault = 'pause' | 'kill' | 'cut' | 'deafen' | 'freeze' | 'close'

/** A process with what it uses. */
export interface SimActor {
  process: SimProcess
  endpoint: { link: Link; subscription: Subscription }
  closing: boolean
}

/** The server, as faults see it. */
export interface FaultyServer {
  /** The server answers nothing before this time. */
  readonly frozenUntil: number
  freeze(ms: number): void
}

/** All parts of a run. */
export abstract class SimWorld<Actor extends SimActor> {
  abstract readonly plan: CommonPlan
  abstract readonly history: History
  abstract readonly server: FaultyServer
  readonly random: Random
  readonly scheduler: Scheduler
  readonly actors: Actor[] = []
  /** The faults have stopped. */
  healed = false
  #published = 0

  constructor(seed: number, scheduler: Scheduler) {
    this.random = new Random(seed)
    this.scheduler = scheduler
  }

  /** Starts another process. */
  abstract spawn(): Actor

  /** A value that was not published before. */
  novelty(): number {
    return ++this.#published
  }

  /** Processes that accept calls. */
  awake(): Actor[] {
    return this.actors.filter(({ process, closing }) => process.awake && !closing)
  }
}
