import type { Clock } from '../kernel/clock.ts'

/** Handlers are started in one turn of the event loop for so long, ms; the next one in the next turn. */
const TURN = 5

/** So many must have been quick in a row until the next is thought to be. */
const QUICK = 10

/**
 * Starts handlers. Those that compute without a pause are kept apart by turns of the event loop, so that what the one has
 * computed can be told, and leases be renewed, before the next begins.
 */
export class Starts {
  readonly #clock: Clock
  /** Who keeps the event loop from turning for so long, ms, may keep it for longer than an unaccepted lease. */
  readonly #blocked: number
  readonly #ready: (() => void)[] = []
  /** When the present turn began, as far as there is one. */
  #turnBegan: number | undefined
  #quick = 0

  constructor(clock: Clock, blocked: number) {
    this.#clock = clock
    this.#blocked = blocked
  }

  /** Those that wait for their turn. */
  get waiting(): number {
    return this.#ready.length
  }

  /** Whether handlers have shown that they leave the event loop alone: then a lease may be accepted while they run. */
  get quick(): boolean {
    return this.#quick >= QUICK
  }

  /** The event loop stood still for so long, ms. */
  stood(ms: number): void {
    if (ms >= this.#blocked) this.#quick = 0
  }

  /** Calls `start` in this turn of the event loop, or a later one. */
  add(start: () => void): void {
    this.#ready.push(start)
    if (this.#turnBegan === undefined) this.#beginTurn()
    this.#go()
  }

  #beginTurn(): void {
    this.#turnBegan = this.#clock.now()
    setImmediate(() => {
      this.#turnBegan = undefined
      if (this.#ready.length === 0) return
      this.#beginTurn()
      this.#go()
    })
  }

  #go(): void {
    let now = this.#clock.now()
    while (this.#ready.length > 0 && now - (this.#turnBegan ?? now) < TURN) {
      const startedAt = now
      this.#ready.shift()?.()
      now = this.#clock.now()
      this.#quick++
      this.stood(now - startedAt)
    }
  }
}
