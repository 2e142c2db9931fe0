import type { Clock } from '../../kernel/time.ts'
import { noTotals, type QueueTotals } from './totals.ts'

/** How long a queue is in the register after its last use, ms. */
export const REGISTER_TTL: number = 30 * 24 * 60 * 60_000

/** Queues in the register. Beyond it those that were used last stay. */
export const MAX_QUEUES = 100_000

/** The queues of a register, or the first of them. */
export interface ListedQueues {
  /** The last used first. */
  readonly names: string[]
  /** Of all queues. */
  readonly count: number
}

/** The register of the queues of a memory store. On Redis: redis/queue-register.ts. */
export class MemoryRegister {
  readonly #clock: Clock
  /** By name, in the order of the last use. The totals outlive the broker of the queue. */
  readonly #entries = new Map<string, { usedAt: number; totals: QueueTotals }>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** The totals of a queue that is in the register, else new ones. */
  totalsOf(queue: string): QueueTotals {
    return this.#entries.get(queue)?.totals ?? noTotals()
  }

  /** Adds a queue, or notes its use. */
  add(queue: string, totals: QueueTotals): void {
    this.#entries.delete(queue)
    this.#entries.set(queue, { usedAt: this.#clock.now(), totals })
    this.#prune()
  }

  remove(queue: string): void {
    this.#entries.delete(queue)
  }

  /** The names, the last used first. */
  names(): string[] {
    this.#prune()
    return [...this.#entries.keys()].reverse()
  }

  #prune(): void {
    const oldest = this.#clock.now() - REGISTER_TTL
    for (const [queue, { usedAt }] of this.#entries) {
      if (usedAt > oldest && this.#entries.size <= MAX_QUEUES) return
      this.#entries.delete(queue)
    }
  }
}
