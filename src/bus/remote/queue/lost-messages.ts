/** Ids of lost messages that are remembered at most. */
const MAX_LOST = 10_000

/** Reliable messages of one queue object: those that it holds, and those that are delivered again. */
export class LostMessages {
  readonly #held = new Set<number>()
  readonly #lost = new Set<number>()

  /** `isHeld`: it is to be acknowledged. */
  received(id: number, isHeld: boolean): void {
    this.#lost.delete(id)
    if (isHeld) this.#held.add(id)
  }

  isLost(id: number): boolean {
    return this.#lost.has(id)
  }

  /** Those up to this id are not held any more. */
  acknowledged(id: number): void {
    for (const held of this.#held) if (held <= id) this.#held.delete(held)
  }

  /** All that are held go back. Forgets the oldest if there are too many. */
  lose(): void {
    for (const id of this.#held) this.#lost.add(id)
    this.#held.clear()
    for (const id of this.#lost) {
      if (this.#lost.size <= MAX_LOST) break
      this.#lost.delete(id)
    }
  }
}
