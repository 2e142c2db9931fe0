import { AbortedError, ClosedError, NotLockedError } from '../errors.ts'
import { checkDuration, checkFunction } from '../kernel/check.ts'
import { type Codec, jsonCodec } from '../kernel/codec.ts'
import { Connection } from '../kernel/connection.ts'
import { checkKey, recordKey } from '../kernel/keys.ts'
import { listened, tell } from '../kernel/telemetry.ts'
import { type Caller, type Counters, newCounters } from './caller.ts'
import { Flights } from './flights.ts'
import type { Lease, PublishOptions } from './lease.ts'
import { MemoryStore } from './memory-store.ts'
import {
  checkRunOptions,
  type LockerOptions,
  type MemoizeOptions,
  type RequestOptions,
  type ResolvedOptions,
  type RunOptions,
  resolveOptions,
} from './options.ts'
import { RedisStore } from './redis-store.ts'
import { ResultCache } from './result-cache.ts'
import { Slots } from './slots.ts'
import type { Call, Done, Work } from './waiter.ts'

/** What is known of a key. A key whose result is being renewed is both done and held. */
export interface Peek {
  /** 'done': there is a result that would be served; else 'locked': somebody computes it; else 'free'. */
  status: 'free' | 'locked' | 'done'
  /** Host and process id of the processor, its fence, what is left of its lease (ms), and how many processes wait. */
  lock?: { holder: string; fence: number; leaseLeft: number; parked: number }
  /** Age of the result, and how long it will be served (ms). */
  value?: { fence: number; age: number; ttlLeft: number }
}

/** What a locker has done and does. */
export interface LockerStats extends Counters {
  /** Results served out of this process's cache. */
  localHits: number
  /** Flights and waiters of the connection, works of this locker that run or wait for a slot. */
  flights: number
  waiters: number
  running: number
  queued: number
  /** Leases that this locker holds. */
  held: number
  /** Results in this process's cache, and their bytes as encoded. */
  cached: number
  cachedBytes: number
  /** Whether messages arrive, and commands that wait for Redis. Embedded: true and 0. */
  subscribed: boolean
  pendingCommands: number
}

/** How long `close` waits for running works, unless told otherwise, ms. */
const DEFAULT_GRACE = 5_000

/**
 * Does a piece of work once, however many callers in however many processes ask for its key at the same moment, and
 * hands every one of them the result.
 *
 * The first caller of a key becomes its processor; all others wait until it publishes, and the result is kept for `ttl`.
 * A processor that dies is replaced by one of those who wait; one that was replaced cannot publish.
 *
 * @example
 * const locker = new Locker({ redis: 'redis://localhost:6379' })
 * const report = await locker.run('report:42', ({ signal }) => makeReport(42, signal))
 */
export class Locker implements AsyncDisposable {
  /** `ticket.status` of the processor. */
  static readonly LOCKED = 'locked'
  /** `ticket.status` when there is a result. */
  static readonly DONE = 'done'

  readonly #options: ResolvedOptions
  readonly #flights: Flights
  readonly #caller: Caller
  /** Undefined when caching is off, and after `close`. */
  #cache: ResultCache | undefined
  #localHits = 0
  readonly #connection: Connection | undefined
  /** Whether the connection was made here, or the memory store's user. */
  readonly #owned: boolean
  readonly #unlisten: () => void
  #closing: Promise<void> | undefined

