import type { Clock } from './clock.ts'

/** Something that must end in time. */
export interface Pending {
  /** Of the clock, ms. Set by {@link Deadlines.add}. */
  deadline: number
  /** Called when it has not ended in time. */
  expire(): void
}

/** What was given the same time: so what was added first ends first, and one timer watches over all. */
class Lane {
  readonly #clock: Clock
  readonly #within: number
  readonly #pending = new Set<Pending>()
  #armed = false

  constructor(clock: Clock, within: number) {
    this.#clock = clock
    this.#within = within
  }

  add(pending: Pending): void {
    pending.deadline = this.#clock.now() + this.#within
    this.#pending.add(pending)
    if (!this.#armed) this.#arm(this.#within)
  }

  delete(pending: Pending): void {
    this.#pending.delete(pending)
  }

  #arm(ms: number): void {
    this.#armed = true
    this.#clock.after(ms, () => this.#check(), true)
  }

  #check(): void {
    const now = this.#clock.now()
    for (const pending of this.#pending) {
      if (pending.deadline > now) return this.#arm(pending.deadline - now)
      this.#pending.delete(pending)
      pending.expire()
    }
    this.#armed = false
  }
}

/** Watches over things that mostly end in time: a timer for each would cost more than they do. */
export class Deadlines {
  readonly #clock: Clock
  readonly #lanes = new Map<number, Lane>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** Calls `pending.expire` after `within` ms, unless it is deleted before. */
  add(pending: Pending, within: number): void {
    let lane = this.#lanes.get(within)
    if (!lane) {
      lane = new Lane(this.#clock, within)
      this.#lanes.set(within, lane)
    }
    lane.add(pending)
  }

  /** It has ended in time. */
  delete(pending: Pending, within: number): void {
    this.#lanes.get(within)?.delete(pending)
  }
}
