import { LeaseLostError } from '../../errors.ts'

/** Ids of lost messages that are remembered at most. */
const MAX_LOST = 10_000

/**
 * Ids of messages that were received by a queue object, and lost before they were acknowledged: acknowledging them fails, also
 * after their consumption has ended.
 */
export class LostMessages {
  readonly #queue: string
  readonly #ids = new Set<number>()

  constructor(queue: string) {
    this.#queue = queue
  }

  has(id: number): boolean {
    return this.#ids.has(id)
  }

  /** Forgets the oldest if there are too many. */
  add(id: number): void {
    this.#ids.add(id)
    const [oldest] = this.#ids
    if (oldest !== undefined && this.#ids.size > MAX_LOST) this.#ids.delete(oldest)
  }

  /** It was delivered again. */
  delete(id: number): void {
    this.#ids.delete(id)
  }

  error(): LeaseLostError {
    return new LeaseLostError('The message was lost before it was acknowledged', { key: this.#queue })
  }
}
