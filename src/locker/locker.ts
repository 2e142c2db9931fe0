import { NotLockedError } from '../errors.ts'
import type { Codec } from '../kernel/codec/codec.ts'
import { checkKey, recordKey } from '../kernel/keys.ts'
import { checkDuration, checkTimeout } from '../kernel/options.ts'
import { awaitReady, READY_TIMEOUT_MS } from '../kernel/redis/readiness.ts'
import type { Done } from './cache/result-cache.ts'
import type { Namespace, Work } from './call.ts'
import { KeyNamespace } from './key-namespace.ts'
import type { Lease, PublishOptions } from './lease.ts'
import type { Counters } from './locker-context.ts'
import { type Memoized, memoize } from './memoize.ts'
import {
  checkTags,
  type LockerOptions,
  type MemoizeOptions,
  type RequestOptions,
  type RunManyOptions,
  type RunOptions,
  type TokenRequestOptions,
  type WaitOptions,
} from './options.ts'
import type { ManyWork } from './processor/work-runner.ts'
import { LockerRuntime } from './runtime.ts'
import type { FollowOptions, StreamFollowing, StreamOptions, StreamWork } from './stream/options.ts'
import { createStreams, type Streams } from './stream/streams.ts'
import type { TokenLease } from './token-lease.ts'

/** The state of a key. While a result is revalidated, both `lock` and `value` are present. */
export interface Peek {
  /** 'done': there is a fresh result. 'locked': there is none, and a process computes it. 'free': neither. */
  status: 'free' | 'locked' | 'done'
  /** Host and process id of the processor, its fence, the rest of its lease (ms), and the number of parked flights. */
  lock?: { holder: string; fence: number; leaseLeft: number; parked: number }
  /** The result: its fence, its age, how long it is still fresh, and how long after that it is kept as stale (ms). */
  value?: { fence: number; age: number; ttlLeft: number; staleLeft: number }
}

/** Counters and gauges of a locker. */
export interface LockerStats extends Counters {
  /** Hits in this process's cache. */
  localHits: number
  /** Flights and waiters of the connection, which lockers share; works of this locker that run, or wait for a slot. */
  flights: number
  waiters: number
  running: number
  queued: number
  /** Leases of this locker, including those of works that run unshared. */
  held: number
  /** Results in this process's cache, and their bytes, by estimate. */
  cached: number
  cachedBytes: number
  /** Whether messages arrive; commands without a reply. Embedded: true and 0. */
  subscribed: boolean
  pendingCommands: number
}

/** The options of all calls without options. */
const NO_OPTIONS: Omit<RunOptions, 'lease'> = Object.freeze({})

/** The default of `grace`, ms. */
const DEFAULT_GRACE = 5_000

/**
 * Does a piece of work once, however many processes ask for its key at the same moment, and gives every caller the result.
 *
 * The first caller of a key becomes its processor. All others wait until it publishes. The result is kept for `ttl`. If the
 * processor dies, a waiter replaces it; a processor that was replaced cannot publish.
 *
 * @example
 * const locker = new Locker({ redis: 'redis://localhost:6379' })
 * const report = await locker.run('report:42', ({ signal }) => makeReport(42, signal))
 */
export class Locker implements AsyncDisposable {
  /** The `status` of a Lease. */
  static readonly LOCKED = 'locked'
  /** The `status` of the reply to `request` when there is a result. */
  static readonly DONE = 'done'

  readonly #runtime: LockerRuntime
  readonly #namespace: Namespace
  readonly #streams: Streams
  #closing: Promise<void> | undefined

