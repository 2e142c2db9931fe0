import { OverloadedError, RemoteError, TimeoutError, UnavailableError } from '../../errors.ts'
import type { Clock } from '../../kernel/time.ts'
import type { ResultEntry } from '../../locker/internal.ts'
import type { ForwardReason } from '../policy/request.ts'
import { isOriginError, mayStaleIfError, reusability, type StoragePlan } from '../policy/response.ts'
import type { HttpRequest, HttpResponse } from './message.ts'
import type { OriginFetch } from './origin-fetch.ts'
import { discard } from './recording.ts'
import type { ResponseBuilder } from './response-builder.ts'
import type { CacheLookup, EntryRef, ResponseStorage } from './storage.ts'
import type { CacheEntry, StoredResponse } from './stored-response.ts'

/** A response out of the store, and whether the stored one must be refreshed now. */
export interface SelectedResponse {
  response: HttpResponse
  refresh: boolean
}

/**
 * Selects the response to a request: from what is stored, from the result of another request's run, or from the outcome of
 * its own fetch. A stale response may take the place of an error (stale-if-error, RFC 5861 §4).
 */
export class ResponseSelector {
  readonly #builder: ResponseBuilder
  readonly #clock: Clock
  readonly #shareAuthorized: boolean

  constructor(builder: ResponseBuilder, { clock, options }: ResponseStorage) {
    this.#builder = builder
    this.#clock = clock
    this.#shareAuthorized = options.shareAuthorized
  }

