import { ClosedError, DeadlockError, TimeoutError } from '../../errors.ts'
import { checkKey, newId } from '../../kernel/keys.ts'
import { checkFunction, shown } from '../../kernel/options.ts'
import { AsyncContext, type Clock, type Timer } from '../../kernel/time.ts'
import { refProcess, unrefProcess } from '../../kernel/waiter.ts'
import { addWait, callingWork, type WorkScope, wouldDeadlock } from '../../kernel/work-scheduler.ts'
import { KeyNamespace } from '../key-namespace.ts'
import type { LockerRuntime } from '../runtime.ts'
import type { MemoryStore } from '../store/memory-store.ts'
import { LogViews } from './log/log-view.ts'
import { MemoryLogHub } from './log/memory-log-store.ts'
import { RedisLogStore } from './log/redis-log-store.ts'
import {
  type FollowedChunk,
  type FollowOptions,
  resolveFollowOptions,
  resolveStreamOptions,
  type StreamCall,
  type StreamFollowing,
  type StreamHost,
  type StreamOptions,
  type StreamWork,
} from './options.ts'
import { Producer } from './producing/producer.ts'
import type { Reader } from './reading/reader.ts'
import { StreamFollower } from './reading/stream-follower.ts'
import { type ReaderDeps, StreamReader } from './reading/stream-reader.ts'
import { type StreamGrant, type StreamRecord, streamRecordCodec } from './stream-record.ts'

/** The streams of one locker: owns its readers, its producers, and the views of their logs. */
export class Streams {
  readonly #host: StreamHost
  readonly #views: LogViews
  readonly #readers = new Set<{ close(): void }>()
  readonly #producers = new Set<Producer>()
  /** The unshared producer of each key: Redis is unavailable, or the shared log was trimmed. */
  readonly #unshared = new Map<string, Producer>()
  readonly #readerDeps: ReaderDeps
  #closed = false

