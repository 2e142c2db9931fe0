import { AbortedError, UnavailableError } from '../../errors.ts'
import { reportHookError } from '../../kernel/hooks.ts'
import { outsideWork } from '../../kernel/time.ts'
import type { ResultEntry, TagVersions } from '../../locker/internal.ts'
import type { ForwardReason } from '../policy/cache-status.ts'
import { requestDirectives } from '../policy/demands.ts'
import { isOriginError } from '../policy/judgement.ts'
import { primaryKeyOf, tagsOf } from '../policy/key.ts'
import { type SelectedResponse, StoredResponses } from '../policy/reuse.ts'
import { routeOf } from '../policy/route.ts'
import { invalidatedBy } from './change.ts'
import { resolveHttpOptions } from './check-options.ts'
import { type CacheLookup, type EntryRef, primaryEntry, variantEntry } from './lookup.ts'
import type { HttpRequest, HttpResponse, Origin, OriginResponse } from './message.ts'
import type { HttpCacheOptions, ResolvedHttpOptions } from './options.ts'
import { fetchOrigin } from './origin/origin.ts'
import { OriginFetch } from './origin/origin-fetch.ts'
import { ResponseSelector } from './origin/response-selector.ts'
import { KeyedSemaphore } from './origin/turns.ts'
import { ResponseBuilder } from './response-builder.ts'
import { type EntryNamespace, ResponseStorage, standaloneContext } from './storage/placement.ts'
import type { CacheEntry, StoredResponse } from './storage/stored-response.ts'
import { UnsentInvalidations } from './unsent-invalidations.ts'

/** Results that a request looks at, each under another key or a later grant, before it is forwarded. */
const MAX_ROUNDS = 8

/** Private results of others that a request waits for before it is fetched for its own client. */
const MAX_PRIVATE_RESULTS = 2

/** Private fetches of one key that run at once in this process. */
const MAX_PRIVATE_FETCHES = 8

/** Time between a failed refresh and the next, ms. */
const REFRESH_RETRY_MS = 1_000

/** What a request gets from a run: the response of its own fetch, or the result that another request has made. */
type RunOutcome =
  | { readonly kind: 'own'; readonly response: HttpResponse }
  | { readonly kind: 'result'; readonly found: ResultEntry<CacheEntry> }

/** The mechanism behind HttpCache, on any namespace. */
export class HttpCacheEngine {
  readonly #namespace: EntryNamespace
  readonly #options: ResolvedHttpOptions
  readonly #builder: ResponseBuilder
  readonly #reuse: StoredResponses
  readonly #selector: ResponseSelector
  /** Keys that this process refreshes in the background. A failed refresh leaves its key in here for REFRESH_RETRY_MS. */
  readonly #refreshing = new Set<string>()
  readonly #privateFetches: KeyedSemaphore
  readonly #unsentInvalidations: UnsentInvalidations
  readonly #storage: ResponseStorage

  constructor(namespace: EntryNamespace, options: HttpCacheOptions = {}) {
    this.#namespace = namespace
    this.#options = resolveHttpOptions(options)
    this.#builder = new ResponseBuilder(this.#options.cacheStatus)
    this.#reuse = new StoredResponses(this.#builder, namespace.clock, this.#options.shareAuthorized)
    this.#selector = new ResponseSelector(this.#builder, this.#reuse)
    this.#privateFetches = new KeyedSemaphore(MAX_PRIVATE_FETCHES, namespace.clock)
    this.#unsentInvalidations = new UnsentInvalidations(namespace)
    this.#storage = new ResponseStorage(namespace, this.#options)
  }

  handle(request: HttpRequest, origin: Origin): HttpResponse | Promise<HttpResponse> {
    try {
      return this.#handle(request, origin)
    } catch (error) {
      return Promise.reject(error)
    }
  }

