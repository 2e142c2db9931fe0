import { DEFAULT_MAX_BYTES, MemoryBudget } from '../../kernel/collections/memory-budget.ts'
import { sweeper } from '../../kernel/collections/sweeper.ts'
import { type Clock, systemClock } from '../../kernel/time/clock.ts'
import { microtask } from '../../kernel/time/timers.ts'
import { MAX_PARKED } from '../../locker/store/store.ts'
import { BookHub, type JobLog } from './in-memory-broker.ts'
import { BookUser } from './in-memory-client.ts'
import type { JobRecord } from './model/job-record.ts'
import type { QueueStore } from './store.ts'

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
  readonly #sweepLater: () => void

  constructor(options: MemoryQueueStoreOptions = {}) {
    this.clock = options.clock ?? systemClock
    this.#maxParked = options.maxParked ?? MAX_PARKED
    this.#deliver = options.deliver ?? microtask
    this.#sweepLater = sweeper(this.clock, () => this.#sweep())
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
      changed: this.#sweepLater,
      budget: this.#budget,
    })
    this.#hubs.set(queue, hub)
    return hub
  }

  #sweep(): boolean {
    for (const [queue, hub] of this.#hubs) {
      hub.sweep()
      if (hub.empty && hub.users.size === 0) this.#hubs.delete(queue)
    }
    return [...this.#hubs.values()].some((hub) => !hub.empty)
  }
}