  constructor(host: StreamHost) {
    this.#host = host
    this.#views = new LogViews(host, new MemoryLogHub(host.clock).connect())
    this.#readerDeps = {
      host,
      views: this.#views,
      readers: this.#readers,
      produce: (call, grant) => this.#produce(call, grant),
    }
  }

  /** The chunks of the stream of `key`. Does nothing before its first `next`. @throws TypeError, ClosedError */
  open<T>(key: string, work: StreamWork<T>, options: StreamOptions): StreamIterator<T> {
    checkKey(key)
    checkFunction('work', work)
    const resolved = resolveStreamOptions(options, this.#host.defaults)
    if (this.#closed) throw new ClosedError('The locker is closed', { key })
    const call = { key, work, options: resolved, context: new AsyncContext() }
    const wait = { key, timeout: resolved.timeout, clock: this.#host.clock }
    return new StreamIterator(wait, (wake) => new StreamReader(this.#readerDeps, call, wake))
  }

  /** The chunks of the stream of `key`, which others produce. Does nothing before it is asked. @throws TypeError, ClosedError */
  follow<T>(key: string, options: FollowOptions): FollowIterator<T> {
    checkKey(key)
    const resolved = resolveFollowOptions(options, this.#host.defaults)
    if (this.#closed) throw new ClosedError('The locker is closed', { key })
    const wait = { key, timeout: resolved.timeout, clock: this.#host.clock }
    return new FollowIterator(wait, (wake) => new StreamFollower(this.#readerDeps, key, resolved, wake))
  }

  /** Invalidates complete streams. No later reader joins a stream that is being produced. */
  async invalidate(...keys: string[]): Promise<void> {
    for (const key of keys) this.#unshared.delete(key)
    await this.#host.space.invalidate(...keys)
  }

  /** Without a shared grant, joins the unshared producer of the key if there is one that may be joined. */
  #produce(call: StreamCall, grant: StreamGrant = unsharedGrant()): Producer {
    if (grant.shared) return this.#start(call, grant, String(grant.fence))
    const running = this.#unshared.get(call.key)
    if (running?.joinable) {
      grant.release().catch(() => {})
      return running
    }
    const producer = this.#start(call, grant, newId())
    this.#unshared.set(call.key, producer)
    return producer
  }

  #start(call: StreamCall, grant: StreamGrant, log: string): Producer {
    const view = this.#views.open(call.key, log, call.options.lease)
    const producer = new Producer(this.#host, call, grant, log, view, () => {
      this.#producers.delete(producer)
      if (this.#unshared.get(call.key) === producer) this.#unshared.delete(call.key)
    })
    this.#producers.add(producer)
    return producer
  }

  /** Stops all producers and ends all readers with ClosedError. */
  close(): void {
    this.#closed = true
    for (const producer of [...this.#producers])
      producer.stop(new ClosedError('The locker was closed', { key: '' }))
    for (const reader of [...this.#readers]) reader.close()
  }
}

/** A grant that no store knows. */
function unsharedGrant(): StreamGrant {
  return {
    fence: 0,
    shared: false,
    signal: new AbortController().signal,
    progress() {},
    async publish() {},
    async release() {},
  }
}

/** The logs beside each memory store: lockers that share the store share them. */
const hubs = new WeakMap<MemoryStore, MemoryLogHub>()

function memoryLogsFor(memory: MemoryStore): MemoryLogHub {
  const hub = hubs.get(memory) ?? new MemoryLogHub(memory.clock, memory.maxBytes)
  hubs.set(memory, hub)
  return hub
}

/** Creates the streams of a locker. `memory` is the store that its user passed, if any. */
export function createStreams(runtime: LockerRuntime, memory: MemoryStore | undefined): Streams {
  const { clock, codec, connection, options, context } = runtime
  const embedded = () => (memory ? memoryLogsFor(memory) : new MemoryLogHub(clock)).connect()
  return new Streams({
    space: new KeyNamespace<StreamRecord>(runtime, 's', streamRecordCodec),
    clock,
    prefix: options.prefix,
    logs: connection ? new RedisLogStore(connection) : embedded(),
    codec,
    scheduler: context.scheduler,
    counters: context.counters,
    defaults: options,
    unavailableAfter: options.unavailableAfter,
    takeover: options.takeover,
    exposeError: context.exposeError,
  })
}

/** How a caller waits for the next chunk. */
interface ChunkWait {
  readonly key: string
  /** ms */
  readonly timeout: number
  readonly clock: Clock
}

/** What `stream` returns: waits, within the deadline of each chunk, until its reader has a result. */
export class StreamIterator<T, R extends Reader = Reader> implements AsyncIterableIterator<T, undefined> {
  readonly #key: string
  readonly #timeout: number
  readonly #clock: Clock
  readonly #reader: R
  /** Settles with the last call of `next`: they are answered in order. */
  #lastStep: Promise<unknown> = Promise.resolve()
  /** Resumes a `next` that waits. */
  #resume: (() => void) | undefined
  #deadline: Timer | undefined

  /** `createReader` is given what the reader calls when it may have a result. */
  constructor({ key, timeout, clock }: ChunkWait, createReader: (wake: () => void) => R) {
    this.#key = key
    this.#timeout = timeout
    this.#clock = clock
    this.#reader = createReader(() => this.#wake())
  }

  [Symbol.asyncIterator](): this {
    return this
  }

  /** The next chunk. */
  next(): Promise<IteratorResult<T, undefined>> {
    return this.when((reader) => reader.take() as IteratorResult<T, undefined> | undefined)
  }

  /** What `look` finds, as soon as that is not undefined. Calls are answered in order. */
  protected when<Found>(look: (reader: R) => Found | undefined): Promise<Found> {
    const step = this.#lastStep.then(() => this.#step(look))
    this.#lastStep = step.catch(() => {})
    return step
  }

  /** Ends this reader. The work goes on for the others, unless `abortUnwanted` is set. */
  async return(): Promise<IteratorResult<T, undefined>> {
    this.#reader.finish()
    return { done: true, value: undefined }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#reader.finish()
  }

  async #step<Found>(look: (reader: R) => Found | undefined): Promise<Found> {
    this.#reader.start()
    const work = callingWork()
    refProcess(this.#clock)
    try {
      for (;;) {
        const found = look(this.#reader)
        if (found !== undefined) return found
        this.#startDeadline()
        await this.#waitForChange(work)
      }
    } finally {
      unrefProcess(this.#clock)
      this.#deadline?.cancel()
      this.#deadline = undefined
    }
  }

  #startDeadline(): void {
    if (this.#deadline || this.#timeout === Number.POSITIVE_INFINITY) return
    this.#deadline = this.#clock.after(this.#timeout, () => {
      const message = `No chunk of ${shown(this.#key)} within ${this.#timeout} ms`
      this.#reader.fail(new TimeoutError(message, { key: this.#key }))
    })
  }

  /** Resolves when there may be a result. A work that reads a stream waits for its producer, and lends its slot meanwhile. */
  async #waitForChange(work: WorkScope | undefined): Promise<void> {
    const producer = work && this.#reader.waitNode
    if (producer && wouldDeadlock(work.node, producer)) {
      const message = 'The work waits for itself: it reads a stream that waits for this work'
      return this.#reader.fail(new DeadlockError(message, { key: this.#key }))
    }
    const takeBack = work && (producer ? addWait(work, producer) : work.slot.lend())
    await new Promise<void>((resume) => {
      this.#resume = resume
    })
    takeBack?.()
  }

  #wake(): void {
    const resume = this.#resume
    this.#resume = undefined
    resume?.()
  }
}

/** What `follow` returns. */
export class FollowIterator<T>
  extends StreamIterator<FollowedChunk<T>, StreamFollower>
  implements StreamFollowing<T>
{
  async located(): Promise<void> {
    await this.when((follower) => follower.isLocated || undefined)
  }
}
