import { AbortedError, ClosedError } from '../errors.ts'
import { type Codec, jsonCodec } from '../kernel/codec/codec.ts'
import { TransientSet, TransientSetMap } from '../kernel/collections.ts'
import { checkKey, recordKey } from '../kernel/keys.ts'
import { checkFunction, checkOptions, type OptionTable } from '../kernel/options.ts'
import { type Connection, connectionFor } from '../kernel/redis/connection.ts'
import { emit, hasListeners } from '../kernel/telemetry.ts'
import { AsyncContext, type Clock } from '../kernel/time.ts'
import { WorkScheduler } from '../kernel/work-scheduler.ts'
import { type CachedResult, doneOf, ResultCache } from './cache/result-cache.ts'
import { Call, type CallKind, type JoinedCall, type Namespace, type Work } from './call.ts'
import { FlightTable } from './flight/flight-table.ts'
import { Counters, type LockerContext } from './locker-context.ts'
import {
  type AnyRequestOptions,
  type AnyRunOptions,
  type AnyWaitOptions,
  type LockerOptions,
  REQUEST_OPTIONS,
  type ResolvedOptions,
  RUN_OPTIONS,
  type RunManyOptions,
  resolveOptions,
  WAIT_OPTIONS,
} from './options.ts'
import { parseToken } from './processor/lease-token.ts'
import { BatchRun, type ManyWork } from './processor/work-runner.ts'
import { MemoryStore } from './store/memory-store.ts'
import { RedisStore } from './store/redis/redis-store.ts'
import { TokenLease } from './token-lease.ts'

/** The least time between a failed revalidation of a stale result and the next one, ms. */
const REVALIDATION_BACKOFF = 1000

/** Most keys of one `runMany`. */
const MAX_KEYS = 10_000

/**
 * The services behind one Locker, and behind its streams and key namespaces: options, connection, flights and cache. It
 * turns calls into flights: first it looks into the in-process cache, then it joins or begins a flight.
 */
export class LockerRuntime {
  readonly options: ResolvedOptions
  readonly flights: FlightTable
  readonly context: LockerContext
  readonly clock: Clock
  readonly codec: Codec
  readonly connection: Connection | undefined
  localHits = 0
  /** Undefined when caching is off, and after `close`. */
  #cache: ResultCache | undefined
  #closed = false
  /** Releases the store and the connection, which other lockers may share. */
  readonly #disconnect: () => Promise<void>
  readonly #unlisten: () => void

