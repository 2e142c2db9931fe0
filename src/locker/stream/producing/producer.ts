import { AbortedError, UnavailableError } from '../../../errors.ts'
import { encodeWith } from '../../../kernel/codec/codec.ts'
import { encodeFailure, exposedFailure } from '../../../kernel/codec/failure.ts'
import { assertTransition, type Transitions } from '../../../kernel/collections.ts'
import { checkDuration } from '../../../kernel/options.ts'
import type { Timer } from '../../../kernel/time.ts'
import { runInScope, type Slot, type WaitNode } from '../../../kernel/work-scheduler.ts'
import { LOG_GRACE } from '../log/log-store.ts'
import type { LogProducer, LogView } from '../log/log-view.ts'
import type { StreamCall, StreamContext, StreamHost, StreamSource } from '../options.ts'
import {
  interruptionBy,
  type StreamEnd,
  type StreamGrant,
  type StreamRecord,
  stopReason,
} from '../stream-record.ts'
import { LogWriter } from './log-writer.ts'

type State =
  /** Waits for a slot of the scheduler. */
  | { readonly kind: 'scheduled' }
  /** The work runs; its chunks are appended to the log. */
  | { readonly kind: 'producing' }
  /** The end was sent to the record, which may have accepted it even if the reply is lost. */
  | { readonly kind: 'publishing' }
  | { readonly kind: 'finished' }
  /** `endSent`: the record may have accepted the end, so the log must stay. */
  | { readonly kind: 'stopped'; readonly endSent: boolean }
  | { readonly kind: 'released' }

/**
 * | from                             | event                                                               | to         |
 * | -------------------------------- | ------------------------------------------------------------------- | ---------- |
 * | scheduled                        | a slot is free                                                      | producing  |
 * | producing                        | the work has ended, all its chunks are appended                     | publishing |
 * | publishing                       | the record has accepted the end                                     | finished   |
 * | producing, publishing            | Redis is unavailable, and the call accepts a local result           | finished   |
 * | scheduled, producing, publishing | lease or log lost, Redis unavailable, locker closed, no reader left | stopped    |
 * | finished, stopped                | the grant is released, the view left                                | released   |
 */
const TRANSITIONS: Transitions<State['kind']> = {
  scheduled: ['producing', 'stopped'],
  producing: ['publishing', 'finished', 'stopped'],
  publishing: ['finished', 'stopped'],
  finished: ['released'],
  stopped: ['released'],
  released: [],
}

/** After the last reader of this process has left, the check for other followers runs after this time, ms. */
const UNWANTED_CHECK_DELAY = 100

/** The log is retained at this interval, in case the work yields nothing for longer than its grace, ms. */
const RETAIN_INTERVAL = LOG_GRACE / 2

/** Produces a stream under a grant: runs the work, writes its chunks to the log, publishes the end, releases the grant. */
export class Producer implements LogProducer {
  /** Identifies the log in the record. */
  readonly log: string
  readonly view: LogView
  readonly #host: StreamHost
  readonly #call: StreamCall
  readonly #grant: StreamGrant
  readonly #onReleased: () => void
  readonly #writer: LogWriter
  readonly #source = new ChunkSource()
  /** Aborted by {@link stop}. */
  readonly #abort = new AbortController()
  /** The node of the work in the wait-for graph. */
  readonly #node: WaitNode
  #state: State = { kind: 'scheduled' }
  /** Set by the work with `setTtl`. */
  #ttl: number
  #retainedAt = 0
  #checkTimer: Timer | undefined

