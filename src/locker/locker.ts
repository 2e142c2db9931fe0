import { NotLockedError } from '../errors.ts'
import type { Codec } from '../kernel/codec/codec.ts'
import { checkDuration } from '../kernel/options.ts'
import { checkKey, recordKey } from '../kernel/redis/keys.ts'
import { awaitReady, READY_TIMEOUT_MS } from '../kernel/redis/readiness.ts'
import type { Counters } from './flight/locker-context.ts'
import type { Done, Namespace, Work } from './flight/waiter.ts'
import { KeyNamespace } from './key-namespace.ts'
import type { Lease, PublishOptions } from './lease.ts'
import { type Memoized, memoize } from './memoize.ts'
import {
  checkTags,
  type LockerOptions,
  type MemoizeOptions,
  type RequestOptions,
  type RunManyOptions,
  type RunOptions,
} from './options.ts'
import { runMany } from './processor/batch-claim.ts'
import type { ManyWork } from './processor/batch-run.ts'
import { LockerRuntime } from './runtime.ts'
import { type StreamOptions, type Streams, type StreamWork, streamsOf } from './stream/index.ts'

/** What is known of a key. A result that is being renewed has a lock besides. */
export interface Peek {
  /** 'done': there is a result that would be served; else 'locked': somebody computes it; else 'free'. */
  status: 'free' | 'locked' | 'done'
  /** Host and process id of the processor, its fence, what is left of its lease (ms), and how many flights wait. */
  lock?: { holder: string; fence: number; leaseLeft: number; parked: number }
  /** Age of the result, how long it will be served, and how long after that to those content with what is over (ms). */
  value?: { fence: number; age: number; ttlLeft: number; staleLeft: number }
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
  /** Leases that this locker holds, and works that run without one while Redis is away. */
  held: number
  /** Results in this process's cache, and the bytes that they take, by estimate. */
  cached: number
  cachedBytes: number
  /** Whether messages arrive, and commands that wait for Redis. Embedded: true and 0. */
  subscribed: boolean
  pendingCommands: number
}

