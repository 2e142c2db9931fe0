/** A work that is to be started. */
interface Start {
  run: () => void
  /** Has a slot; false while it waits for one. */
  admitted: boolean
}

/**
 * Lets so many works run at once; the others wait for their turn, first come first served.
 *
 * Of works that could start in the same turn of the event loop, one does, and the next in the next turn: what the first
 * has computed can then be published before the others have computed.
 */
export class Slots {
  readonly #limit: number
  #taken = 0
  /** Without a slot. */
  readonly #queue = new Set<Start>()
  /** With a slot, to be started one a turn. */
  readonly #ready = new Set<Start>()
  /** A work was started in this turn. */
  #busy = false

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
    const start: Start = { run, admitted: false }
    if (this.#taken < this.#limit) this.#admit(start)
    else this.#queue.add(start)
    return () => {
      if (!start.admitted) this.#admit(start)
    }
  }

  #admit(start: Start): void {
    this.#queue.delete(start)
    start.admitted = true
    this.#taken++
    this.#ready.add(start)
    if (!this.#busy) this.#startNext()
  }

  #startNext(): void {
    const [start] = this.#ready
    if (!start) return
    this.#ready.delete(start)
    this.#busy = true
    setImmediate(() => {
      this.#busy = false
      this.#startNext()
    })
    start.run()
  }

  /** Gives a slot back. */
  give(): void {
    this.#taken--
    const [next] = this.#queue
    if (next && this.#taken < this.#limit) this.#admit(next)
  }
}
