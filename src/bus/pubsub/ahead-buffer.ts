/** Messages that were received while others before them were missing. */
export interface Batch {
  readonly life: string
  /** Number of the first message. */
  readonly first: number
  readonly messages: readonly Buffer[]
}

interface Held extends Batch {
  /** How many times the subscription had asked what was missed when it was received. */
  readonly asked: number
}

/** Messages that are held at most, and their bytes: anybody who reaches the channel can send some. */
const MAX_MESSAGES = 10_000
const MAX_BYTES = 16 * 1024 * 1024

/** Number of the last message. */
export function lastOf({ first, messages }: Pick<Batch, 'first' | 'messages'>): number {
  return first + messages.length - 1
}

/** Holds messages that cannot be delivered yet. */
export class AheadBuffer {
  #held: Held[] = []
  #messages = 0
  #bytes = 0
  #overflowed = false

  /** Drops the batch if there is no room. */
  add(batch: Batch, asked: number): void {
    const bytes = batch.messages.reduce((sum, { length }) => sum + length, 0)
    if (this.#messages + batch.messages.length > MAX_MESSAGES || this.#bytes + bytes > MAX_BYTES) {
      this.#overflowed = true
      return
    }
    this.#held.push({ ...batch, asked })
    this.#messages += batch.messages.length
    this.#bytes += bytes
  }

  /**
   * Empties the buffer, when the reply to a question has told that `last` is the last message of `life`. `known`: the batches
   * that the reply covers, in order. `newer`: those that may have been published after it. A batch that had been received
   * before the question was asked, and that the reply does not cover, was forged. `overflowed`: some were dropped.
   */
  take(life: string, last: number, asked: number): { known: Batch[]; newer: Batch[]; overflowed: boolean } {
    const isKnown = (batch: Held) => batch.life === life && lastOf(batch) <= last
    const known = this.#held.filter(isKnown).sort((a, b) => a.first - b.first)
    const newer = this.#held.filter((batch) => !isKnown(batch) && batch.asked >= asked)
    const overflowed = this.#overflowed
    this.clear()
    return { known, newer, overflowed }
  }

  clear(): void {
    this.#held = []
    this.#messages = 0
    this.#bytes = 0
    this.#overflowed = false
  }
}