  #handle(request: HttpRequest, origin: Origin): HttpResponse | Promise<HttpResponse> {
    const route = routeOf(request, this.#options)
    if (route === 'invalidate') return this.#handleUnsafe(request, origin)
    if (route !== 'cache') return this.#forward(request, origin, route)
    const primaryKey = primaryKeyOf(request, this.#options)
    if (primaryKey === undefined) return this.#forward(request, origin, 'bypass')
    const directives = requestDirectives(request.headers)
    if (directives.noStore) return this.#forward(request, origin, 'request')
    const lookup: CacheLookup = {
      request,
      origin,
      directives,
      primaryKey,
      arrivedAt: this.#namespace.clock.now(),
    }
    // The resource has changed, and Redis does not know yet.
    if (this.#unsentInvalidations.has(primaryKey))
      return this.#unsentInvalidations.send().then(() => this.#handleMiss(lookup))
    return this.#fromMemory(lookup) ?? this.#handleMiss(lookup)
  }

  /** The response out of the in-process cache. */
  #fromMemory(lookup: CacheLookup): HttpResponse | undefined {
    let entry = primaryEntry(lookup)
    let found = this.#namespace.cached(entry.key)
    const variant = variantEntry(lookup, found)
    if (variant) {
      entry = variant
      found = this.#namespace.cached(entry.key)
    }
    return found && this.#select(lookup, entry, found, this.#reuse.fromStored(lookup, found))
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

  /** Starts a background refresh. Where requests say when they are answered, the first that is answered starts it. */
  #scheduleRefresh(lookup: CacheLookup, entry: EntryRef): void {
    if (this.#refreshing.has(entry.key)) return
    const answered = lookup.request.whenAnswered?.()
    if (!answered) return this.#refresh(lookup, entry)
    const staleFence = entry.stale?.fence
    answered.then(() => {
      const found = this.#namespace.cached(entry.key)
      const isStillStale = !found || found.fence === staleFence
      if (isStillStale && !this.#refreshing.has(entry.key)) this.#refresh(lookup, entry)
    })
  }

  #refresh(lookup: CacheLookup, entry: EntryRef): void {
    this.#refreshing.add(entry.key)
    // The client has been answered. If it leaves, the refresh goes on.
    const fetch = this.#fetchFor({ ...lookup, request: { ...lookup.request, signal: undefined } }, entry)
    fetch.dropReader()
    const onEnd = (failed: boolean): void => {
      const remove = () => this.#refreshing.delete(entry.key)
      if (failed) this.#namespace.clock.after(REFRESH_RETRY_MS, remove, true)
      else remove()
    }
    // Outside the async context of the work that made the request: nothing there waits for the refresh, so the deadlock
    // check must not count it.
    outsideWork(() => this.#run(fetch, entry.stale?.fence ?? 0, this.#namespace.clock.now(), false))
      .then(({ value }) => {
        if (value.kind === 'private') onEnd(value.scope !== 'resource')
        else onEnd(value.kind === 'response' && isOriginError(value.status))
      })
      .catch(() => onEnd(true))
  }

  async #handleMiss(lookup: CacheLookup): Promise<HttpResponse> {
    const { request, directives } = lookup
    const authorized = request.headers['authorization'] !== undefined && !this.#options.shareAuthorized
    if (!directives.onlyIfCached && !authorized && request.headers['range'] === undefined)
      return this.#fetchShared(lookup)
    // These requests do not wait for a run of another request. The tag versions are read before the origin is called, so
    // that an invalidation during the call is noticed.
    const versions = authorized ? this.#tagVersions(lookup) : undefined
    const { entry, response } = await this.#fromStore(lookup)
    if (response) return response
    if (directives.onlyIfCached) return this.#builder.synthetic(504, 'Not in the cache')
    return authorized
      ? this.#respondPrivately(lookup, entry, await versions)
      : this.#forward(request, lookup.origin, 'miss')
  }

  /** Reads an entry. While Redis is away: what this process knew last, if `onUnavailable` allows it. */
  async #find({ key, primaryKey }: EntryRef): Promise<ResultEntry<CacheEntry> | undefined> {
    if (this.#unsentInvalidations.has(primaryKey)) return undefined
    const { onUnavailable } = this.#options
    const servesLastKnown = onUnavailable === 'cached' || onUnavailable === 'cached-local'
    return this.#namespace
      .lookup(key)
      .catch((error) =>
        servesLastKnown && error instanceof UnavailableError ? this.#namespace.lastKnown(key) : undefined,
      )
  }

  /** The response out of the store, and the entry that the lookup led to. Claims nothing. */
  async #fromStore(lookup: CacheLookup): Promise<{ entry: EntryRef; response: HttpResponse | undefined }> {
    let entry = primaryEntry(lookup)
    let found = await this.#find(entry)
    const variant = variantEntry(lookup, found)
    if (variant) {
      entry = variant
      found = await this.#find(entry)
    }
    return {
      entry,
      response: found && this.#select(lookup, entry, found, this.#reuse.fromStored(lookup, found)),
    }
  }

  /**
   * The versions of the tags that an invalidation of the resource increments. Undefined when they cannot be read: a stored
   * response may still answer the request, but a fetched one is not stored.
   */
  async #tagVersions({ request, primaryKey }: CacheLookup): Promise<TagVersions | undefined> {
    try {
      return await this.#namespace.readVersions(primaryKey, tagsOf(request, this.#options))
    } catch {
      return undefined
    }
  }

