import { OverloadedError, RemoteError, TimeoutError, UnavailableError } from '../../errors.ts'
import type { Clock } from '../../kernel/time.ts'
import type { ResultEntry } from '../../locker/internal.ts'
import { asNotModified, asPartial, notModified } from '../policy/conditional.ts'
import { endToEndFields, reasonPhraseOf, toRawHeaders } from '../policy/fields.ts'
import type { ForwardReason } from '../policy/request.ts'
import {
  isOriginError,
  mayStaleIfError,
  type PrivateReason,
  reusability,
  type StoragePlan,
} from '../policy/response.ts'
import type { HttpRequest, HttpResponse, OriginResponse } from './message.ts'
import type { OriginFetch } from './origin-fetch.ts'
import { discard, toResponseBody } from './recording.ts'
import type { CacheLookup, EntryRef, ResponseStorage } from './storage.ts'
import type { CacheEntry, StoredResponse } from './stored-response.ts'

/** How the cache handled a request. Durations are ms. RFC 9211 §2. */
export interface CacheStatus {
  hit?: boolean
  /** The remaining freshness lifetime; negative for a stale response. */
  ttl?: number
  forwardReason?: ForwardReason
  /** The status of the origin's response, if the client gets another. */
  originStatus?: number
  stored?: boolean
  /** Whether the request was answered by another request's response. */
  collapsed?: boolean
  /** Words of this cache, such as the reason why a response is private. */
  detail?: 'unverified' | 'not-stored' | PrivateReason | undefined
}

/** The member that a cache of this name adds to Cache-Status. RFC 9211. */
export function cacheStatus(name: string, status: CacheStatus): string {
  const { hit, ttl, forwardReason, originStatus, stored, collapsed, detail } = status
  return [
    name,
    hit && 'hit',
    forwardReason && `fwd=${forwardReason}`,
    originStatus !== undefined && `fwd-status=${originStatus}`,
    stored && 'stored',
    collapsed && 'collapsed',
    ttl !== undefined && `ttl=${Math.ceil(ttl / 1_000)}`,
    detail && `detail=${detail}`,
  ]
    .filter(Boolean)
    .join('; ')
}

/** The lines of Cache-Status in raw headers (name, value, …). */
export function cacheStatusLines(raw: readonly string[]): string[] {
  return raw.filter((_, at) => at % 2 === 1 && raw[at - 1] === 'cache-status')
}

/** The parts that all hits of a stored response share. Hits are the hot path: these are computed once. */
interface Prepared {
  fields: string[]
  /** The response of a plain hit, and its Age. Set by `hit`, once per second of age. */
  hit: HttpResponse | undefined
  ageSeconds: number
}

/** A response out of the store, and whether the stored one must be refreshed now. */
export interface SelectedResponse {
  response: HttpResponse
  refresh: boolean
}

/**
 * Makes the response to a request: from what is stored, from the result of another request's run, from the outcome of its own
 * fetch, or from the origin's response. A stale response may take the place of an error (stale-if-error, RFC 5861 §4).
 */
export class Responses {
  /** Of the cache in Cache-Status; false: no such field. */
  readonly #name: string | false
  readonly #clock: Clock
  readonly #shareAuthorized: boolean
  readonly #prepared = new WeakMap<StoredResponse, Prepared>()

  constructor({ clock, options }: Pick<ResponseStorage, 'clock' | 'options'>) {
    this.#name = options.cacheStatus
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

  /** The stored response, `age` ms old. */
  #hit(
    request: HttpRequest,
    { unverified }: ResultEntry<CacheEntry>,
    stored: StoredResponse,
    age: number,
  ): HttpResponse {
    const ttl = stored.plan.lifetime - age
    if (unverified) return this.#reuse(request, stored, age, { hit: true, ttl, detail: 'unverified' })
    const prepared = this.#prepare(stored)
    const second = Math.round(age / 1_000)
    if (prepared.hit === undefined || prepared.ageSeconds !== second) {
      prepared.hit = this.#build(stored, [...prepared.fields, 'age', `${second}`], { hit: true, ttl })
      prepared.ageSeconds = second
    }
    return forRequest(request, stored, prepared.hit)
  }