  /** Calls `onReleased` after it has released the grant. */
  constructor(
    host: StreamHost,
    call: StreamCall,
    grant: StreamGrant,
    log: string,
    view: LogView,
    onReleased: () => void,
  ) {
    this.#host = host
    this.#call = call
    this.#grant = grant
    this.log = log
    this.view = view
    this.#onReleased = onReleased
    this.#ttl = call.options.ttl
    this.#writer = new LogWriter({
      view,
      maxBytes: call.options.maxBytes,
      unavailableAfter: host.unavailableAfter,
      onTrim: () => this.#announce(false),
      onLost: (cause) => this.stop(stopReason(cause, call.key)),
    })
    this.#node = grant.node ?? { waitsFor: undefined }
    view.attachProducer(this)
    grant.signal.addEventListener('abort', this.#onAbort, { once: true })
    host.scheduler.schedule((slot) => void this.#run(slot).finally(() => slot.release()))
  }

  #enter(state: State): void {
    assertTransition('producer', TRANSITIONS, this.#state.kind, state.kind)
    this.#state = state
  }

  /** Whether it was stopped, or has released the grant. */
  get #ended(): boolean {
    return this.#state.kind === 'stopped' || this.#state.kind === 'released'
  }

  /** Whether a reader may join: the log still has its beginning, and may become complete. */
  get joinable(): boolean {
    return !this.#ended && !this.#writer.trimmed
  }

  waitNodeFor(chunk: number): WaitNode {
    const produced = () => this.#writer.count > chunk
    const waitsFor = new Map([[this.#node, 1]])
    return {
      get waitsFor() {
        return produced() ? undefined : waitsFor
      },
    }
  }

  readonly #onAbort = (): void => this.stop(this.#grant.signal.reason as Error)

  async #run(slot: Slot): Promise<void> {
    try {
      if (this.#state.kind === 'scheduled') await this.#produce(slot)
    } catch (error) {
      this.stop(stopReason(error, this.#call.key))
    } finally {
      await this.#release()
    }
  }

  async #produce(slot: Slot): Promise<void> {
    this.#enter({ kind: 'producing' })
    this.#announce(true)
    this.#scheduleCheck()
    const scope = { node: this.#node, slot }
    const context = this.#context()
    let failure: { error: unknown } | undefined
    try {
      await runInScope(this.#call.context, scope, () =>
        this.#source.drain(
          () => this.#call.work(context),
          (chunk) => this.#write(chunk),
        ),
      )
    } catch (error) {
      failure = { error }
    }
    // A chunk that the codec refuses ends the stream; the generator that yielded it has to be stopped.
    if (failure) this.#stopWork(failure.error)
    await this.#writer.flushed()
    if (!this.#ended) await this.#publish(failure)
  }

  #context(): StreamContext {
    const { fence, shared } = this.#grant
    return {
      key: this.#call.key,
      signal: this.#abort.signal,
      fence,
      shared,
      setTtl: (ms) => {
        checkDuration('ttl', ms)
        this.#ttl = ms
      },
    }
  }

  #write(chunk: unknown): Promise<void> | undefined {
    this.#writer.add(encodeWith(this.#host.codec, chunk))
    return this.#writer.backpressure()
  }

  /** Publishes as progress which log to read, and whether readers may join. */
  #announce(open: boolean): void {
    this.#grant.progress({ log: this.log, open })
  }

  /** Publishes the end as the result of the record. */
  async #publish(failure: { error: unknown } | undefined): Promise<void> {
    const { key, options, context } = this.#call
    const open = !this.#writer.trimmed
    const ttl = open ? (failure ? options.errorTtl : this.#ttl) : 0
    const end: StreamEnd = { count: this.#writer.count }
    if (failure) end.failure = encodeFailure(exposedFailure(this.#host.exposeError, context, failure.error))
    const record: StreamRecord = { log: this.log, open, end }
    try {
      // The log must exist for as long as the record names it, so it is retained first.
      if (ttl > 0 && this.#grant.shared) await this.#writer.retain(ttl + LOG_GRACE)
      if (this.#ended) return
      this.#enter({ kind: 'publishing' })
      await this.#grant.publish(record, { ttl })
    } catch (cause) {
      // With `local`, the readers of this process still receive the end.
      const unshared = cause instanceof UnavailableError && options.onUnavailable === 'local'
      if (!unshared) this.stop(stopReason(cause, key))
    }
    if (this.#ended) return
    this.#enter({ kind: 'finished' })
    this.view.finish(end, failure?.error)
  }

  /** Aborts the work and interrupts the readers of the log. Those that were delivered nothing may locate once more. */
  stop(reason: Error): void {
    const { kind } = this.#state
    if (kind === 'finished' || this.#ended) return
    this.#enter({ kind: 'stopped', endSent: kind === 'publishing' })
    this.#writer.stop()
    this.#call.context.run(() => this.#abort.abort(reason))
    this.#stopWork(reason)
    const local = this.#call.options.onUnavailable === 'local'
    this.view.interrupt(interruptionBy(reason, local, this.#host.takeover))
  }

  /** The `finally` blocks of a generator run in the async context of the call. */
  #stopWork(reason: unknown): void {
    this.#call.context.run(() => this.#source.stop(reason))
  }

  /**
   * Releases the grant. Unless it was settled, the next waiter is granted the lease. Discards a log that will never be
   * complete first, so that no reader starts on it.
   */
  async #release(): Promise<void> {
    const { name, logs } = this.view
    const state = this.#state
    if (state.kind === 'stopped' && !state.endSent)
      logs.discard(name, true, this.#host.unavailableAfter).catch(() => {})
    await this.#grant.release().catch(() => {})
    this.#enter({ kind: 'released' })
    this.#checkTimer?.cancel()
    this.#grant.signal.removeEventListener('abort', this.#onAbort)
    this.view.detachProducer()
    this.#onReleased()
  }

  onReadersChanged(): void {
    this.#writer.onReadersChanged()
    const unwanted = this.#call.options.abortUnwanted && this.view.readers.size === 0
    if (unwanted) this.#scheduleCheck(UNWANTED_CHECK_DELAY)
  }

  #scheduleCheck(ms: number = this.#call.options.lease / 3): void {
    if (this.#ended) return
    this.#checkTimer?.cancel()
    this.#checkTimer = this.#host.clock.after(ms, () => void this.#check(), true)
  }

  /** Retains the log. If `abortUnwanted` is set, stops when the log could be discarded because no process follows it. */
  async #check(): Promise<void> {
    this.#scheduleCheck()
    const { key, options } = this.#call
    const { readers, logs, name } = this.view
    const now = this.#host.clock.now()
    const due = now - this.#retainedAt >= RETAIN_INTERVAL
    // A failure is left to the next check, or to the next append.
    try {
      if (options.abortUnwanted && readers.size === 0) {
        const discarded = await logs.discard(name, false, this.#host.unavailableAfter)
        if (discarded) this.stop(new AbortedError('No reader is left', { key }))
      }
      if (due) await this.#writer.retain(LOG_GRACE)
      if (due) this.#retainedAt = now
    } catch {}
  }
}

type ChunkIterator = AsyncIterator<unknown> | Iterator<unknown>

/** The iterator of what a work returned. Refuses text and bytes, which would iterate as characters or numbers. */
function iteratorOf(source: unknown): ChunkIterator {
  if (typeof source === 'object' && source !== null && !ArrayBuffer.isView(source)) {
    const { [Symbol.asyncIterator]: asyncIterator, [Symbol.iterator]: iterator } = source as Partial<
      AsyncIterable<unknown> & Iterable<unknown>
    >
    if (typeof asyncIterator === 'function') return asyncIterator.call(source)
    if (typeof iterator === 'function') return iterator.call(source)
  }
  throw new TypeError('Expected the work of a stream to return an iterable of chunks, as a generator does')
}

/** Pulls chunks from the iterable that a work returns, one at a time. {@link stop} ends it at any await. */
export class ChunkSource {
  /** Rejects the current await. */
  #reject: ((reason: unknown) => void) | undefined
  #iterator: ChunkIterator | undefined
  #stopped: { reason: unknown } | undefined

  /**
   * Calls `each` for every chunk and awaits what it returns. Resolves at the end of the iterable. Rejects when the work
   * fails, or with the reason of {@link stop}.
   */
  async drain(
    open: () => StreamSource<unknown> | PromiseLike<StreamSource<unknown>>,
    each: (chunk: unknown) => Promise<void> | undefined,
  ): Promise<void> {
    const source = await this.#unlessStopped(Promise.resolve(open()))
    this.#iterator = iteratorOf(source)
    for (;;) {
      const { done, value } = await this.#unlessStopped(Promise.resolve(this.#iterator.next()))
      if (done) return
      // A synchronous iterable may still yield promises.
      const backpressure = each(isThenable(value) ? await this.#unlessStopped(Promise.resolve(value)) : value)
      if (backpressure) await this.#unlessStopped(backpressure)
    }
  }

  /** The same promise, rejected early by {@link stop}. Promise.race with one lasting promise would leak a reaction per chunk. */
  #unlessStopped<T>(promise: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      this.#reject = reject
      promise.then(resolve, reject)
      if (this.#stopped) reject(this.#stopped.reason)
    })
  }

  /** Rejects {@link drain} and asks the generator to return. Ignores how the generator answers. */
  stop(reason: unknown): void {
    if (this.#stopped) return
    this.#stopped = { reason }
    this.#reject?.(reason)
    this.#returnIterator()
  }

  #returnIterator(): void {
    try {
      Promise.resolve(this.#iterator?.return?.()).catch(() => {})
    } catch {
      // The work has ended for us; an error from `return` has no reader.
    }
  }
}

function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof (value as { then?: unknown } | null | undefined)?.then === 'function'
}