  /**
   * Fetches for one client, without a claim: other requests neither wait for it nor are waited for. A shareable response is
   * stored all the same, unless one of the tags has another version by then. Without `versions` it is not stored.
   */
  async #respondPrivately(
    lookup: CacheLookup,
    entry: EntryRef,
    versions: TagVersions | undefined,
  ): Promise<HttpResponse> {
    const { signal, headers } = lookup.request
    const fetch = this.#fetchFor(lookup, entry)
    const context = standaloneContext(signal)
    const storing = fetch.run(context).then(async (made) => {
      const { ttl } = context
      if (ttl > 0 && versions)
        return this.#namespace.setIfUnclaimed(entry.key, made, { ttl, since: versions }).catch(() => false)
      // A response to credentials says nothing about the response that is stored for others.
      if (headers['authorization'] === undefined && withdrawsStored(made))
        await this.#namespace.invalidate(entry.key).catch(() => undefined)
      return false
    })
    const running = storing.finally(() => fetch.deliverEnd())
    running.catch(() => undefined)
    const stored = (await Promise.race([running, fetch.streaming])) === true
    const response = this.#selector.fromFetch(fetch, stored)
    if (response) return response
    throw new AbortedError('The client has gone', { cause: signal?.reason })
  }

  /**
   * Runs the fetch for all requests of the key, or waits for the run of another request. Each round looks at one result:
   *
   * | result           | the request is answered by                      | next round, if not answered     |
   * | ---------------- | ----------------------------------------------- | ------------------------------- |
   * | own response     | it                                              |                                 |
   * | private resource | the origin: it is forwarded                     |                                 |
   * | private failure  | a stale response                                | fetches again                   |
   * | private request  |                                                 | fetches again                   |
   * | Vary index       |                                                 | looks at the entry of its variant |
   * | response         | it, if it was made for waiters or is fresh enough | fetches again                 |
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
          const stale = scope === 'failure' && this.#reuse.staleIfError(lookup.request, entry)
          if (stale) return stale
          if (++privateResults > MAX_PRIVATE_RESULTS) return this.#respondPrivatelyInTurn(lookup, entry)
          afterFence = Math.max(afterFence, found.fence)
          break
        }
        case 'index':
          entry = variantEntry(lookup, found) as EntryRef
          afterFence = 0
          break
        case 'response': {
          const result = found as ResultEntry<StoredResponse>
          const selected = this.#reuse.fromResult(lookup, entry, result, afterFence)
          const response = this.#select(lookup, entry, found, selected)
          if (response) return response
          afterFence = found.fence
          entry = { ...entry, stale: result }
        }
      }
    }
    return this.#forward(lookup.request, lookup.origin, 'miss')
  }

  /** As respondPrivately, for at most MAX_PRIVATE_FETCHES requests of the key at once. Others wait, and look in memory first. */
  #respondPrivatelyInTurn(lookup: CacheLookup, entry: EntryRef): Promise<HttpResponse> {
    const { signal } = lookup.request
    const inMemory = () =>
      this.#unsentInvalidations.has(entry.primaryKey) ? undefined : this.#fromMemory(lookup)
    return this.#privateFetches
      .run(
        entry.key,
        { signal, within: this.#timeLeft(lookup.arrivedAt) },
        async () => inMemory() ?? this.#respondPrivately(lookup, entry, await this.#tagVersions(lookup)),
      )
      .catch((error) => {
        const fallback = this.#selector.fallback(lookup.request, entry, error)
        if (fallback) return fallback
        throw error
      })
  }

  /** What is left of `timeout`, ms. */
  #timeLeft(arrivedAt: number): number {
    return Math.max(1, this.#storage.timeout - (this.#namespace.clock.now() - arrivedAt))
  }

  #fetchFor({ request, origin }: CacheLookup, entry: EntryRef): OriginFetch {
    return new OriginFetch(request, entry, origin, this.#storage)
  }

  /** Runs the fetch under the claim of its key, or waits for the holder of the claim. */
  async #run(
    { request, entry, run }: OriginFetch,
    afterFence: number,
    arrivedAt: number,
    abortUnwanted = true,
  ): Promise<ResultEntry<CacheEntry>> {
    const { onUnavailable, maxUnshared } = this.#options
    return this.#namespace.run(entry.key, run, {
      afterFence,
      // The stored value is from before an invalidation that Redis does not know yet.
      refresh: this.#unsentInvalidations.has(entry.primaryKey),
      tags: tagsOf(request, this.#options),
      signal: request.signal,
      timeout: this.#timeLeft(arrivedAt),
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

  /**
   * The response of this request's own fetch, if the run called it; otherwise the result that others have made. A response
   * whose body still streams is returned before the run has ended.
   */
  async #resultOf(lookup: CacheLookup, entry: EntryRef, afterFence: number): Promise<RunOutcome> {
    if (afterFence === 0 && this.#refreshing.has(entry.key)) {
      // A stale response may be served while it is refreshed: do not wait for the refresh.
      const found = await this.#find(entry)
      if (found) return { kind: 'result', found }
    }
    const fetch = this.#fetchFor(lookup, entry)
    const running = this.#run(fetch, afterFence, lookup.arrivedAt).finally(() => fetch.deliverEnd())
    // Once the response streams, nothing waits for the run.
    running.catch(() => undefined)
    try {
      const found = await Promise.race([running, fetch.streaming])
      // The own fetch may go on after its claim was lost.
      if (found?.value.kind === 'private') await fetch.done
      const stored = found !== undefined && !found.unshared && !found.invalidated
      const response = this.#selector.fromFetch(fetch, stored)
      return response ? { kind: 'own', response } : { kind: 'result', found: found ?? (await running) }
    } catch (error) {
      const response = this.#selector.fromFetch(fetch, false)
      if (response) return { kind: 'own', response }
      fetch.dropReader()
      const fallback = this.#selector.fallback(lookup.request, entry, error)
      if (fallback) return { kind: 'own', response: fallback }
      throw error
    }
  }

  /** Forwards a request to the origin unchanged. The response is private. */
  async #forward(request: HttpRequest, origin: Origin, forwardReason: ForwardReason): Promise<HttpResponse> {
    return this.#builder.forwarded(request, await fetchOrigin(request, origin), { forwardReason })
  }

  /** The primary key of a request. If the user's `key` throws, the rest of the invalidation goes on. */
  #invalidatedKey(request: HttpRequest): string | undefined {
    try {
      return primaryKeyOf(request, this.#options)
    } catch (error) {
      reportHookError('key', error)
      return undefined
    }
  }

  /** Forwards a request with an unsafe method, and invalidates what it has changed. RFC 9111 §4.4. */
  async #handleUnsafe(request: HttpRequest, origin: Origin): Promise<HttpResponse> {
    const response = await fetchOrigin(request, origin)
    const invalidate = (response: OriginResponse): Promise<void> =>
      this.#unsentInvalidations.invalidate(
        invalidatedBy(request, response).flatMap((changed) => this.#invalidatedKey(changed) ?? []),
      )
    // Does not reject while Redis is away: the change has happened, and its client gets the response in any case.
    await invalidate(response)
    response.completed?.then(invalidate)
    return this.#builder.forwarded(request, response, { forwardReason: 'method' })
  }
}

/** Whether a result says that the stored response must not be served any more. */
function withdrawsStored(result: CacheEntry): boolean {
  if (result.kind === 'private') return result.scope === 'resource'
  return result.kind === 'response' && result.plan.keep === 0 && result.status < 500
}
