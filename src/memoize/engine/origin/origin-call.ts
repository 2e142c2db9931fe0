import pDefer from 'p-defer'
import { AbortedError, SoloflightError, TimeoutError } from '../../../errors.ts'
import type { Clock } from '../../../kernel/time/clock.ts'
import type { Origin, OriginRequest, OriginResponse } from '../message.ts'
import { discard } from '../storage/body.ts'

/** Asks an origin once, and does not wait for it for ever. */
export class Asking {
  readonly #clock: Clock
  readonly #unwanted = new AbortController()
  /** What stands in for an answer that nobody waits for any more. */
  readonly #instead = pDefer<OriginResponse>()
  #late = false

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** Tells the origin that its answer is not wanted. */
  get signal(): AbortSignal {
    return this.#unwanted.signal
  }

  /** Whether it took too long. */
  get late(): boolean {
    return this.#late
  }

  /** What the origin answers; or that it did not, when it has not begun to after `timeout` (ms). */
  async ask(origin: Origin, asked: OriginRequest, timeout: number): Promise<OriginResponse> {
    const timer =
      timeout < Number.POSITIVE_INFINITY ? this.#clock.after(timeout, () => this.#tooLate()) : undefined
    const answer = (async () => origin(asked))()
    answer.then(({ body }) => this.signal.aborted && discard(body)).catch(() => undefined)
    return Promise.race([answer, this.#instead.promise]).finally(() => timer?.cancel())
  }

  #tooLate(): void {
    this.#late = true
    const headers = { 'content-type': 'text/plain; charset=utf-8' }
    this.#instead.resolve({ status: 504, headers, body: 'No answer in time\n' })
    this.#unwanted.abort(new TimeoutError('The origin did not answer in time'))
  }

  /** Nobody wants it any more. */
  giveUp(reason: unknown): void {
    const why = 'Nobody waits for the answer any more'
    const error = reason instanceof SoloflightError ? reason : new AbortedError(why, { cause: reason })
    this.#unwanted.abort(error)
    this.#instead.reject(error)
    // Whoever asks hears of it, if anybody does yet.
    this.#instead.promise.catch(() => undefined)
  }
}
