import { outsideWork } from '../../kernel/time.ts'
import type { Locker } from '../../locker/index.ts'
import { namespaceFor, type ResultEntry } from '../../locker/internal.ts'
import { type ForwardReason, primaryKeyOf, requestDirectives, routeOf, tagsOf } from '../policy/request.ts'
import { isOriginError } from '../policy/response.ts'
import { Invalidations } from './invalidation.ts'
import type { HttpRequest, HttpResponse, Origin } from './message.ts'
import { type HttpCacheOptions, resolveHttpOptions } from './options.ts'
import { fetchOrigin } from './origin-call.ts'
import { OriginFetch } from './origin-fetch.ts'
import { PrivateFetches } from './private-fetches.ts'
import { Responses, type SelectedResponse } from './responses.ts'
import { type CacheLookup, type EntryRef, primaryEntry, ResponseStorage, variantEntry } from './storage.ts'
import { type CacheEntry, entryCodec, type StoredResponse } from './stored-response.ts'

/** The namespace letter of the records of HTTP caches. */
const NAMESPACE = 'w'

/** Results that a request looks at, each under another key or a later grant, before it is forwarded. */
const MAX_ROUNDS = 8

/** Private results of others that a request waits for before it is fetched for its own client. */
const MAX_PRIVATE_RESULTS = 2

/** Time between a failed refresh and the next, ms. */
const REFRESH_RETRY_MS = 1_000

/** What a request gets from a run: the response of its own fetch, or the result that another request has made. */
type RunOutcome =
  | { readonly kind: 'own'; readonly response: HttpResponse }
  | { readonly kind: 'result'; readonly found: ResultEntry<CacheEntry> }

/**
 * A shared HTTP cache (RFC 9111) of all processes whose lockers have the same prefix on the same Redis. Identical requests
 * in any of them call the origin once, and all receive its response.
 *
 * @example
 * const cache = new HttpCache(locker, { ttl: 60_000 })
 * const { status, headers, body } = await cache.handle({ method, url, headers }, () => makeResponse())
 */
export class HttpCache {
  /** Methods whose responses are shared. */
  readonly methods: ReadonlySet<string>
  readonly #storage: ResponseStorage
  readonly #responses: Responses
  readonly #privateFetches: PrivateFetches
  readonly #invalidations: Invalidations
  /** Keys that this process refreshes in the background. A failed refresh leaves its key in here for REFRESH_RETRY_MS. */
  readonly #refreshing = new Set<string>()

  /** @throws TypeError for invalid options. */
  constructor(locker: Locker, options: HttpCacheOptions = {}) {
    const resolved = resolveHttpOptions(options)
    this.methods = resolved.methods
    this.#storage = new ResponseStorage(namespaceFor<CacheEntry>(locker, NAMESPACE, entryCodec), resolved)
    this.#responses = new Responses(this.#storage)
    this.#privateFetches = new PrivateFetches(this.#responses, this.#storage)
    this.#invalidations = new Invalidations(this.#storage)
  }

  /**
   * Returns the response to a request; at once, not as a promise, when the in-process cache has it. Calls `origin` on a
   * miss, and possibly after the response was returned, to refresh it. The origin receives an OriginRequest, whose
   * conditional fields may differ from those of `request`.
   * @throws (rejects with) what `origin` threw for this request: other requests do not receive that error; AbortedError
   * after the request's `signal`; ClosedError; TypeError for header fields that cannot be part of a message.
   */
  handle(request: HttpRequest, origin: Origin): HttpResponse | Promise<HttpResponse> {
    try {
      return this.#handle(request, origin)
    } catch (error) {
      return Promise.reject(error)
    }
  }

  #handle(request: HttpRequest, origin: Origin): HttpResponse | Promise<HttpResponse> {
    const { options, clock } = this.#storage
    const route = routeOf(request, options)
    if (route === 'invalidate') return this.#handleUnsafe(request, origin)
    if (route !== 'cache') return this.#forward(request, origin, route)
    const primaryKey = primaryKeyOf(request, options)
    if (primaryKey === undefined) return this.#forward(request, origin, 'bypass')
    const directives = requestDirectives(request.headers)
    if (directives.noStore) return this.#forward(request, origin, 'request')
    const lookup: CacheLookup = { request, origin, directives, primaryKey, arrivedAt: clock.now() }
    // The resource has changed, and Redis does not know yet.
    if (this.#storage.isInvalidated(primaryKey))
      return this.#invalidations.send().then(() => this.#handleMiss(lookup))
    return this.#fromMemory(lookup) ?? this.#handleMiss(lookup)
  }

