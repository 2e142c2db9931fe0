import type { Clock, Timer } from '../event-loop.ts'

/** A lease is renewed when this part of it has passed. */
export const RENEW_AFTER: number = 1 / 3

/** A renewal that got no reply is repeated after so long, ms. */
export function renewalRetryPause(lease: number): number {
  return Math.min(lease / 10, 500)
}

/** How long before its end a lease counts as lost, ms: the time that the abort signal needs to take effect. */
export function lossMargin(lease: number): number {
  return Math.min(200, lease / 10)
}

/** What the holder of a lease is told. Each event is raised once, and again only after the moment was set anew. */
export interface LeaseTimerListener {
  /** The lease must be renewed now. Answer with `extend`, `retryRenewal` or `stop`. */
  onRenewalDue(): void
  /** The lease was not extended in time: another process may hold it. */
  onLeaseExpired(): void
  /** The lease has been held for `maxHold`. */
  onMaxHold(): void
}

const NEVER = Number.POSITIVE_INFINITY

/**
 * Watches the three moments of a lease with one timer:
 *
 * ```
 * sent                                              expires
 * |-------------- lease ------------------------------|
 * |------ 1/3 ------| renewal is due      |- margin --|
 *                                         | counts as lost
 * held since |------------- maxHold ---------------| held for too long
 * ```
 *
 * The lease counts from the moment at which the request that extended it was sent, since the server granted it later than
 * that. All times are of the clock, ms.
 */
export class LeaseTimer {
  readonly #clock: Clock
  readonly #listener: LeaseTimerListener
  #renewAt = NEVER
  #expiresAt = NEVER
  #maxHoldAt: number
  #timer: Timer | undefined
  /** When the timer fires. */
  #timerAt = NEVER

  /** `maxHold`: ms from now. */
  constructor(clock: Clock, maxHold: number, listener: LeaseTimerListener) {
    this.#clock = clock
    this.#listener = listener
    this.#maxHoldAt = clock.now() + maxHold
  }

  /** The lease, of `lease` ms, was extended by a request that was sent at `sentAt`. */
  extend(sentAt: number, lease: number): void {
    this.#expiresAt = sentAt + lease - lossMargin(lease)
    this.#renewAt = this.#clock.now() + lease * RENEW_AFTER
    this.arm()
  }

  /** Raises `onRenewalDue` now. */
  renewNow(): void {
    this.#renewAt = this.#clock.now()
    this.arm()
  }

  /** The renewal of a lease of `lease` ms got no reply: raises `onRenewalDue` again after a pause. */
  retryRenewal(lease: number): void {
    this.#renewAt = this.#clock.now() + renewalRetryPause(lease)
    this.arm()
  }

  /** The lease is not looked after any more. Only `onMaxHold` may still be raised. */
  abandon(): void {
    this.#renewAt = NEVER
    this.#expiresAt = NEVER
    this.arm()
  }

  /** Raises no event any more. */
  stop(): void {
    this.#maxHoldAt = NEVER
    this.abandon()
  }

  /** Sets the timer to the next moment. */
  arm(): void {
    const next = Math.min(this.#renewAt, this.#expiresAt, this.#maxHoldAt)
    if (next === this.#timerAt) return
    this.#timer?.cancel()
    this.#timerAt = next
    this.#timer =
      next === NEVER ? undefined : this.#clock.after(next - this.#clock.now(), this.#onTimer, true)
  }

  readonly #onTimer = (): void => {
    this.#timerAt = NEVER
    this.check()
    this.arm()
  }

  /** Raises the events that are due. */
  check(): void {
    const now = this.#clock.now()
    if (now >= this.#expiresAt) {
      this.#expiresAt = NEVER
      this.#listener.onLeaseExpired()
    } else if (now >= this.#renewAt) {
      this.#renewAt = NEVER
      this.#listener.onRenewalDue()
    }
    if (now >= this.#maxHoldAt) {
      this.#maxHoldAt = NEVER
      this.#listener.onMaxHold()
    }
  }
}
