import type { Throttle } from '../queue/options.ts'
import { after, reportUncaught } from './timers.ts'
import { RETRY_MS } from './wire.ts'

/**
 * A throttle that a gateway asks, by messages, whether it may fetch.
 *
 * | state | `ask` | the throttle calls `ready` | `forget` |
 * | --- | --- | --- | --- |
 * | idle | asked | | idle |
 * | asked | asked anew | ready, and `onReady`; that of an earlier question is ignored | idle |
 * | ready | asked anew | | idle |
 */
export class RemoteThrottle {
  readonly #throttle: Throttle | undefined
  readonly #onReady: () => void
  /** The present question; undefined: idle. */
  #question: { state: 'asked' | 'ready' } | undefined

  constructor(throttle: Throttle | undefined, onReady: () => void) {
    this.#throttle = throttle
    this.#onReady = onReady
  }

  /** Whether it has said to fetch, and nothing was asked since. */
  get isReady(): boolean {
    return this.#question?.state === 'ready'
  }

  /** The gateway asks whether it may fetch. */
  ask(): void {
    const question: { state: 'asked' | 'ready' } = { state: 'asked' }
    this.#question = question
    try {
      this.#throttle?.(() => {
        if (this.#question !== question || question.state === 'ready') return
        question.state = 'ready'
        this.#onReady()
      })
    } catch (error) {
      reportUncaught(error)
    }
  }

  /** The socket has ended: a later one asks anew. */
  forget(): void {
    this.#question = undefined
  }
}

/** Tells a gateway that it may go on, while that is wanted, until it has answered: more than once is the same as once. */
export function tellUntilAnswered(isWanted: () => boolean, tell: () => Promise<unknown>): void {
  if (isWanted()) tell().catch(() => after(RETRY_MS, () => tellUntilAnswered(isWanted, tell)))
}