  /** The stored response, if it is fresh enough for this request or may be served stale. */
  fromStored(lookup: CacheLookup, found: ResultEntry<CacheEntry>): SelectedResponse | undefined {
    const { value } = found
    if (value.kind !== 'response') return undefined
    const authorized = lookup.request.headers['authorization'] !== undefined
    if (authorized && !this.#shareAuthorized && !value.forAuthorized) return undefined
    const age = this.#ageOf(found, value)
    const reusable = reusability(value.plan, age, lookup.directives)
    if (reusable === 'no' && !(found.unverified && this.#allowsUnverified(lookup, value, age)))
      return undefined
    const refresh = reusable === 'stale-while-revalidate' && !found.unverified
    if (refresh && lookup.request.canRefresh === false) return undefined
    return { response: this.#hit(lookup.request, found, value, age), refresh }
  }

  /** While Redis is unavailable: whether a stale response may be served within its stale-if-error. */
  #allowsUnverified({ directives }: CacheLookup, { plan }: StoredResponse, age: number): boolean {
    const { noCache, maxAge, minFresh } = directives
    return !noCache && age <= maxAge && minFresh === 0 && mayStaleIfError(plan, age)
  }

  #hit(
    request: HttpRequest,
    { unverified }: ResultEntry<CacheEntry>,
    stored: StoredResponse,
    age: number,
  ): HttpResponse {
    if (!unverified) return this.#builder.hit(request, stored, age)
    const status = { hit: true, ttl: stored.plan.lifetime - age, detail: 'unverified' } as const
    return this.#builder.fromStored(request, stored, age, status)
  }

  /**
   * The result of another request's run, if it answers this request too; otherwise as `fromStored`. `afterFence`: this
   * request accepts only results of later grants.
   */
  fromResult(
    lookup: CacheLookup,
    entry: EntryRef,
    found: ResultEntry<StoredResponse>,
    afterFence: number,
  ): SelectedResponse | undefined {
    const { value } = found
    if (found.unverified || !this.#answersWaiter(lookup, found, afterFence))
      return this.fromStored(lookup, found)
    const status = { forwardReason: entry.stale ? 'stale' : 'miss', collapsed: true } as const
    const response =
      (isOriginError(value.status) && this.staleIfError(lookup.request, entry)) ||
      this.#builder.fromStored(lookup.request, value, this.#ageOf(found, value), status)
    return { response, refresh: false }
  }

  /** Whether a result was made while this request waited, so that it answers it even if it is not fresh. */
  #answersWaiter(lookup: CacheLookup, found: ResultEntry<StoredResponse>, afterFence: number): boolean {
    if (found.stale) return false
    // A result of this process alone was made for its waiters.
    if (found.unshared || (afterFence > 0 && found.fence > afterFence)) return true
    const { plan } = found.value
    const resident = this.#ageOf(found, found.value) - plan.age
    return plan.collapse && !lookup.directives.noCache && resident <= this.#clock.now() - lookup.arrivedAt
  }

  /** The stale response of an entry, if it may be served in place of an error. RFC 5861 §4. */
  staleIfError(request: HttpRequest, { stale }: EntryRef): HttpResponse | undefined {
    if (!stale) return undefined
    const age = this.#ageOf(stale, stale.value)
    return mayStaleIfError(stale.value.plan, age) ? this.#hit(request, stale, stale.value, age) : undefined
  }

  /** The current age: the age at reception plus the time in the cache (resident time). RFC 9111 §4.2.3. */
  #ageOf(found: ResultEntry<CacheEntry>, { plan }: StoredResponse): number {
    // It is not stored: it was made just now.
    if (plan.keep === 0 || found.invalidated || found.unshared) return plan.age
    return plan.age + Math.max(0, plan.keep - (found.until - this.#clock.now()))
  }

  /**
   * The response of a fetch to its own client; undefined when there is none yet. `stored`: whether the store has accepted
   * the response. Throws what the origin threw.
   */
  fromFetch({ request, entry, outcome }: OriginFetch, stored: boolean): HttpResponse | undefined {
    const forwardReason: ForwardReason = entry.stale ? 'stale' : entry.index ? 'vary-miss' : 'uri-miss'
    switch (outcome.kind) {
      case 'none':
        return undefined
      case 'streaming': {
        const { response, plan, privateFields } = outcome
        return this.#builder.fromStreaming(response, { forwardReason, ...ttlOf(plan) }, privateFields)
      }
      case 'failed': {
        discard(outcome.streamed?.body)
        const stale = this.staleIfError(request, entry)
        if (stale) return stale
        throw outcome.error
      }
      case 'private': {
        const { response, reason } = outcome
        const stale = isOriginError(response.status) && this.staleIfError(request, entry)
        if (!stale) return this.#builder.privateResponse(request, response, { forwardReason, detail: reason })
        discard(response.body)
        return stale
      }
      case 'complete': {
        const { response, privateFields, originStatus } = outcome
        const stale = isOriginError(response.status) && this.staleIfError(request, entry)
        if (stale) return stale
        const ttl = ttlOf(response.plan)
        const storedStatus = ttl && (stored ? { stored, ...ttl } : { detail: 'not-stored' as const })
        const validated = originStatus !== response.status && { originStatus }
        return this.#builder.fromFetched(
          request,
          response,
          { forwardReason, ...validated, ...storedStatus },
          privateFields,
        )
      }
    }
  }

  /** The response when a run has failed: a stale one if that may be served, or 503 or 504. Undefined for other errors. */
  fallback(request: HttpRequest, entry: EntryRef, error: unknown): HttpResponse | undefined {
    const unavailable = error instanceof UnavailableError
    const timedOut = error instanceof TimeoutError
    const stale =
      (unavailable || timedOut || error instanceof RemoteError) && this.staleIfError(request, entry)
    if (stale) return stale
    if (unavailable || error instanceof OverloadedError)
      return this.#builder.synthetic(503, 'Too busy', ['retry-after', '1'])
    return timedOut ? this.#builder.synthetic(504, 'No answer in time') : undefined
  }
}

/** The remaining freshness lifetime of a response that is to be stored. */
function ttlOf({ keep, lifetime, age }: StoragePlan): { ttl: number } | undefined {
  return keep > 0 ? { ttl: lifetime - age } : undefined
}
