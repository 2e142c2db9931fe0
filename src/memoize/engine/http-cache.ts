import type { Locker } from '../../locker/index.ts'
import { namespaceFor } from '../../locker/internal.ts'
import { HttpCacheEngine } from './engine.ts'
import type { HttpRequest, HttpResponse, Origin } from './message.ts'
import type { HttpCacheOptions } from './options.ts'
import { type CacheEntry, entryCodec } from './storage/stored-response.ts'

/** The namespace letter of the records of HTTP caches. */
const NAMESPACE = 'w'

/**
 * A shared HTTP cache (RFC 9111) of all processes whose lockers have the same prefix on the same Redis. Identical requests
 * in any of them call the origin once, and all receive its response.
 *
 * @example
 * const cache = new HttpCache(locker, { ttl: 60_000 })
 * const { status, headers, body } = await cache.handle({ method, url, headers }, () => makeResponse())
 */
export class HttpCache {
  readonly #engine: HttpCacheEngine

  /** @throws TypeError for invalid options. */
  constructor(locker: Locker, options: HttpCacheOptions = {}) {
    this.#engine = new HttpCacheEngine(namespaceFor<CacheEntry>(locker, NAMESPACE, entryCodec), options)
  }

  /**
   * Returns the response to a request; at once, not as a promise, when the in-process cache has it. Calls `origin` on a
   * miss, and possibly after the response was returned, to refresh it. The origin receives an OriginRequest, whose
   * conditional fields may differ from those of `request`.
   * @throws (rejects with) what `origin` threw for this request: other requests do not receive that error; AbortedError
   * after the request's `signal`; ClosedError; TypeError for header fields that cannot be part of a message.
   */
  handle(request: HttpRequest, origin: Origin): HttpResponse | Promise<HttpResponse> {
    return this.#engine.handle(request, origin)
  }
}
