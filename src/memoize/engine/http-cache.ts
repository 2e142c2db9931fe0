import { type Locker, namespaceFor } from '../../locker/locker.ts'
import { HttpCore } from './engine.ts'
import type { HttpRequest, HttpResponse, Origin } from './message.ts'
import type { HttpCacheOptions } from './options.ts'
import { type Kept, keptCodec } from './storage/stored-response.ts'

/** The letter of the records of HTTP caches. */
const LETTER = 'w'

/**
 * A shared HTTP cache as RFC 9111 understands it, over all processes that have a locker with the same prefix on the same
 * Redis: identical requests ask the origin once, wherever they come in, and all of them are given its answer.
 *
 * @example
 * const cache = new HttpCache(locker, { ttl: 60_000 })
 * const { status, headers, body } = await cache.handle({ method, url, headers }, () => makeAnswer())
 */
export class HttpCache {
  readonly #core: HttpCore

  /** @throws TypeError when an option is not what it should be. */
  constructor(locker: Locker, options: HttpCacheOptions = {}) {
    this.#core = new HttpCore(namespaceFor<Kept>(locker, LETTER, keptCodec), options)
  }

  /**
   * The answer to a request: at once, not as a promise, when this process's cache has it. `origin` is called when it must
   * be asked, and may be called after the answer was given, to refresh it: with the request as it is to be asked, which
   * may lack conditions and have others.
   * @throws (rejects with) what `origin` threw for this very request: nobody else hears of that; AbortedError after the
   * request's `signal`; ClosedError; and TypeError for header fields that no message can have.
   */
  handle(request: HttpRequest, origin: Origin): HttpResponse | Promise<HttpResponse> {
    return this.#core.handle(request, origin)
  }
}