  /** The response out of the in-process cache. */
  #fromMemory(lookup: CacheLookup): HttpResponse | undefined {
    const { namespace } = this.#storage
    let entry = primaryEntry(lookup)
    let found = namespace.cached(entry.key)
    const variant = variantEntry(lookup, found)
    if (variant) {
      entry = variant
      found = namespace.cached(entry.key)
    }
    return found && this.#select(lookup, entry, found, this.#responses.fromStored(lookup, found))
  }

  /** The response out of the store, and the entry that the lookup led to. Claims nothing. */
  async #fromStore(lookup: CacheLookup): Promise<{ entry: EntryRef; response: HttpResponse | undefined }> {
    let entry = primaryEntry(lookup)
    let found = await this.#storage.find(entry)
    const variant = variantEntry(lookup, found)
    if (variant) {
      entry = variant
      found = await this.#storage.find(entry)
    }
    const response = found && this.#select(lookup, entry, found, this.#responses.fromStored(lookup, found))
    return { entry, response }
  }

  #select(
    lookup: CacheLookup,
    entry: EntryRef,
    found: ResultEntry<CacheEntry>,
    selected: SelectedResponse | undefined,
  ): HttpResponse | undefined {
    if (selected?.refresh)
      this.#scheduleRefresh(lookup, { ...entry, stale: found as ResultEntry<StoredResponse> })
    return selected?.response
  }

  async #handleMiss(lookup: CacheLookup): Promise<HttpResponse> {
    const { request, directives } = lookup
    const isAuthorized =
      request.headers['authorization'] !== undefined && !this.#storage.options.shareAuthorized
    if (!directives.onlyIfCached && !isAuthorized && request.headers['range'] === undefined)
      return this.#fetchShared(lookup)
    // These requests do not wait for a run of another request. The tag versions are read before the origin is called, so
    // that an invalidation during the call is noticed.
    const versions = isAuthorized ? this.#storage.readVersions(lookup) : undefined
    const { entry, response } = await this.#fromStore(lookup)
    if (response) return response
    if (directives.onlyIfCached) return this.#responses.synthetic(504, 'Not in the cache')
    return isAuthorized
      ? this.#privateFetches.run(lookup, entry, await versions)
      : this.#forward(request, lookup.origin, 'miss')
  }

  /**
   * Runs the fetch for all requests of the key, or waits for the run of another request. Each round looks at one result:
   *
   * | result           | the request is answered by                      | next round, if not answered       |
   * | ---------------- | ----------------------------------------------- | --------------------------------- |
   * | own response     | it                                              |                                   |
   * | private resource | the origin: it is forwarded                     |                                   |
   * | private failure  | a stale response                                | fetches again                     |
   * | private request  |                                                 | fetches again                     |
   * | Vary index       |                                                 | looks at the entry of its variant |
   * | response         | it, if made for waiters, fresh or servable stale | fetches again                    |
   *
   * After MAX_PRIVATE_RESULTS private results the request is fetched privately, after MAX_ROUNDS it is forwarded.
   *
   * `afterFence`: a fence is the number of a grant and grows with every grant of a key. Only results of later grants count
   * from then on: earlier ones have been looked at.
   */
  async #fetchShared(lookup: CacheLookup): Promise<HttpResponse> {
    let entry = primaryEntry(lookup)
    let afterFence = 0
    let privateResults = 0
    for (let round = 0; round < MAX_ROUNDS; round++) {
      const outcome = await this.#resultOf(lookup, entry, afterFence)
      if (outcome.kind === 'own') return outcome.response
      const { found } = outcome
      switch (found.value.kind) {
        case 'private': {
          const { scope } = found.value
          if (scope === 'resource') return this.#forward(lookup.request, lookup.origin, 'miss')
          const stale = scope === 'failure' && this.#responses.staleIfError(lookup.request, entry)
          if (stale) return stale
          if (++privateResults > MAX_PRIVATE_RESULTS)
            return this.#privateFetches.runInTurn(lookup, entry, () => this.#fromMemory(lookup))
          afterFence = Math.max(afterFence, found.fence)
          break
        }
        case 'index':
          entry = variantEntry(lookup, found) as EntryRef
          afterFence = 0
          break
        case 'response': {
          const result = found as ResultEntry<StoredResponse>
          const selected = this.#responses.fromResult(lookup, entry, result, afterFence)
          const response = this.#select(lookup, entry, found, selected)
          if (response) return response
          afterFence = found.fence
          entry = { ...entry, stale: result }
        }
      }
    }
    return this.#forward(lookup.request, lookup.origin, 'miss')
  }

  /**
   * The response of this request's own fetch, if the run called it; otherwise the result that others have made. A response
   * whose body still streams is returned before the run has ended.
   */
  async #resultOf(lookup: CacheLookup, entry: EntryRef, afterFence: number): Promise<RunOutcome> {
    if (afterFence === 0 && this.#refreshing.has(entry.key)) {
      // A stale response may be served while it is refreshed: do not wait for the refresh.
      const found = await this.#storage.find(entry)
      if (found) return { kind: 'result', found }
    }
    const fetch = new OriginFetch(lookup.request, entry, lookup.origin, this.#storage)
    const running = this.#run(fetch, afterFence, lookup.arrivedAt).finally(() => fetch.deliverEnd())
    // Once the response streams, nothing waits for the run.
    running.catch(() => undefined)
    try {
      const found = await Promise.race([running, fetch.streaming])
      // The own fetch may go on after its claim was lost.
      if (found?.value.kind === 'private') await fetch.done
      const stored = found !== undefined && !found.unshared && !found.invalidated
      const response = this.#responses.fromFetch(fetch, stored)
      return response ? { kind: 'own', response } : { kind: 'result', found: found ?? (await running) }
    } catch (error) {
      const response = this.#responses.fromFetch(fetch, false)
      if (response) return { kind: 'own', response }
      fetch.dropReader()
      const fallback = this.#responses.fallback(lookup.request, entry, error)
      if (fallback) return { kind: 'own', response: fallback }
      throw error
    }
  }

  /** Runs a fetch under the claim of its key, or waits for the holder of the claim. */
  async #run(
    { request, entry, run }: OriginFetch,
    afterFence: number,
    arrivedAt: number,
    abortUnwanted = true,
  ): Promise<ResultEntry<CacheEntry>> {
    const { namespace, options } = this.#storage
    const { onUnavailable, maxUnshared } = options
    return namespace.run(entry.key, run, {
      afterFence,
      // The stored value is from before an invalidation that Redis does not know yet.
      refresh: this.#storage.isInvalidated(entry.primaryKey),
      tags: tagsOf(request, options),
      signal: request.signal,
      timeout: this.#storage.timeLeft(arrivedAt),
      errorTtl: 0,
      // Stale responses are served by the rules of HTTP, not by those of the locker.
      staleWhileRevalidate: 0,
      staleIfError: 0,
      softTimeout: Number.POSITIVE_INFINITY,
      onUnavailable,
      maxUnshared,
      abortUnwanted,
    })
  }

  /** Starts a background refresh. Where requests say when they are answered, the first that is answered starts it. */
  #scheduleRefresh(lookup: CacheLookup, entry: EntryRef): void {
    if (this.#refreshing.has(entry.key)) return
    const answered = lookup.request.whenAnswered?.()
    if (!answered) return this.#refresh(lookup, entry)
    const staleFence = entry.stale?.fence
    answered.then(() => {
      const found = this.#storage.namespace.cached(entry.key)
      const isStillStale = !found || found.fence === staleFence
      if (isStillStale && !this.#refreshing.has(entry.key)) this.#refresh(lookup, entry)
    })
  }

  #refresh({ request, origin }: CacheLookup, entry: EntryRef): void {
    const { clock } = this.#storage
    this.#refreshing.add(entry.key)
    // The client has been answered. If it leaves, the refresh goes on.
    const fetch = new OriginFetch({ ...request, signal: undefined }, entry, origin, this.#storage)
    fetch.dropReader()
    const onEnd = (failed: boolean): void => {
      const remove = () => this.#refreshing.delete(entry.key)
      if (failed) clock.after(REFRESH_RETRY_MS, remove, true)
      else remove()
    }
    // Outside the async context of the work that made the request: nothing there waits for the refresh, so the deadlock
    // check must not count it.
    outsideWork(() => this.#run(fetch, entry.stale?.fence ?? 0, clock.now(), false))
      .then(({ value }) => {
        if (value.kind === 'private') onEnd(value.scope !== 'resource')
        else onEnd(value.kind === 'response' && isOriginError(value.status))
      })
      .catch(() => onEnd(true))
  }

  /** Forwards a request to the origin, without its hop-by-hop fields. The response is private. */
  async #forward(request: HttpRequest, origin: Origin, forwardReason: ForwardReason): Promise<HttpResponse> {
    return this.#responses.forwarded(request, await fetchOrigin(request, origin), { forwardReason })
  }

  /** Forwards a request with an unsafe method, and invalidates what it has changed. RFC 9111 §4.4. */
  async #handleUnsafe(request: HttpRequest, origin: Origin): Promise<HttpResponse> {
    const response = await fetchOrigin(request, origin)
    // Does not reject while Redis is unavailable: the change has happened, and its client gets the response in any case.
    await this.#invalidations.afterUnsafe(request, response)
    response.completed?.then((atEnd) => this.#invalidations.afterUnsafe(request, atEnd))
    return this.#responses.forwarded(request, response, { forwardReason: 'method' })
  }
}
