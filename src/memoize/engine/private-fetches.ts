import { AbortedError, TimeoutError } from '../../errors.ts'
import type { Clock } from '../../kernel/time.ts'
import { onAbort } from '../../kernel/waiter.ts'
import type { TagVersions } from '../../locker/internal.ts'
import type { HttpResponse } from './message.ts'
import { OriginFetch } from './origin-fetch.ts'
import type { Responses } from './responses.ts'
import type { CacheLookup, EntryRef, ResponseStorage, ResultContext } from './storage.ts'
import type { CacheEntry } from './stored-response.ts'

/** Private fetches of one key that run at once in this process. */
const MAX_PRIVATE_FETCHES = 8

/** Fetches for one client each, without a claim: other requests neither wait for them nor are waited for. */
export class PrivateFetches {
  readonly #responses: Responses
  readonly #storage: ResponseStorage
  readonly #semaphore: KeyedSemaphore

  constructor(responses: Responses, storage: ResponseStorage) {
    this.#responses = responses
    this.#storage = storage
    this.#semaphore = new KeyedSemaphore(MAX_PRIVATE_FETCHES, storage.clock)
  }

  /**
   * Fetches the response to a request. If it may be shared it is stored, unless one of the tags has another version than in
   * `versions` by then. Without `versions` it is not stored.
   */
  async run(
    { request, origin }: CacheLookup,
    entry: EntryRef,
    versions: TagVersions | undefined,
  ): Promise<HttpResponse> {
    const { namespace } = this.#storage
    const { signal, headers } = request
    const fetch = new OriginFetch(request, entry, origin, this.#storage)
    const context = standaloneContext(signal)
    const storing = fetch.run(context).then(async (result) => {
      const { ttl } = context
      if (ttl > 0 && versions)
        return namespace.setIfUnclaimed(entry.key, result, { ttl, since: versions }).catch(() => false)
      // A response to credentials says nothing about the response that is stored for others.
      if (headers['authorization'] === undefined && withdrawsStored(result))
        await namespace.invalidate(entry.key).catch(() => undefined)
      return false
    })
    const running = storing.finally(() => fetch.deliverEnd())
    // Once the response streams, nothing waits for it to be stored.
    running.catch(() => undefined)
    const stored = (await Promise.race([running, fetch.streaming])) === true
    const response = this.#responses.fromFetch(fetch, stored)
    if (response) return response
    throw new AbortedError('The client has gone', { cause: signal?.reason })
  }

  /** As `run`, for at most MAX_PRIVATE_FETCHES requests of the key at once. The others wait, and look in memory first. */
  runInTurn(
    lookup: CacheLookup,
    entry: EntryRef,
    fromMemory: () => HttpResponse | undefined,
  ): Promise<HttpResponse> {
    const { request, arrivedAt } = lookup
    const storage = this.#storage
    return this.#semaphore
      .run(entry.key, { signal: request.signal, within: storage.timeLeft(arrivedAt) }, async () => {
        const inMemory = storage.isInvalidated(entry.primaryKey) ? undefined : fromMemory()
        return inMemory ?? this.run(lookup, entry, await storage.readVersions(lookup))
      })
      .catch((error) => {
        const fallback = this.#responses.fallback(request, entry, error)
        if (fallback) return fallback
        throw error
      })
  }
}

/** Whether a result says that the stored response must not be served any more. */
function withdrawsStored(result: CacheEntry): boolean {
  if (result.kind === 'private') return result.scope === 'resource'
  return result.kind === 'response' && result.plan.keep === 0 && result.status < 500
}

/** The context of a fetch without a claim. `ttl` is what the fetch decided; 0: do not store. */
function standaloneContext(
  signal: AbortSignal = new AbortController().signal,
): ResultContext & { ttl: number } {
  return {
    signal,
    ttl: 0,
    setTtl(ms) {
      this.ttl = ms
    },
    noStore() {
      this.ttl = 0
    },
  }
}

/** Runs at most `limit` tasks of each key at once; the others wait, first come, first served. */
class KeyedSemaphore {
  readonly #limit: number
  readonly #clock: Clock
  /** Keys that have running tasks. */
  readonly #byKey = new Map<string, { running: number; waiting: Set<() => void> }>()

  constructor(limit: number, clock: Clock) {
    this.#limit = limit
    this.#clock = clock
  }

  /** @throws (rejects with) AbortedError, TimeoutError (after `within`, ms) while it waits; what `task` throws. */
  async run<T>(
    key: string,
    { signal, within }: { signal: AbortSignal | undefined; within: number },
    task: () => T | PromiseLike<T>,
  ): Promise<T> {
    const tasks = this.#byKey.get(key) ?? { running: 0, waiting: new Set() }
    this.#byKey.set(key, tasks)
    if (tasks.running < this.#limit) tasks.running++
    else await this.#wait(tasks.waiting, signal, within)
    try {
      return await task()
    } finally {
      const [next] = tasks.waiting
      if (next) {
        tasks.waiting.delete(next)
        next()
      } else if (--tasks.running === 0) this.#byKey.delete(key)
    }
  }

  #wait(waiting: Set<() => void>, signal: AbortSignal | undefined, within: number): Promise<void> {
    if (signal?.aborted) return Promise.reject(new AbortedError('The client has gone'))
    return new Promise((resolve, reject) => {
      const fail = (error: Error): void => {
        cleanUp()
        waiting.delete(start)
        reject(error)
      }
      const onTimeout = (): void => fail(new TimeoutError('Too many private fetches ran before this one'))
      const timer = within < Number.POSITIVE_INFINITY ? this.#clock.after(within, onTimeout) : undefined
      const unlisten = signal && onAbort(signal, () => fail(new AbortedError('The client has gone')))
      const cleanUp = (): void => {
        timer?.cancel()
        unlisten?.()
      }
      const start = (): void => {
        cleanUp()
        resolve()
      }
      waiting.add(start)
    })
  }
}