  /** @throws TypeError when an option is not what it should be. Connects to nothing yet. */
  constructor(options: LockerOptions = {}) {
    this.#options = resolveOptions(options)
    const codec = checkCodec(options.codec ?? jsonCodec)
    const { redis, store } = options
    this.#owned = !(redis instanceof Connection)
    this.#connection = redis instanceof Connection || redis === undefined ? redis : new Connection(redis)
    const memory = store ?? new MemoryStore()
    const { prefix } = this.#options
    this.#flights = this.#connection ? flightsOf(this.#connection, prefix) : new Flights(memory.connect())
    const clock = this.#connection?.clock ?? memory.clock
    this.#cache = this.#options.cache ? new ResultCache(this.#options.cache, clock) : undefined
    this.#caller = {
      ...this.#options,
      store: this.#flights.store,
      clock,
      codec,
      counters: newCounters(),
      cache: this.#cache,
      slots: new Slots(this.#options.concurrency),
      holdings: new Map(),
      strict: !this.#cache,
      trace: options.trace,
      exposeError: options.exposeError ?? ((failure) => failure),
    }
    this.#unlisten = this.#flights.onStale(
      (record, fence) => this.#cache?.drop(record, fence),
      () => this.#cache?.clear(),
    )
  }

  /**
   * Asks for a key: the first caller is granted a Lease and must settle it; all others receive what it publishes.
   * @throws TimeoutError, AbortedError, RemoteError (the processor failed), LockTimeoutError, UnavailableError,
   * OverloadedError, DeadlockError, ClosedError. `signal` and `timeout` end with the grant.
   */
  async request<T = unknown>(key: string, options: RequestOptions = {}): Promise<Lease | Done<T>> {
    const call = this.#call(key, undefined, options)
    const hit = this.#cached(key)
    if (hit) return { status: 'done', result: (await hit) as T }
    return this.#flights.join(call) as Promise<Lease | Done<T>>
  }

  #cached(key: string): Promise<unknown> | undefined {
    const hit = this.#cache?.get(key)
    if (!hit) return undefined
    this.#localHits++
    if (listened('hit')) tell('hit', { key, local: true })
    return hit
  }

  /**
   * The result of `work` for `key`: computed once, here or in whatever process was first, and kept for `ttl`. Every
   * caller only waits; the work belongs to all of them, and goes on when one stops waiting.
   * @throws RemoteError when the work failed, wherever it ran, or when its result cannot be carried (`remote.code` is
   * then 'E_CODEC'); and TimeoutError, AbortedError, LockTimeoutError, UnavailableError, OverloadedError, DeadlockError, ClosedError.
   */
  run<T>(key: string, work: Work<T>, options?: RunOptions): Promise<T> {
    if (options === undefined) {
      const hit = this.#cached(key)
      if (hit) return hit as Promise<T>
    }
    return this.#run(key, work, options ?? {}) as Promise<T>
  }

  #run(key: string, work: Work<unknown>, options: RunOptions): Promise<unknown> {
    try {
      checkFunction('work', work)
      const call = this.#call(key, work, options)
      return (options.refresh ? undefined : this.#cached(key)) ?? this.#flights.join(call)
    } catch (error) {
      return Promise.reject(error)
    }
  }

  /** A call with every option resolved. Throws when it is not to be made at all. */
  #call(key: string, work: Work<unknown> | undefined, options: RunOptions): Call {
    checkKey(key)
    checkRunOptions(options)
    const { signal } = options
    if (this.#closing) throw new ClosedError('The locker is closed', { key })
    if (signal?.aborted)
      throw new AbortedError('The caller aborted before it asked', { key, cause: signal.reason })
    const { prefix, timeout, lease, ttl, errorTtl } = this.#options
    return {
      key,
      record: recordKey(prefix, key),
      caller: this.#caller,
      work,
      signal,
      timeout: options.timeout ?? timeout,
      lease: options.lease ?? lease,
      ttl: options.ttl ?? ttl,
      errorTtl: options.errorTtl ?? errorTtl,
      refresh: options.refresh ?? false,
      onProgress: options.onProgress,
    }
  }

  /**
   * Publishes under the lease that this locker holds for `key`.
   * @throws NotLockedError when it holds none, or two of which one is lost; LeaseLostError, CodecError, UnavailableError.
   */
  async publish(key: string, result: unknown, { ttl }: PublishOptions = {}): Promise<void> {
    checkKey(key)
    if (ttl !== undefined) checkDuration('ttl', ttl)
    const held = [...(this.#caller.holdings.get(recordKey(this.#options.prefix, key)) ?? [])]
    const [holding, another] = held
    if (!holding) throw new NotLockedError('This locker holds no lease for the key', { key })
    if (another)
      throw new NotLockedError('This locker has several leases for the key: publish by the Lease', { key })
    await holding.publish(result, ttl)
  }

  /**
   * A function of the same signature that does its work once per key.
   * @throws TypeError when `fn` or `key` is not a function. The function itself rejects as `run` does.
   */
  // biome-ignore lint/suspicious/noExplicitAny: the only type that every function's parameters fit
  memoize<Fn extends (...args: any[]) => unknown>(
    fn: Fn,
    options: MemoizeOptions<Parameters<Fn>>,
  ): (...args: Parameters<Fn>) => Promise<Awaited<ReturnType<Fn>>> {
    checkFunction('fn', fn)
    checkFunction('key', options?.key)
    const { key, ...runOptions } = options
    checkRunOptions(runOptions)
    const given = Object.keys(runOptions).length > 0 ? runOptions : undefined
    const locker = this
    return function memoized(this: unknown, ...args: Parameters<Fn>) {
      const work = () => fn.apply(this, args) as Awaited<ReturnType<Fn>>
      try {
        return locker.run<Awaited<ReturnType<Fn>>>(key(...args), work, given)
      } catch (error) {
        return Promise.reject(error)
      }
    }
  }

  /** What is known of a key, changing nothing. @throws UnavailableError, ClosedError */
  async peek(key: string): Promise<Peek> {
    checkKey(key)
    const { lease, value } = await this.#flights.store.snapshot(this.#record(key), this.#limits())
    return {
      status: value ? 'done' : lease ? 'locked' : 'free',
      ...(lease && {
        lock: { holder: lease.holder, fence: lease.fence, leaseLeft: lease.left, parked: lease.parked },
      }),
      ...(value && { value: { fence: value.fence, age: value.age, ttlLeft: value.fresh } }),
    }
  }

  /**
   * Forgets the results of keys, in the caches of other processes too. Those who wait for a work that runs now still
   * receive it; whoever asks after this has resolved receives only what was begun later.
   * @throws UnavailableError, ClosedError
   */
  async invalidate(...keys: string[]): Promise<void> {
    for (const key of keys) checkKey(key)
    await Promise.all(keys.map((key) => this.#invalidate(this.#record(key))))
  }

  async #invalidate(record: string): Promise<void> {
    const flight = this.#flights.current(record)
    const before = flight?.seq ?? 0
    const { doomed } = await this.#flights.store.invalidate(record, this.#limits())
    // Nobody had invalidated that grant before: who joined before this call waited before every invalidation of it.
    if (doomed > 0) flight?.vouchFor(doomed, before)
    this.#flights.drop(record, Number.MAX_SAFE_INTEGER)
  }

  #record(key: string): string {
    if (this.#closing) throw new ClosedError('The locker is closed', { key })
    return recordKey(this.#options.prefix, key)
  }

  #limits(): { within: number } {
    return { within: this.#options.unavailableAfter }
  }

  /** What it has done and does. */
  stats(): LockerStats {
    const { counters, slots, holdings } = this.#caller
    return {
      ...counters,
      localHits: this.#localHits,
      flights: this.#flights.size,
      waiters: this.#flights.waiters,
      running: slots.taken,
      queued: slots.waiting,
      held: [...holdings.values()].reduce((sum, held) => sum + held.size, 0),
      cached: this.#cache?.size ?? 0,
      cachedBytes: this.#cache?.bytes ?? 0,
      subscribed: this.#flights.store.subscribed,
      pendingCommands: this.#connection?.pending ?? 0,
    }
  }

  /**
   * Takes no more requests, lets what it holds be published for `grace` ms, then hands that over to other processes and
   * rejects everyone who still waits with ClosedError. Never rejects; throws TypeError when `grace` is no duration.
   */
  close({ grace = DEFAULT_GRACE }: { grace?: number } = {}): Promise<void> {
    checkDuration('grace', grace, { infinite: true })
    this.#closing ??= this.#close(grace)
    return this.#closing
  }

  async #close(grace: number): Promise<void> {
    this.#cache?.clear()
    this.#cache = undefined
    await this.#drained(grace)
    this.#flights.reject(
      (call) => call.caller === this.#caller,
      (key) => new ClosedError('The locker was closed', { key }),
    )
    const held = [...this.#caller.holdings.values()].flatMap((holdings) => [...holdings])
    await Promise.all(held.map((holding) => holding.handOver(new ClosedError('The locker was closed'))))
    await this.#flights.settle()
    this.#unlisten()
    if (!this.#owned) return
    if (this.#connection) await this.#connection.close()
    else this.#flights.store.close()
  }

  /** Resolves when nothing is held any more, or after `grace`. */
  async #drained(grace: number): Promise<void> {
    const { holdings, clock } = this.#caller
    const end = clock.now() + grace
    const held = () => [...holdings.values()].some((held) => [...held].some((holding) => !holding.lost))
    while (held() && clock.now() < end) {
      await new Promise<void>((resume) => clock.after(Math.min(10, end - clock.now()), resume))
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }
}

/** The flights of a connection under a prefix. */
function flightsOf(connection: Connection, prefix: string): Flights {
  return connection.share(`locker:${prefix}`, () => new Flights(new RedisStore(connection)))
}

function checkCodec(codec: Codec): Codec {
  checkFunction('codec.encode', codec?.encode)
  checkFunction('codec.decode', codec?.decode)
  return codec
}
