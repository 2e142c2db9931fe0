import pDefer from 'p-defer'
import { AbortedError, SoloflightError, TimeoutError } from '../../../errors.ts'
import type { Clock } from '../../../kernel/time.ts'
import type { Origin, OriginRequest, OriginResponse } from '../message.ts'
import { discard } from '../storage/body.ts'

/** One call of an origin, with a timeout. */
export class OriginCall {
  readonly #clock: Clock
  readonly #abort = new AbortController()
  /** Settles the call in place of the origin: after the timeout, or when it is cancelled. */
  readonly #substitute = pDefer<OriginResponse>()
  #timedOut = false

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** For the origin: aborts when its response is not wanted any more. */
  get signal(): AbortSignal {
    return this.#abort.signal
  }

  get timedOut(): boolean {
    return this.#timedOut
  }

  /** Resolves with the origin's response, or with a 504 when it has not begun after `timeout` (ms). */
  async send(origin: Origin, request: OriginRequest, timeout: number): Promise<OriginResponse> {
    const timer =
      timeout < Number.POSITIVE_INFINITY ? this.#clock.after(timeout, () => this.#onTimeout()) : undefined
    const response = (async () => origin(request))()
    response.then(({ body }) => this.signal.aborted && discard(body)).catch(() => undefined)
    return Promise.race([response, this.#substitute.promise]).finally(() => timer?.cancel())
  }

  #onTimeout(): void {
    this.#timedOut = true
    const headers = { 'content-type': 'text/plain; charset=utf-8' }
    this.#substitute.resolve({ status: 504, headers, body: 'No answer in time\n' })
    this.#abort.abort(new TimeoutError('The origin did not answer in time'))
  }

  /** The response is not wanted any more: aborts the origin's signal and rejects the call. */
  cancel(reason: unknown): void {
    const message = 'Nobody waits for the answer any more'
    const error = reason instanceof SoloflightError ? reason : new AbortedError(message, { cause: reason })
    this.#abort.abort(error)
    this.#substitute.reject(error)
    // No caller may be listening yet.
    this.#substitute.promise.catch(() => undefined)
  }
}
