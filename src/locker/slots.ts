/**
 * The right of one work to run. A work that waits for another work lends it meanwhile: otherwise, with few slots, works
 * that wait would keep those from running that they wait for.
 */
export class Slot {
  readonly #slots: SlotCount
  #state: 'held' | 'lent' | 'given' = 'held'

  constructor(slots: SlotCount) {
    this.#slots = slots
  }

  lend(): void {
    if (this.#state !== 'held') return
    this.#state = 'lent'
    this.#slots.less()
  }

  /** What it waited for has come: it runs on, even if that is one too many for a while. */
  takeBack(): void {
    if (this.#state !== 'lent') return
    this.#state = 'held'
    this.#slots.more()
  }

  /** The work has ended. */
  give(): void {
    const held = this.#state === 'held'
    this.#state = 'given'
    if (held) this.#slots.less()
  }
}

interface SlotCount {
  more(): void
  less(): void
}

type Start = (slot: Slot) => void

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

  /** Calls `start` as soon as there is a slot: now, or later. */
  take(start: Start): void {
    this.#queue.add(start)
    this.#admit()
  }

  #admit(): void {
    for (const start of this.#queue) {
      if (this.#taken >= this.#limit) break
      this.#queue.delete(start)
      this.#taken++
      this.#ready.add(start)
    }
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
    start(new Slot(this))
  }

  /** A slot is taken back. */
  more(): void {
    this.#taken++
  }

  /** A slot is free. */
  less(): void {
    this.#taken--
    this.#admit()
  }
}
