import pDefer from 'p-defer'
import type { Place } from '../lookup.ts'
import type { HttpRequest } from '../message.ts'
import type { Decision } from '../storage/placement.ts'
import { type Kept, Lone } from '../storage/stored-response.ts'
import { Attempt, type AttemptTerms } from './origin-fetch.ts'

/**
 * The work of a key on behalf of one request. It is not run at all while another's is. When the lease is lost meanwhile, what
 * it comes to is for its own caller alone, and the others ask anew: the origin is asked once.
 */
export class OriginWork {
  readonly request: HttpRequest
  readonly place: Place
  readonly #terms: AttemptTerms
  readonly #begun = pDefer<void>()
  attempt: Attempt | undefined
  #answered: Promise<Kept> | undefined
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

  /** Resolves when the origin has been asked to the end, if it was. */
  get answered(): Promise<unknown> {
    return Promise.resolve(this.#answered)
  }

  readonly run = async (decision: Decision): Promise<Kept> => {
    if (this.attempt) {
      decision.noStore({ bypassFor: 0 })
      return new Lone('failed')
    }
    this.attempt = new Attempt(this.request, this.place, this.#terms, this.#begun.resolve)
    if (this.#abandoned) this.attempt.abandon()
    this.#answered = this.attempt.work(decision)
    return this.#answered
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
