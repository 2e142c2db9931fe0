import { UnavailableError } from '../../errors.ts'
import { reportHookError } from '../../kernel/hooks.ts'
import { emit } from '../../kernel/telemetry.ts'
import type { Timer } from '../../kernel/time.ts'
import { endToEndFields, linesOf } from '../policy/fields.ts'
import { primaryKeyOf, targetOf } from '../policy/request.ts'
import type { HttpRequest, OriginResponse } from './message.ts'
import type { ResponseStorage } from './storage.ts'

/** Invalidations that are kept for later. Beyond that the oldest are dropped. */
const MAX_UNSENT = 10_000

/** Keys that are invalidated by one call. */
const BATCH_SIZE = 100

/** Time between two attempts while Redis is unavailable, ms. */
const RETRY_MS = 1_000

/** URLs in Location and Content-Location that are looked at: a regular response has one in each. */
const MAX_LOCATIONS = 16

/**
 * Invalidations after unsafe requests. RFC 9111 §4.4. While Redis is unavailable they are unsent: this process must not serve
 * what they invalidate. They are retried every second, and whenever one of their keys is requested.
 */
export class Invalidations {
  readonly #storage: ResponseStorage
  #lastNumber = 0
  #sending: Promise<void> | undefined
  #timer: Timer | undefined

  constructor(storage: ResponseStorage) {
    this.#storage = storage
  }

  /** Invalidates what an unsafe request has changed, judged by its response. */
  async afterUnsafe(request: HttpRequest, response: OriginResponse): Promise<void> {
    await this.invalidate(invalidatedBy(request, response).flatMap((changed) => this.#keyOf(changed) ?? []))
  }

  /** The primary key of a request. If the user's `key` throws, the rest of the invalidation goes on. */
  #keyOf(request: HttpRequest): string | undefined {
    try {
      return primaryKeyOf(request, this.#storage.options)
    } catch (error) {
      reportHookError('key', error)
      return undefined
    }
  }

  /** Invalidates keys everywhere: now, or when Redis is available again. Never rejects. */
  async invalidate(keys: Iterable<string>): Promise<void> {
    const { unsentInvalidations: unsent } = this.#storage
    for (const key of keys) {
      unsent.delete(key)
      unsent.set(key, ++this.#lastNumber)
    }
    for (const key of unsent.keys()) {
      if (unsent.size <= MAX_UNSENT) break
      this.#drop(key)
    }
    // A send that is under way does not contain these keys.
    await this.#sending
    await this.send()
  }

  /** Tries once to send all that is unsent. Never rejects. */
  send(): Promise<void> {
    this.#sending ??= this.#send().finally(() => (this.#sending = undefined))
    return this.#sending
  }

  async #send(): Promise<void> {
    const { namespace, unsentInvalidations: unsent } = this.#storage
    this.#timer?.cancel()
    const sent = [...unsent]
    for (let from = 0; from < sent.length; from += BATCH_SIZE) {
      const batch = sent.slice(from, from + BATCH_SIZE)
      try {
        await namespace.invalidateWithPending(...batch.map(([key]) => key))
        // A key that was invalidated once more meanwhile stays.
        for (const [key, number] of batch) if (unsent.get(key) === number) unsent.delete(key)
      } catch (error) {
        if (error instanceof UnavailableError) return this.#retryLater()
        for (const [key] of batch) this.#drop(key)
      }
    }
  }

  #retryLater(): void {
    this.#timer = this.#storage.clock.after(RETRY_MS, () => void this.send(), true)
  }

  #drop(key: string): void {
    this.#storage.unsentInvalidations.delete(key)
    emit('invalidationLost', { key })
  }
}

/**
 * The requests whose stored responses an unsafe request has invalidated, judged by its response. None unless it succeeded;
 * otherwise a GET of its own target, and of the URLs in Location and Content-Location on the same host. RFC 9111 §4.4.
 */
export function invalidatedBy(request: HttpRequest, response: OriginResponse): HttpRequest[] {
  const target = targetOf(request)
  if (!target || response.status < 200 || response.status >= 400) return []
  const base = `http://${target.host || 'nowhere.invalid'}${target.path}`
  const fields = endToEndFields(response.headers)
  const locations = [...linesOf(fields, 'location'), ...linesOf(fields, 'content-location')]
  const named = locations.slice(0, MAX_LOCATIONS).flatMap((location) => {
    if (!URL.canParse(location, base)) return []
    const { host, pathname, search } = new URL(location, base)
    return host === new URL(base).host ? [pathname + search] : []
  })
  const headers = { ...request.headers, host: target.host }
  const { scheme } = request
  return [
    // The spread keeps the adapter's own fields: the user's `key` sees what it would see of a GET.
    { ...request, method: 'GET', url: target.path, headers, scheme, signal: undefined },
    ...named.map((url) => ({ method: 'GET', url, headers, scheme })),
  ]
}
