/**
 * closed     calls are sent. `silentSince`: there is no connection, and nobody has been refused yet: calls wait
 * open       a call was refused because there was no answer in its time: others are refused at once
 * half-open  one probe is on its way and decides; `since` as before, or from when the connection was back
 *
 * | event                     | closed             | open      | half-open |
 * | interrupted: no connection| closed, silent     | open      | open      |
 * | refused: nobody answers   | open               | open      | open      |
 * | connected                 | closed             | half-open | half-open |
 * | probing                   | -                  | half-open | -         |
 * | answered                  | closed             | closed    | closed    |
 */
export type BreakerState =
  | { readonly kind: 'closed'; readonly silentSince: number | undefined }
  | { readonly kind: 'open'; readonly since: number }
  | { readonly kind: 'half-open'; readonly since: number }

const CLOSED: BreakerState = { kind: 'closed', silentSince: undefined }

/**
 * The circuit breaker of one server: an outage is waited for once. A call may wait as long as it was given, counted from
 * the beginning of the outage: whoever comes later is refused at once. Times are those of the clock, ms.
 */
export class CircuitBreaker {
  #state: BreakerState = CLOSED

  get state(): BreakerState {
    return this.#state
  }

  /** There is no connection. */
  onDisconnected(now: number): void {
    const state = this.#state
    if (state.kind === 'half-open') this.#state = { kind: 'open', since: state.since }
    else if (state.kind === 'closed' && state.silentSince === undefined)
      this.#state = { kind: 'closed', silentSince: now }
  }

  /** A call was refused, or the probe was: there has been no answer since then. */
  onUnavailable(since: number): void {
    const state = this.#state
    if (state.kind === 'closed') this.#state = { kind: 'open', since: state.silentSince ?? since }
    else if (state.kind === 'half-open') this.#state = { kind: 'open', since: state.since }
  }

  /** The connection is back: calls wait for the probe. */
  onConnected(now: number): void {
    this.#state = this.#state.kind === 'closed' ? CLOSED : { kind: 'half-open', since: now }
  }

  /** A probe goes out although nothing tells that the server is back: calls are refused meanwhile. */
  onProbe(): void {
    if (this.#state.kind === 'open') this.#state = { kind: 'half-open', since: this.#state.since }
  }

  /** The server has answered. */
  onReply(): void {
    if (this.#state !== CLOSED) this.#state = CLOSED
  }

  /** How long a call that is given `patience` may still wait, ms; Infinity: nothing is wrong. */
  remainingWait(patience: number, now: number): number {
    const state = this.#state
    const since = state.kind === 'closed' ? state.silentSince : state.since
    return since === undefined ? Number.POSITIVE_INFINITY : Math.max(0, since + patience - now)
  }
}
