import pDefer from 'p-defer'
import type { EntryRef } from '../lookup.ts'
import type { HttpRequest } from '../message.ts'
import type { ResultContext } from '../storage/placement.ts'
import { type CacheEntry, PrivateResult } from '../storage/stored-response.ts'
import { OriginFetch, type OriginFetchTerms } from './origin-fetch.ts'

/**
 * The work of one request for a key of the locker. It calls the origin at most once: not at all while another request's
 * work runs, and not again when the lease was lost; the other requests then fetch by themselves.
 */
export class OriginWork {
  readonly request: HttpRequest
  readonly entry: EntryRef
  readonly #terms: OriginFetchTerms
  readonly #streaming = pDefer<void>()
  /** Set by `run`. */
  fetch: OriginFetch | undefined
  /** Set by `run`: the end of the fetch. */
  #done: Promise<CacheEntry> | undefined
  #hasNoReader = false

  constructor(request: HttpRequest, entry: EntryRef, terms: OriginFetchTerms) {
    this.request = request
    this.entry = entry
    this.#terms = terms
  }

  /** Resolves when the response has begun and the request's own client may read it while it streams. */
  get streaming(): Promise<void> {
    return this.#streaming.promise
  }

  /** Resolves at the end of the fetch; at once if there is none. */
  get done(): Promise<unknown> {
    return Promise.resolve(this.#done)
  }

  readonly run = async (context: ResultContext): Promise<CacheEntry> => {
    if (this.fetch) {
      context.noStore({ bypassFor: 0 })
      return new PrivateResult('failure')
    }
    this.fetch = new OriginFetch(this.request, this.entry, this.#terms, this.#streaming.resolve)
    if (this.#hasNoReader) this.fetch.dropReader()
    this.#done = this.fetch.run(context)
    return this.#done
  }

  /** The request does not wait any more: discards a private response. */
  dropReader(): void {
    this.#hasNoReader = true
    this.fetch?.dropReader()
  }

  /** The response has been stored, or will not be: the client may receive the end of the body. */
  deliverEnd(): void {
    this.fetch?.deliverEnd()
  }
}
