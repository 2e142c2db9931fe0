/** Lets so many works run at once; the others wait their turn, first come first served. */
export class Slots {
  readonly #limit: number
  #taken = 0
  readonly #queue = new Set<() => void>()

  constructor(limit: number) {
    this.#limit = limit
  }

  get taken(): number {
    return this.#taken
  }

  get waiting(): number {
    return this.#queue.size
  }

  /**
   * Calls `run` as soon as there is a slot: now, or later. Returns what makes it run at once, slot or not: for a work
   * that another work waits for, which would otherwise keep its own slot for ever.
   */
  take(run: () => void): () => void {
    const start = () => {
      if (!this.#queue.delete(start) && started) return
      started = true
      this.#taken++
      run()
    }
    let started = false
    if (this.#taken < this.#limit) start()
    else this.#queue.add(start)
    return start
  }

  /** Gives a slot back. */
  give(): void {
    this.#taken--
    const [next] = this.#queue
    if (next && this.#taken < this.#limit) next()
  }
}