  #reuse(request: HttpRequest, stored: StoredResponse, age: number, status: CacheStatus): HttpResponse {
    const fields = [...this.#prepare(stored).fields, 'age', `${Math.round(age / 1_000)}`]
    return forRequest(request, stored, this.#build(stored, fields, status))
  }

  #prepare(stored: StoredResponse): Prepared {
    const known = this.#prepared.get(stored)
    if (known) return known
    const { age: _, ...headers } = stored.headers
    const prepared = { fields: toRawHeaders(headers), hit: undefined, ageSeconds: 0 }
    this.#prepared.set(stored, prepared)
    return prepared
  }

  /** `fields`: name, value, …; Cache-Status is added to them. */
  #build(
    { status, statusText, body }: Omit<HttpResponse, 'headers'>,
    fields: string[],
    handled: CacheStatus,
  ): HttpResponse {
    if (this.#name !== false) fields.push('cache-status', cacheStatus(this.#name, handled))
    return { status, statusText, headers: fields, body }
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
      this.#reuse(lookup.request, value, this.#ageOf(found, value), status)
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
        const { status, statusText, headers, body } = response
        const fields = [...toRawHeaders(headers), ...toRawHeaders(privateFields)]
        const streamed = { status, statusText, body: toResponseBody(body) }
        return this.#build(streamed, fields, { forwardReason, ...ttlOf(plan) })
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
        if (!stale) return this.#private(request, response, { forwardReason, detail: reason })
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
        const fields = [...toRawHeaders(response.headers), ...toRawHeaders(privateFields)]
        const status = { forwardReason, ...validated, ...storedStatus }
        return forRequest(request, response, this.#build(response, fields, status))
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
      return this.synthetic(503, 'Too busy', ['retry-after', '1'])
    return timedOut ? this.synthetic(504, 'No answer in time') : undefined
  }

  /** The origin's response to a forwarded request. Its body has not been read. */
  forwarded(request: HttpRequest, response: OriginResponse, handled: CacheStatus): HttpResponse {
    const { status } = response
    const fields = toRawHeaders(endToEndFields(response.headers))
    const hasBody = request.method !== 'HEAD'
    if (!hasBody) discard(response.body)
    const body = hasBody ? toResponseBody(response.body) : undefined
    return this.#build({ status, statusText: reasonPhraseOf(response), body }, fields, handled)
  }

  /** The origin's private response to a request without the client's conditions: applies them. */
  #private(request: HttpRequest, response: OriginResponse, handled: CacheStatus): HttpResponse {
    const forwarded = this.forwarded(request, response, handled)
    if (response.status !== 200 || !notModified(request.headers, response.headers)) return forwarded
    discard(response.body)
    return asNotModified(forwarded)
  }

  /** A response that the cache makes itself, such as 503. */
  synthetic(status: number, message: string, headers: string[] = []): HttpResponse {
    const body = Buffer.from(`${message}\n`)
    const fields = [
      ...['content-type', 'text/plain; charset=utf-8'],
      ...['content-length', String(body.length)],
      ...['cache-control', 'no-store'],
      ...headers,
    ]
    return this.#build({ status, statusText: undefined, body }, fields, {})
  }
}

/** The remaining freshness lifetime of a response that is to be stored. */
function ttlOf({ keep, lifetime, age }: StoragePlan): { ttl: number } | undefined {
  return keep > 0 ? { ttl: lifetime - age } : undefined
}

/** Applies the request's method, conditions and range: the whole response, 304, 206 or 416, or no body for HEAD. */
function forRequest(
  { method, headers }: HttpRequest,
  { status, headers: fields, body }: StoredResponse,
  whole: HttpResponse,
): HttpResponse {
  if (status === 200) {
    if (headers['if-none-match'] !== undefined || headers['if-modified-since'] !== undefined) {
      if (notModified(headers, fields)) return asNotModified(whole)
    }
    if (headers['range'] !== undefined && method === 'GET') return asPartial(headers, fields, body, whole)
  }
  return method === 'HEAD' ? { ...whole, body: undefined } : whole
}
