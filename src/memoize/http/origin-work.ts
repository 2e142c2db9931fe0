import pDefer from 'p-defer'
import { Attempt, type AttemptTerms } from './attempt.ts'
import type { HttpRequest } from './message.ts'
import type { Decision } from './placement.ts'
import type { Kept } from './stored.ts'
import type { Place } from './visit.ts'

/**
 * The work of a key on behalf of one request. It is not run at all while another's is, and more than once when a lease is
 * lost: each time by an attempt of its own.
 */
export class OriginWork {
  readonly request: HttpRequest
  readonly place: Place
  readonly #terms: AttemptTerms
  readonly #begun = pDefer<void>()
  /** The last. */
  attempt: Attempt | undefined
  #abandoned = false

  constructor(request: HttpRequest, place: Place, terms: AttemptTerms) {
    this.request = request
    this.place = place
    this.#terms = terms
  }

  /** Resolves when a response comes in that its own client may read as it comes. */
  get begun(): Promise<void> {
    return this.#begun.promise
  }

  readonly run = (decision: Decision): Promise<Kept> => {
    this.attempt = new Attempt(this.request, this.place, this.#terms, this.#begun.resolve)
    if (this.#abandoned) this.attempt.abandon()
    return this.attempt.work(decision)
  }

  /** Its caller waits no longer: what the origin answers for it alone is let go. */
  abandon(): void {
    this.#abandoned = true
    this.attempt?.abandon()
  }

  /** What came in is kept, or will not be: its caller may have the end of it. */
  release(): void {
    this.attempt?.release()
  }
}
