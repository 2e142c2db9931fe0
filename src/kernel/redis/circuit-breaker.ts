/**
 * closed     Calls are sent. `silentSince`: the connection is lost, but no call has timed out yet: calls are queued.
 * open       A call has timed out without a reply since `since`: further calls fail immediately.
 * half-open  A probe was sent and decides. `since`: as before, or the time at which the connection was restored.
 *
 * | event          | closed         | open      | half-open |
 * | -------------- | -------------- | --------- | --------- |
 * | onDisconnected | closed, silent | open      | open      |
 * | onUnavailable  | open           | open      | open      |
 * | onConnected    | closed         | half-open | half-open |
 * | onProbe        | -              | half-open | -         |
 * | onReply        | closed         | closed    | closed    |
 */
export type BreakerState =
  | { readonly kind: 'closed'; readonly silentSince: number | undefined }
  | { readonly kind: 'open'; readonly since: number }
  | { readonly kind: 'half-open'; readonly since: number }

const CLOSED: BreakerState = { kind: 'closed', silentSince: undefined }

/**
 * The circuit breaker of one server. The timeout of a call counts from the beginning of the outage, so that later calls fail
 * immediately. Times are those of the clock, ms.
 */
export class CircuitBreaker {
  #state: BreakerState = CLOSED

  get state(): BreakerState {
    return this.#state
  }

  /** The connection is lost. */
  onDisconnected(now: number): void {
    const state = this.#state
    if (state.kind === 'half-open') this.#state = { kind: 'open', since: state.since }
    else if (state.kind === 'closed' && state.silentSince === undefined)
      this.#state = { kind: 'closed', silentSince: now }
  }

  /** A call or the probe has failed: the server has not replied since `since`. */
  onUnavailable(since: number): void {
    const state = this.#state
    if (state.kind === 'closed') this.#state = { kind: 'open', since: state.silentSince ?? since }
    else if (state.kind === 'half-open') this.#state = { kind: 'open', since: state.since }
  }

  /** The connection is restored: calls wait for the probe. */
  onConnected(now: number): void {
    this.#state = this.#state.kind === 'closed' ? CLOSED : { kind: 'half-open', since: now }
  }

  /** A probe is sent on the present connection. Calls fail until it is answered. */
  onProbe(): void {
    if (this.#state.kind === 'open') this.#state = { kind: 'half-open', since: this.#state.since }
  }

  /** The server has replied. */
  onReply(): void {
    if (this.#state !== CLOSED) this.#state = CLOSED
  }

  /** How long a call with this timeout may still wait, ms; Infinity: there is no outage. */
  remainingWait(timeout: number, now: number): number {
    const state = this.#state
    const since = state.kind === 'closed' ? state.silentSince : state.since
    return since === undefined ? Number.POSITIVE_INFINITY : Math.max(0, since + timeout - now)
  }
}