  /** Connects when it is first used. @throws TypeError when an option is invalid. */
  constructor(options: LockerOptions = {}) {
    this.#runtime = new LockerRuntime(options)
    this.#namespace = { letter: 'k', codec: this.#runtime.codec }
    this.#streams = createStreams(this.#runtime, options.store)
    runtimes.set(this, this.#runtime)
  }

  /**
   * The result of a key, or a Lease to compute it. The first caller is granted the Lease and must settle it; all others
   * receive what it publishes. `signal` and `timeout` have no effect after the grant.
   * @throws TimeoutError, AbortedError, RemoteError (the processor failed), LockTimeoutError, UnavailableError,
   * OverloadedError, DeadlockError, ClosedError, TypeError.
   */
  request<T = unknown>(key: string, options?: RequestOptions): Promise<Lease | Done<T>>
  /**
   * The same for a lease that is held by its token: in any process, {@link Locker.held} renews and settles it. Without a renewal
   * it expires, and a waiter replaces the holder.
   */
  request<T = unknown>(key: string, options: TokenRequestOptions): Promise<TokenLease | Done<T>>
  request(key: string, options: RequestOptions = NO_OPTIONS): Promise<Lease | TokenLease | Done<unknown>> {
    return this.#runtime.request(this.#namespace, key, options) as Promise<Lease | Done<unknown>>
  }

  /**
   * The result of a key, without ever becoming its processor: the cached result, or the outcome of the processor, in any process.
   * Without a processor it waits for one. If the processor dies, it waits for the next one.
   * @throws RemoteError (the processor failed), TimeoutError, AbortedError, UnavailableError, OverloadedError,
   * DeadlockError, ClosedError, TypeError.
   */
  wait<T = unknown>(key: string, options: WaitOptions = NO_OPTIONS): Promise<T> {
    return this.#runtime.wait(this.#namespace, key, options) as Promise<T>
  }

  /**
   * The lease that a token names: `lease.token` of any locker with the same Redis, prefix and codec. Sends nothing: only the next
   * call shows whether the lease is lost.
   * @throws TypeError when it is no token; ClosedError.
   */
  held(token: string): TokenLease {
    return this.#runtime.held(this.#namespace, token)
  }

  /**
   * The result of `work` for `key`. The work runs once, in the process that asked first, and its result is kept for `ttl`.
   * It belongs to all callers: it goes on when one of them stops waiting.
   * @throws RemoteError when the work failed, in any process, or when its result cannot be encoded (`remote.code` is then
   * 'E_CODEC'); TimeoutError, AbortedError, LockTimeoutError, UnavailableError, OverloadedError, DeadlockError, ClosedError,
   * TypeError.
   */
  run<T>(key: string, work: Work<T>, options: RunOptions = NO_OPTIONS): Promise<T> {
    return this.#runtime.run(this.#namespace, key, work, options) as Promise<T>
  }

  /**
   * The results for `keys`, in the same order. Missing keys are claimed together, and `work` is called once with all that
   * this process was granted. Keys that another process computes are waited for. If that process dies, `work` is called
   * once more, with the keys that this process takes over.
   * @throws as `run`, with the first failure among the keys; the others are computed and kept all the same.
   */
  async runMany<T>(
    keys: readonly string[],
    work: ManyWork<T>,
    options: RunManyOptions = {},
  ): Promise<Exclude<Awaited<T>, Error>[]> {
    return (await this.#runtime.runMany(this.#namespace, keys, work, options)) as Exclude<Awaited<T>, Error>[]
  }

  /**
   * The chunks that `work` yields for `key`, to be read by `for await`. They are produced once, in the process that asked
   * first. Every reader receives all of them; later readers replay them until `ttl`. Nothing happens before the first chunk
   * is asked for. A reader that leaves or is slow does not delay other readers; a slow one delays the producer only when it
   * is the only reader and in the same process. When the producer dies, readers that have received nothing yet start over.
   * @throws TypeError, ClosedError at once. Reading rejects with RemoteError when the work failed, after the chunks before
   * that; StreamInterruptedError when the producer died, or dropped chunks that this reader had yet to read; TimeoutError,
   * AbortedError, UnavailableError, LockTimeoutError, OverloadedError, DeadlockError, ClosedError.
   */
  stream<T>(
    key: string,
    work: StreamWork<T>,
    options: StreamOptions = {},
  ): AsyncIterableIterator<T, undefined> & AsyncDisposable {
    return this.#streams.open(key, work, options)
  }

  /**
   * The chunks of the stream of `key` that another caller produces, in any process, to be read by `for await`. It never produces,
   * and waits for a producer if there is none. It reads from the chunk number `from` on, so a disconnected reader resumes there.
   * As long as it has received nothing it starts over when the producer dies.
   * @throws TypeError, ClosedError at once. Reading rejects with TimeoutError when there is no producer within `wait`, or a chunk
   * does not come within `timeout`; StreamInterruptedError when the producer died or was replaced, or the next chunk was dropped;
   * RemoteError when the work failed, after the chunks before that; AbortedError, UnavailableError, DeadlockError, ClosedError,
   * CodecError.
   */
  follow<T>(key: string, options: FollowOptions = {}): StreamFollowing<T> {
    return this.#streams.follow(key, options)
  }

  /**
   * Publishes a result under the lease that `request` of this locker was granted for `key`.
   * @throws NotLockedError when it holds no such lease, or more than one (of which at most one is not lost); LeaseLostError,
   * CodecError, UnavailableError as `Lease.publish`; TypeError.
   */
  async publish(key: string, result: unknown, { ttl }: PublishOptions = {}): Promise<void> {
    checkKey(key)
    if (ttl !== undefined) checkDuration('ttl', ttl)
    const { context } = this.#runtime
    const leases = context.heldLeases.of(this.#runtime.recordOf(this.#namespace, key))
    // A work of `run` publishes its own result.
    const [held, another] = leases.filter(({ call }) => !call.work)
    if (!held) throw new NotLockedError('This locker holds no lease for the key', { key })
    if (another)
      throw new NotLockedError('This locker has several leases for the key: publish by the Lease', { key })
    await held.publish(result, ttl)
  }

  /**
   * A function with the same parameters whose calls run `fn` once per key. It has the methods `invalidate` and `refresh`,
   * which take the same arguments.
   * @throws TypeError when an option is invalid. The function itself rejects as `run` does.
   */
  // biome-ignore lint/suspicious/noExplicitAny: the only type that every function's parameters fit
  memoize<Fn extends (...args: any[]) => unknown>(
    fn: Fn,
    options: MemoizeOptions<Parameters<Fn>>,
  ): Memoized<Parameters<Fn>, Awaited<ReturnType<Fn>>> {
    const versioned: Namespace = { ...this.#namespace, letter: 'v' }
    const runtime = this.#runtime
    return memoize(fn as (...args: unknown[]) => unknown, options as MemoizeOptions<unknown[]>, (version) => {
      const namespace = version === '' ? this.#namespace : versioned
      const prefix = `${version.length}:${version}`
      // Without a version, `run` checks the key.
      const keyOf = (key: string) => {
        if (version === '') return key
        checkKey(key)
        return prefix + key
      }
      return {
        run: (key, work, runOptions) => runtime.run(namespace, keyOf(key), work, runOptions),
        invalidate: async (key) => {
          checkKey(key)
          runtime.checkOpen(key)
          await runtime.invalidate(runtime.recordOf(namespace, keyOf(key)))
        },
      }
    }) as Memoized<Parameters<Fn>, Awaited<ReturnType<Fn>>>
  }

  /** The state of a key, read without changing it. @throws UnavailableError, ClosedError, TypeError */
  async peek(key: string): Promise<Peek> {
    const { flights, options } = this.#runtime
    const { lease, value } = await flights.store.snapshot(this.#record(key), options.unavailableAfter)
    return {
      status: value && value.ttlLeft > 0 ? 'done' : lease ? 'locked' : 'free',
      ...(lease && { lock: lease }),
      ...(value && { value }),
    }
  }

  /**
   * Removes the results of keys, also from the caches of other processes. Callers that already wait for a running work
   * still receive its result. Callers that ask after this has resolved receive only results whose work began later.
   * @throws UnavailableError, ClosedError, TypeError
   */
  async invalidate(...keys: string[]): Promise<void> {
    const records = keys.map((key) => this.#record(key))
    await Promise.all(records.map((record) => this.#runtime.invalidate(record)))
  }

  /**
   * Removes the streams of keys. Readers of a running stream still receive it to its end. Readers that begin after this has
   * resolved receive only streams whose work began later.
   * @throws UnavailableError, ClosedError, TypeError
   */
  async invalidateStreams(...keys: string[]): Promise<void> {
    await this.#streams.invalidate(...keys)
  }

  /**
   * Removes all results that have one of these tags, as `invalidate` does. The cost does not depend on their number.
   * @throws UnavailableError, ClosedError, TypeError
   */
  async invalidateTags(...tags: string[]): Promise<void> {
    checkTags(tags)
    this.#runtime.checkOpen()
    await Promise.all(tags.map((tag) => this.#runtime.invalidateTag(tag)))
  }

  #record(key: string): string {
    checkKey(key)
    this.#runtime.checkOpen(key)
    return this.#runtime.recordOf(this.#namespace, key)
  }

  /**
   * Resolves when Redis replies to commands and messages arrive; embedded, at once. For a readiness probe: calls need not
   * wait for it.
   * @throws UnavailableError, with the reason, when that is not so within `timeout` ms; ClosedError, TypeError.
   */
  async ready({ timeout = READY_TIMEOUT_MS }: { timeout?: number | undefined } = {}): Promise<void> {
    checkDuration('timeout', timeout)
    this.#runtime.checkOpen()
    const { connection, options } = this.#runtime
    if (!connection) return
    await awaitReady(connection, recordKey(options.prefix, connection.inbox.id, 'r'), timeout)
  }

  /** The present counters and gauges. */
  stats(): LockerStats {
    const { context, flights, localHits, cache, connection } = this.#runtime
    const { counters, scheduler, heldLeases } = context
    return {
      ...counters,
      localHits,
      flights: flights.size,
      waiters: flights.waiters,
      running: scheduler.running,
      queued: scheduler.waiting,
      held: heldLeases.all().length,
      cached: cache?.size ?? 0,
      cachedBytes: cache?.bytes ?? 0,
      subscribed: flights.store.subscribed,
      pendingCommands: connection?.pending ?? 0,
    }
  }

  /**
   * Rejects new calls, waits at most `grace` ms until the works that run are settled, then releases the remaining leases to
   * other processes and rejects the remaining waiters with ClosedError. Never rejects.
   * @throws TypeError when `grace` is no duration.
   */
  close({ grace = DEFAULT_GRACE }: { grace?: number } = {}): Promise<void> {
    checkTimeout('grace', grace)
    if (!this.#closing) {
      this.#runtime.stopAccepting()
      this.#closing = this.#runtime.shutDown(grace, () => this.#streams.close())
    }
    return this.#closing
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }
}

const runtimes = new WeakMap<Locker, LockerRuntime>()

/** Letters of the locker's own keys: results, hashed keys, tags, versioned results, streams, their logs, probes. */
const RESERVED_LETTERS = 'khtvsxr'

/** The key namespace of a layer in a locker. `letter` names the layer. For the layers of this package. */
export function namespaceFor<T>(locker: Locker, letter: string, codec: Codec): KeyNamespace<T> {
  const runtime = runtimes.get(locker)
  if (!runtime) throw new TypeError('Expected `locker` to be a Locker')
  if (!/^[a-z]$/.test(letter) || RESERVED_LETTERS.includes(letter))
    throw new TypeError(`The letter ${letter} is taken`)
  return new KeyNamespace<T>(runtime, letter, codec)
}

/** The lease of a record, which is named as in an answer to a census. For the layers of this package. */
export async function leaseOf(locker: Locker, record: string, within: number): Promise<Peek['lock']> {
  return (await runtimes.get(locker)?.flights.store.snapshot(record, within))?.lease
}
