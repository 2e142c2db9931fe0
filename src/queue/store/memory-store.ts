import { LocalCensus } from '../../kernel/census.ts'
import { DEFAULT_MAX_BYTES, MemoryBudget, sweeper } from '../../kernel/in-memory-store.ts'
import { MAX_PARKED } from '../../kernel/keys.ts'
import { type Clock, microtask, systemClock } from '../../kernel/time.ts'
import { type BrokerBudget, InMemoryBroker } from './in-memory-broker.ts'
import { InMemoryQueueClient } from './in-memory-client.ts'
import { MemoryRegister } from './register.ts'
import type { QueueStore } from './store.ts'

/** Options of a {@link MemoryQueueStore}. */
export interface MemoryQueueStoreOptions {
  /** The clock. For tests. @default the clock of the process */
  clock?: Clock | undefined
  /** Delivers a message. For tests that delay or lose messages. @default in a microtask */
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
  /** The workers and waits of the queues on this store. @internal */
  readonly census: LocalCensus = new LocalCensus()
  readonly #maxParked: number
  readonly #deliver: (message: () => void) => void
  readonly #budget: BrokerBudget
  readonly #brokers = new Map<string, InMemoryBroker>()
  readonly #register: MemoryRegister
  readonly #sweepLater: () => void

  constructor(options: MemoryQueueStoreOptions = {}) {
    this.clock = options.clock ?? systemClock
    this.#register = new MemoryRegister(this.clock)
    this.#maxParked = options.maxParked ?? MAX_PARKED
    this.#deliver = options.deliver ?? microtask
    this.#sweepLater = sweeper(this.clock, () => this.#sweep())
    this.#budget = new MemoryBudget(options.maxBytes ?? DEFAULT_MAX_BYTES)
  }

  /** Connects a new client to a queue. @internal */
  connect(queue: string): QueueStore {
    return new InMemoryQueueClient(this.#broker(queue))
  }

  /** The queues in the register, the last used first. @internal */
  queueNames(): string[] {
    return this.#register.names()
  }

  #broker(queue: string): InMemoryBroker {
    const found = this.#brokers.get(queue)
    if (found) return found
    const broker = new InMemoryBroker({
      name: queue,
      clock: this.clock,
      deliver: (message) => this.#deliver(message),
      maxParked: this.#maxParked,
      acceptWithin: ACCEPT_WITHIN,
      onChange: this.#sweepLater,
      budget: this.#budget,
      totals: this.#register.totalsOf(queue),
      register: {
        add: (totals) => this.#register.add(queue, totals),
        remove: () => this.#register.remove(queue),
      },
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