/** No options: one object for all calls without any. */
const NO_OPTIONS: RunOptions = Object.freeze({})

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

  readonly #runtime: LockerRuntime
  readonly #namespace: Namespace
  readonly #streams: Streams
  #closing: Promise<void> | undefined

  /** @throws TypeError when an option is not what it should be. Connects to nothing yet. */
  constructor(options: LockerOptions = {}) {
    this.#runtime = new LockerRuntime(options)
    this.#namespace = { letter: 'k', codec: this.#runtime.codec }
    this.#streams = streamsOf(this.#runtime, options.store)
    runtimes.set(this, this.#runtime)
  }

  /**
   * Asks for a key: the first caller is granted a Lease and must settle it; all others receive what it publishes.
   * @throws TimeoutError, AbortedError, RemoteError (the processor failed), LockTimeoutError, UnavailableError,
   * OverloadedError, DeadlockError, ClosedError. `signal` and `timeout` end with the grant.
   */
  request<T = unknown>(key: string, options: RequestOptions = NO_OPTIONS): Promise<Lease | Done<T>> {
    return this.#runtime.request(this.#namespace, key, options) as Promise<Lease | Done<T>>
  }

  /**
   * The result of `work` for `key`: computed once, here or in whatever process was first, and kept for `ttl`. Every
   * caller only waits; the work belongs to all of them, and goes on when one stops waiting.
   * @throws RemoteError when the work failed, wherever it ran, or when its result cannot be carried (`remote.code` is
   * then 'E_CODEC'); and TimeoutError, AbortedError, LockTimeoutError, UnavailableError, OverloadedError, DeadlockError, ClosedError.
   */
  run<T>(key: string, work: Work<T>, options: RunOptions = NO_OPTIONS): Promise<T> {
    return this.#runtime.run(this.#namespace, key, work, options) as Promise<T>
  }

  /**
   * The results for `keys`, in their order. Those that nobody has computed or computes are claimed together, and `work`
   * is called once with all that this process was granted; the others are waited for. No key is computed twice anywhere.
   * If a processor elsewhere dies, `work` is called once more, with what this process takes over.
   * @throws as `run`, with the first failure among the keys; the others are computed and kept all the same.
   */
  async runMany<T>(
    keys: readonly string[],
    work: ManyWork<T>,
    options: RunManyOptions = {},
  ): Promise<Exclude<Awaited<T>, Error>[]> {
    return (await runMany(this.#runtime, this.#namespace, keys, work, options)) as Exclude<
      Awaited<T>,
      Error
    >[]
  }

  /**
   * The chunks that `work` yields for `key`, to be read by `for await`: produced once, here or in whatever process asked
   * first, and received by every reader from the first one on; later readers replay them until `ttl`. Nothing happens
   * until the first chunk is asked for. A reader that leaves holds up nobody, nor does one that is slow, except the
   * producer of its own process when nobody else reads. When the producer dies, readers
   * that were delivered nothing yet begin anew.
   * @throws TypeError, ClosedError at once. Reading rejects with RemoteError where the work failed, after the chunks before
   * that; StreamInterruptedError when the producer died, or dropped what this reader had yet to read; TimeoutError,
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
   * Publishes under the lease that this locker holds for `key`.
   * @throws NotLockedError when it holds none, or two of which one is lost; LeaseLostError, CodecError, UnavailableError.
   */
  async publish(key: string, result: unknown, { ttl }: PublishOptions = {}): Promise<void> {
    checkKey(key)
    if (ttl !== undefined) checkDuration('ttl', ttl)
    const { context } = this.#runtime
    const [held, another] = context.heldLeases.of(this.#runtime.recordOf(this.#namespace, key))
    if (!held) throw new NotLockedError('This locker holds no lease for the key', { key })
    if (another)
      throw new NotLockedError('This locker has several leases for the key: publish by the Lease', { key })
    await held.publish(result, ttl)
  }

  /**
   * A function of the same signature that does its work once per key; and with `invalidate` and `refresh`, which take
   * the same arguments.
   * @throws TypeError when an option is not what it should be. The function itself rejects as `run` does.
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
      // Without a version, it is checked as every key is.
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

  /** What is known of a key, changing nothing. @throws UnavailableError, ClosedError */
  async peek(key: string): Promise<Peek> {
    const { flights, limits } = this.#runtime
    const { lease, value } = await flights.store.snapshot(this.#record(key), limits)
    return {
      status: value && value.ttlLeft > 0 ? 'done' : lease ? 'locked' : 'free',
      ...(lease && {
        lock: { holder: lease.holder, fence: lease.fence, leaseLeft: lease.leaseLeft, parked: lease.parked },
      }),
      ...(value && {
        value: { fence: value.fence, age: value.age, ttlLeft: value.ttlLeft, staleLeft: value.staleLeft },
      }),
    }
  }

  /**
   * Forgets the results of keys, in the caches of other processes too. Callers that wait for a running work still receive
   * its result; callers that ask after this has resolved receive only a result whose work began later.
   * @throws UnavailableError, ClosedError
   */
  async invalidate(...keys: string[]): Promise<void> {
    const records = keys.map((key) => this.#record(key))
    await Promise.all(records.map((record) => this.#runtime.invalidate(record)))
  }

  /**
   * Forgets the streams of keys. Readers of a running stream still receive it to its end; readers that come after this has
   * resolved receive only a stream whose work began later.
   * @throws UnavailableError, ClosedError
   */
  async invalidateStreams(...keys: string[]): Promise<void> {
    await this.#streams.invalidate(...keys)
  }

  /**
   * Forgets all results that have one of these tags, however many they are, as `invalidate` does.
   * @throws UnavailableError, ClosedError
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
   * Resolves when Redis answers and its messages arrive; embedded, at once. For the start of a service, or its readiness
   * probe: nothing else needs to wait for it.
   * @throws UnavailableError, which says what is wrong, when that is not so within `timeout` ms; ClosedError.
   */
  async ready({ timeout = READY_TIMEOUT_MS }: { timeout?: number | undefined } = {}): Promise<void> {
    checkDuration('timeout', timeout)
    this.#runtime.checkOpen()
    const { connection, options } = this.#runtime
    if (!connection) return
    await awaitReady(connection, recordKey(options.prefix, connection.inbox.id, 'r'), timeout)
  }

  /** What it has done and does. */
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
   * Takes no more requests, lets what it holds be published for `grace` ms, then hands that over to other processes and
   * rejects everyone who still waits with ClosedError. Never rejects; throws TypeError when `grace` is no duration.
   */
  close({ grace = DEFAULT_GRACE }: { grace?: number } = {}): Promise<void> {
    checkDuration('grace', grace, { infinite: true })
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

/** Letters of the locker's own records: results, hashed keys, tags, results of a version, streams, their logs, probes. */
const RESERVED_LETTERS = 'khtvsxr'

/** A layer's own resources in a locker. `letter`: names the layer. For the layers of this package. */
export function namespaceFor<T>(locker: Locker, letter: string, codec: Codec): KeyNamespace<T> {
  const runtime = runtimes.get(locker)
  if (!runtime) throw new TypeError('Expected `locker` to be a Locker')
  if (!/^[a-z]$/.test(letter) || RESERVED_LETTERS.includes(letter))
    throw new TypeError(`The letter ${letter} is taken`)
  return new KeyNamespace<T>(runtime, letter, codec)
}
