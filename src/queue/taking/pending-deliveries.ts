import type { Clock, Timer } from '../../kernel/time.ts'
import type { Assignment } from '../store/store.ts'

/**
 * What the replies to the announcements of a worker tell of its slots and deliveries. Replies and deliveries come on two
 * connections, in any order: a delivery may arrive before or after the reply that tells of it. One that takes too long is lost.
 *
 * | event | deliveries on their way | free slots in the store |
 * | --- | --- | --- |
 * | an announcement is sent | | not known, if another one is under way |
 * | it is accepted | more by those that the reply tells of and that have not arrived. Those before are forgotten, if it was not known what the store had delivered | those announced, less those delivered since; not known, if several were under way |
 * | it fails | | not known |
 * | a delivery arrives: one on its way | one fewer | |
 * | … none on its way, an announcement under way | | the reply to it tells of it |
 * | … none on its way, none under way | | one fewer |
 * | `lostAfter` ms have passed since the last reply that told of any | none: `onLost` | |
 * | the subscription is interrupted | none | not known |
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
  /** What the store has delivered since it was last known: 'untold', if the next reply does not tell of it. */
  #former: 'told' | 'untold' = 'untold'
  /** Announcements that have got no reply. */
  #underWay = 0
  /** Whether several of them were under way at once: the next one was sent before it was known what the one before left. */
  #overlapping = false
  /** Deliveries that no reply had told of, and that have arrived while an announcement was under way. */
  #early = 0
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
    if (this.#underWay++ === 0) {
      this.#early = 0
      this.#overlapping = false
    } else {
      this.#overlapping = true
      this.#slots = undefined
    }
    return this.#slots
  }

  /** An announcement of so many slots was accepted. */
  onAnnounced(slots: number, { since, assigned }: Assignment): void {
    const before = this.#former === 'told' ? this.count : 0
    const told = since + assigned
    const untold = Math.max(0, this.#early - told)
    this.#underWay--
    this.#former = 'told'
    this.#onTheirWay = before + Math.max(0, told - this.#early)
    this.#early = untold
    this.#slots = this.#overlapping ? undefined : Math.max(0, slots - told - untold)
    if (this.#onTheirWay === 0) return
    this.#lostAt = this.#clock.now() + this.#lostAfter
    this.#timer ??= this.#clock.after(this.#lostAfter, this.#checkLoss, true)
  }

  /** It is not known what an announcement has done. */
  onFailed(): void {
    this.#underWay--
    this.#former = 'untold'
    this.#slots = undefined
  }

  onArrived(): void {
    if (this.count > 0) this.#onTheirWay--
    else if (this.#underWay > 0) this.#early++
    else if (this.#slots !== undefined) this.#slots = Math.max(0, this.#slots - 1)
  }

  /** The subscription was interrupted: those on their way are lost. */
  reset(): void {
    this.#former = 'untold'
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