  constructor(options: LockerOptions) {
    this.options = resolveOptions(options)
    this.codec = options.codec ?? jsonCodec
    const { prefix, concurrency, cache } = this.options
    const link = connectionFor(options, 'Locker')
    this.connection = link?.connection
    const memory = options.store ?? new MemoryStore({ clock: options.clock })
    this.clock = link?.connection.clock ?? memory.clock
    const purpose = `locker:${prefix}`
    this.flights = link
      ? link.connection.acquireShared(
          purpose,
          () => new FlightTable(new RedisStore(link.connection), link.connection.clock, link.connection),
        )
      : new FlightTable(memory.connect(), memory.clock, memory.census)
    this.#disconnect = async () => {
      if (!link || link.connection.releaseShared(purpose)) this.flights.close()
      await link?.release()
    }
    this.#cache = cache ? new ResultCache(cache, this.clock) : undefined
    this.context = {
      ...this.options,
      store: this.flights.store,
      clock: this.clock,
      counters: new Counters(),
      cache: this.#cache,
      scheduler: new WorkScheduler(concurrency, this.clock),
      heldLeases: new TransientSetMap(),
      requests: new TransientSet(),
      unshared: new TransientSet(),
      strict: !this.#cache,
      trace: options.trace,
      checkOpen: (key) => this.checkOpen(key),
      exposeError: options.exposeError ?? ((failure) => failure),
    }
    this.#unlisten = this.#cache ? this.flights.onInvalidation(this.#cache) : () => {}
  }

  get cache(): ResultCache | undefined {
    return this.#cache
  }

  /** The fresh result in this process's cache. Looked up before the options are validated: a hit costs nothing else. */
  cachedFresh(namespace: Namespace, key: string, options: AnyRunOptions): CachedResult | undefined {
    if (!this.#cache || typeof key !== 'string' || !options || options.refresh || options.signal?.aborted)
      return undefined
    const now = this.clock.now()
    const entry = this.#cache.get(cacheName(namespace, key), now)
    if (!entry || entry.freshUntil <= now || entry.fence <= (options.afterFence ?? 0)) return undefined
    this.localHits++
    if (hasListeners('hit')) emit('hit', { key, local: true })
    return entry
  }

  /** The stale result in this process's cache, if the call accepts it. Renews it in the background. */
  serveStale(call: Call, batch?: BatchRun): CachedResult | undefined {
    const { name, key, afterFence, staleWhileRevalidate, locker } = call
    // `request` has no work to renew with.
    if (!this.#cache || call.refresh || !call.work || staleWhileRevalidate === 0) return undefined
    const now = this.clock.now()
    const entry = this.#cache.get(name, now)
    if (!entry || entry.fence <= afterFence || now - entry.freshUntil >= staleWhileRevalidate)
      return undefined
    locker.counters.stale++
    if (hasListeners('stale')) emit('stale', { key, staleFor: now - entry.freshUntil })
    this.#revalidate(call, entry, now, batch)
    return entry
  }

  #revalidate(call: Call, entry: CachedResult, now: number, batch: BatchRun | undefined): void {
    const { key } = call
    const revalidated =
      now >= entry.revalidateAfter ? this.flights.revalidate(call.revalidation(), batch) : undefined
    if (!revalidated) return batch?.onClaimAnswered(key)
    revalidated
      .catch(() => {
        entry.revalidateAfter = this.clock.now() + Math.max(call.errorTtl, REVALIDATION_BACKOFF)
      })
      .finally(() => batch?.onClaimAnswered(key))
  }

  /** See `Locker.run`. */
  run(namespace: Namespace, key: string, work: Work<unknown>, options: AnyRunOptions): Promise<unknown> {
    try {
      const hit = this.cachedFresh(namespace, key, options)
      if (hit) return hit.promise
      checkKey(key)
      checkFunction('work', work)
      checkOptions(options, RUN_OPTIONS)
      const call = this.createCall(namespace, key, work, options)
      return this.serveStale(call)?.promise ?? this.flights.join(call)
    } catch (error) {
      return Promise.reject(error)
    }
  }

  /** See `Locker.runMany`. */
  async runMany(
    namespace: Namespace,
    keys: readonly string[],
    work: ManyWork<unknown>,
    options: RunManyOptions,
  ): Promise<unknown[]> {
    checkFunction('work', work)
    if (!Array.isArray(keys) || keys.length > MAX_KEYS)
      throw new TypeError(`Expected \`keys\` to be an array of at most ${MAX_KEYS} strings`)
    for (const key of keys) checkKey(key)
    checkOptions(options, RUN_OPTIONS)
    const results = new Map<string, Promise<unknown> | undefined>()
    for (const key of keys) results.set(key, this.cachedFresh(namespace, key, options)?.promise)
    const missing = [...results.keys()].filter((key) => !results.get(key))
    const batch = new BatchRun(missing, work)
    for (const key of missing) results.set(key, this.#joinBatch(namespace, key, batch, options))
    return await Promise.all(keys.map((key) => results.get(key)))
  }

  #joinBatch(namespace: Namespace, key: string, batch: BatchRun, options: RunManyOptions): Promise<unknown> {
    const call = this.createCall(namespace, key, computedByItsBatch, options)
    // The batch also renews stale results: it waits for those claims, too.
    const stale = this.serveStale(call, batch)
    if (stale) return stale.promise
    const result = this.flights.join(call, batch)
    const settled = () => batch.onClaimAnswered(key)
    result.then(settled, settled)
    return result
  }

  /** See `Locker.request`. */
  request(namespace: Namespace, key: string, options: AnyRequestOptions): Promise<unknown> {
    try {
      const hit = this.cachedFresh(namespace, key, options)
      if (hit) return doneOf(hit)
      checkKey(key)
      checkOptions(options, REQUEST_OPTIONS)
      const kind = options.renew === false ? 'token' : 'request'
      return this.flights.join(this.createCall(namespace, key, undefined, options, kind))
    } catch (error) {
      return Promise.reject(error)
    }
  }

  /** See `Locker.wait`. */
  wait(
    namespace: Namespace,
    key: string,
    options: AnyRunOptions,
    table: OptionTable<AnyWaitOptions> = WAIT_OPTIONS,
  ): Promise<unknown> {
    try {
      checkKey(key)
      checkOptions<AnyWaitOptions>(options, table)
      const hit = this.cachedFresh(namespace, key, options)
      return hit?.promise ?? this.flights.join(this.createCall(namespace, key, undefined, options, 'wait'))
    } catch (error) {
      return Promise.reject(error)
    }
  }

  /** See `Locker.held`. */
  held(namespace: Namespace, token: string): TokenLease {
    const { key, inbox, ...grant } = parseToken(token)
    const call = this.createCall(namespace, key, undefined, {}, 'token')
    call.context = new AsyncContext()
    return new TokenLease(call as JoinedCall, { ...grant, record: call.record }, inbox)
  }

  /** A call with every option resolved. Key and options were validated before. @throws ClosedError, AbortedError */
  createCall(
    namespace: Namespace,
    key: string,
    work: Work<unknown> | undefined,
    options: AnyRunOptions,
    kind: CallKind = work ? 'run' : 'request',
  ): Call {
    const { signal, tags = [] } = options
    if (this.#closed) throw new ClosedError('The locker is closed', { key })
    if (signal?.aborted)
      throw new AbortedError('The caller had aborted before the call', { key, cause: signal.reason })
    const target = {
      key,
      record: this.recordOf(namespace, key),
      name: cacheName(namespace, key),
      tags: tags.map((tag) => this.tagRecordOf(tag)),
      work,
      kind,
    }
    return new Call(target, namespace, this.context, options, this.options)
  }

  /** Name of the record of a key. */
  recordOf(namespace: Namespace, key: string): string {
    return recordKey(this.options.prefix, key, namespace.letter)
  }

  /** Name of the record of a tag. */
  tagRecordOf(tag: string): string {
    return recordKey(this.options.prefix, tag, 't')
  }

  /** Removes the results of a record in every process. @throws UnavailableError, OverloadedError, ClosedError */
  async invalidate(record: string): Promise<void> {
    const joined = this.flights.current(record).map((flight) => ({ flight, before: flight.waiters.lastSeq }))
    const invalidateHere = () => this.flights.invalidate(record, Number.MAX_SAFE_INTEGER)
    // Also when Redis is unavailable: the cache of this process must not serve a result that is known to be invalid.
    const failed = (error: unknown) => {
      invalidateHere()
      throw error
    }
    const { invalidatedGrant } = await this.flights.store
      .invalidate(record, this.options.unavailableAfter)
      .catch(failed)
    // The first invalidation of that grant: callers that joined before this call joined before every invalidation of it.
    if (invalidatedGrant > 0)
      for (const { flight, before } of joined) flight.validateGrant(invalidatedGrant, before)
    invalidateHere()
  }

  /** Gives a tag a new version, in every process. @throws UnavailableError, OverloadedError, ClosedError */
  async invalidateTag(tag: string): Promise<void> {
    const name = this.tagRecordOf(tag)
    try {
      await this.flights.store.invalidateTag(name, this.options.unavailableAfter)
    } finally {
      this.flights.invalidateTag(name)
    }
  }

  checkOpen(key?: string): void {
    if (this.#closed) throw new ClosedError('The locker is closed', { key })
  }

  /** Rejects calls from now on. */
  stopAccepting(): void {
    this.#closed = true
    this.#cache?.clear()
    this.#cache = undefined
  }

  /** Waits until no lease is held, at most `grace` ms, then calls `ending`, rejects all waiters and releases all leases. */
  async shutDown(grace: number, ending: () => void): Promise<void> {
    await this.#drained(grace)
    ending()
    this.flights.reject(
      (call) => call.locker === this.context,
      (key) => new ClosedError('The locker was closed', { key }),
    )
    const held = this.context.heldLeases.all()
    await Promise.all(held.map((lease) => lease.cancelAndRelease(new ClosedError('The locker was closed'))))
    await this.flights.drain()
    await Promise.all(this.context.requests)
    this.#unlisten()
    await this.#disconnect()
  }

  /** Resolves when no lease is held any more, or after `grace`. */
  async #drained(grace: number): Promise<void> {
    const { heldLeases, clock } = this.context
    const end = clock.now() + grace
    const held = () => heldLeases.all().some((lease) => !lease.isLost)
    while (held() && clock.now() < end) {
      await new Promise<void>((resume) => clock.after(Math.min(10, end - clock.now()), resume))
    }
  }
}

/** The name of a result in the in-process cache. For users' keys it is the key itself, so that a hit makes no string. */
export function cacheName({ letter }: Namespace, key: string): string {
  return letter === 'k' && key.charCodeAt(0) !== 0 ? key : `\0${letter}${key}`
}

/** The work of a call that belongs to a batch. Never called. */
function computedByItsBatch(): never {
  throw new Error('A key of a batch is computed with the others')
}
