import { type Clock, systemClock, type Timer } from '../../kernel/clock.ts'
import { DEFAULT_MAX_BYTES, MemoryBudget } from '../../kernel/memory-budget.ts'
import { microtask } from '../../kernel/timers.ts'
import { MAX_PARKED } from '../../locker/store.ts'
import type { QueueStore } from '../store.ts'
import { BookHub, type JobLog } from './book-hub.ts'
import { BookUser } from './book-user.ts'
import type { JobRecord } from './job-record.ts'

/** Options of a {@link MemoryQueueStore}. */
export interface MemoryQueueStoreOptions {
  /** Another clock than the process's own: for tests. */
  clock?: Clock | undefined
  /** Carries out what is told: for tests that delay or lose messages. By default after the present tick. */
  deliver?: ((message: () => void) => void) | undefined
  /** How many may wait for one job. */
  maxParked?: number | undefined
  /**
   * Most bytes of all jobs and logs; beyond it the oldest that are over are forgotten, with their results. Those that
   * wait or run never are: when they alone are too many, more are refused with OverloadedError.
   * @default 268_435_456
   */
  maxBytes?: number | undefined
}

/** What is forgotten is looked for this often, ms. */
const SWEEP_EVERY = 1000

/** How long a delivery may take to be accepted, ms. */
const ACCEPT = 2000

/**
 * Queues in this process's memory: what a queue without Redis uses, and what tests use to let several queues behave like
 * several processes. The same state machine as on Redis.
 */
export class MemoryQueueStore {
  readonly clock: Clock
  readonly #maxParked: number
  readonly #deliver: (message: () => void) => void
  readonly #budget: MemoryBudget<JobRecord | JobLog>
  readonly #hubs = new Map<string, BookHub>()
  /** Runs only while there is something that may be forgotten. */
  #sweeper: Timer | undefined

  constructor(options: MemoryQueueStoreOptions = {}) {
    this.clock = options.clock ?? systemClock
    this.#maxParked = options.maxParked ?? MAX_PARKED
    this.#deliver = options.deliver ?? microtask
    this.#budget = new MemoryBudget(options.maxBytes ?? DEFAULT_MAX_BYTES)
  }

  /** A new user of a queue, with an inbox of its own. */
  connect(queue: string): QueueStore {
    return new BookUser(this.#hub(queue))
  }

  #hub(queue: string): BookHub {
    const found = this.#hubs.get(queue)
    if (found) return found
    const hub = new BookHub({
      clock: this.clock,
      carry: (message) => this.#deliver(message),
      maxParked: this.#maxParked,
      accept: ACCEPT,
      changed: () => this.#sweepLater(),
      budget: this.#budget,
    })
    this.#hubs.set(queue, hub)
    return hub
  }

  #sweepLater(): void {
    this.#sweeper ??= this.clock.after(SWEEP_EVERY, () => this.#sweep(), true)
  }

  #sweep(): void {
    this.#sweeper = undefined
    for (const [queue, hub] of this.#hubs) {
      hub.sweep()
      if (hub.empty && hub.users.size === 0) this.#hubs.delete(queue)
    }
    if ([...this.#hubs.values()].some((hub) => !hub.empty)) this.#sweepLater()
  }
}
