import { DEFAULT_MAX_BYTES, MemoryBudget, sweeper } from '../../kernel/in-memory-store.ts'
import { MAX_PARKED } from '../../kernel/limits.ts'
import { type Clock, microtask, systemClock } from '../../kernel/time.ts'
import { InMemoryBroker, type JobLog } from './in-memory-broker.ts'
import { InMemoryQueueClient } from './in-memory-client.ts'
import type { JobRecord } from './model/job-record.ts'
import type { QueueStore } from './store.ts'

/** Options of a {@link MemoryQueueStore}. */
export interface MemoryQueueStoreOptions {
  /** The clock. For tests. @default the clock of the process */
  clock?: Clock | undefined
  /** Delivers a message. For tests that delay or lose messages. @default after the present tick */
  deliver?: ((message: () => void) => void) | undefined
  /** How many waiters one job may have. */
  maxParked?: number | undefined
  /**
   * Most bytes of all jobs and logs. Beyond it the oldest finished jobs are forgotten, with their results. Jobs that have
   * not finished are never forgotten: when they alone take so much, submissions are rejected with OverloadedError.
   * @default 268_435_456
   */
  maxBytes?: number | undefined
}

/** The lease of an attempt until its worker accepts it, ms. */
const ACCEPT_WITHIN = 2000

/**
 * Queues in the memory of this process, with the same transitions as on Redis. Used by a queue without Redis, and by tests
 * in which several queues behave like several processes.
 */
export class MemoryQueueStore {
  readonly clock: Clock
  readonly #maxParked: number
  readonly #deliver: (message: () => void) => void
  readonly #budget: MemoryBudget<JobRecord | JobLog>
  readonly #brokers = new Map<string, InMemoryBroker>()
  readonly #sweepLater: () => void

  constructor(options: MemoryQueueStoreOptions = {}) {
    this.clock = options.clock ?? systemClock
    this.#maxParked = options.maxParked ?? MAX_PARKED
    this.#deliver = options.deliver ?? microtask
    this.#sweepLater = sweeper(this.clock, () => this.#sweep())
    this.#budget = new MemoryBudget(options.maxBytes ?? DEFAULT_MAX_BYTES)
  }

  /** Connects a new client to a queue. @internal */
  connect(queue: string): QueueStore {
    return new InMemoryQueueClient(this.#broker(queue))
  }

  #broker(queue: string): InMemoryBroker {
    const found = this.#brokers.get(queue)
    if (found) return found
    const broker = new InMemoryBroker({
      clock: this.clock,
      deliver: (message) => this.#deliver(message),
      maxParked: this.#maxParked,
      acceptWithin: ACCEPT_WITHIN,
      onChange: this.#sweepLater,
      budget: this.#budget,
    })
    this.#brokers.set(queue, broker)
    return broker
  }

  #sweep(): boolean {
    for (const [queue, broker] of this.#brokers) {
      broker.sweep()
      if (broker.isEmpty && broker.hub.clients.length === 0) this.#brokers.delete(queue)
    }
    return [...this.#brokers.values()].some((broker) => !broker.isEmpty)
  }
}
