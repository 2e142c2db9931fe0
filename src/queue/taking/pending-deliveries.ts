import type { Clock, Timer } from '../../kernel/time.ts'
import type { Assignment } from '../store/store.ts'

/**
 * What the replies to the announcements of a worker tell of its slots and deliveries. Replies and deliveries come on two
 * connections, in any order: a delivery may arrive before or after the reply that tells of it. One that takes too long is lost.
 */
export class PendingDeliveries {
  readonly #clock: Clock
  readonly #lostAfter: number
  readonly #onLost: () => void
  /** Deliveries that replies have told of, and that have not arrived. */
  #onTheirWay = 0
  /** When they are lost, by the clock, ms. */
  #lostAt = Number.NEGATIVE_INFINITY
  /** The free slots that the store has, but for deliveries that have not arrived; undefined: not known. */
  #slots: number | undefined
  /** Deliveries that no reply had told of, and that have arrived since an announcement was sent; undefined: none is under way. */
  #early: number | undefined
  #timer: Timer | undefined

  /** `lostAfter`: ms. `onLost`: deliveries were lost. */
  constructor(clock: Clock, lostAfter: number, onLost: () => void) {
    this.#clock = clock
    this.#lostAfter = lostAfter
    this.#onLost = onLost
  }

  /** How many are on their way. */
  get count(): number {
    return this.#clock.now() < this.#lostAt ? this.#onTheirWay : 0
  }

  /** An announcement is sent. Returns the free slots that the store has left to the worker; undefined if that is not known. */
  onSent(): number | undefined {
    this.#early = 0
    return this.#slots
  }

  /** The announcement that was sent, of so many slots, was accepted. */
  onAnnounced(slots: number, { since, assigned }: Assignment): void {
    // What the store did before is not told if the slots were not known.
    const before = this.#slots === undefined ? 0 : this.count
    const early = this.#early ?? 0
    const told = since + assigned
    this.#early = undefined
    this.#onTheirWay = before + Math.max(0, told - early)
    this.#slots = Math.max(0, slots - told - Math.max(0, early - told))
    if (this.#onTheirWay === 0) return
    this.#lostAt = this.#clock.now() + this.#lostAfter
    this.#timer ??= this.#clock.after(this.#lostAfter, this.#checkLoss, true)
  }

  /** It is not known what the announcement that was sent has done. */
  onFailed(): void {
    this.#early = undefined
    this.#slots = undefined
  }

  onArrived(): void {
    if (this.count > 0) this.#onTheirWay--
    else if (this.#early !== undefined) this.#early++
    else if (this.#slots !== undefined) this.#slots = Math.max(0, this.#slots - 1)
  }

  /** The subscription was interrupted: those on their way are lost. */
  reset(): void {
    this.#slots = undefined
    this.#onTheirWay = 0
  }

  readonly #checkLoss = (): void => {
    this.#timer = undefined
    if (this.count > 0)
      this.#timer = this.#clock.after(this.#lostAt - this.#clock.now(), this.#checkLoss, true)
    else if (this.#onTheirWay > 0) this.#onLost()
  }

  stop(): void {
    this.#timer?.cancel()
  }
}
