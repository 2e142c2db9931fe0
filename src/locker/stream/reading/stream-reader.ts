import {
  AbortedError,
  DeadlockError,
  LockTimeoutError,
  StreamInterruptedError,
  TimeoutError,
  UnavailableError,
} from '../../../errors.ts'
import { decodeWith } from '../../../kernel/codec/codec.ts'
import { remoteError } from '../../../kernel/codec/failure.ts'
import type { Timer } from '../../../kernel/event-loop.ts'
import { refProcess, unrefProcess } from '../../../kernel/event-loop.ts'
import { shown } from '../../../kernel/options.ts'
import { onAbort } from '../../../kernel/waiter.ts'
import { addWait, callingWork, type WorkScope, wouldDeadlock } from '../../flight/deadlock.ts'
import { countUndecodable } from '../../flight/locker-context.ts'
import { errorFor } from '../../flight/waiter-set.ts'
import type { Interruption, LogView, ViewReader } from '../log/log-view.ts'
import type { StreamCall, StreamGrant, StreamRegistry } from '../stream-host.ts'
import { isShared, type StreamRecord } from '../stream-record.ts'
import { Cursor } from './cursor.ts'
import { StreamLocator } from './stream-locator.ts'

const END: IteratorReturnResult<undefined> = { done: true, value: undefined }

/** A reader locates the stream once more so often when a complete log is missing, or its chunks cannot be decoded. */
const MAX_RETRIES = 3

/**
 * One caller of `stream`. It starts with the first `next`, buffers the chunks of one read, and reads further only when
 * `next` asks for a chunk. After it has ended it holds no resources.
 */
export class StreamReader<T> implements AsyncIterableIterator<T, undefined>, ViewReader {
  readonly #streams: StreamRegistry
  readonly #call: StreamCall
  readonly #locator: StreamLocator
  /** Settles with the last call of `next`: they are answered in order. */
  #lastStep: Promise<unknown> = Promise.resolve()
  #started = false
  #done = false
  /** Thrown after the chunks in `#undelivered`. */
  #failure: Error | undefined
  /** Chunks of a log that the reader has left. */
  #undelivered: Buffer[] = []
  /** Position in the log that is read. */
  #cursor: Cursor | undefined
  /** Number of chunks that `next` returned. */
  #delivered = 0
  /** Highest fence of a log that the reader has left: results of grants up to it are ignored. */
  #afterFence = 0
  #retries = 0
  /** The log of the last grant to this reader. */
  #producedLog: string | undefined
  #resolveChange: (() => void) | undefined
  #timer: Timer | undefined

  constructor(streams: StreamRegistry, call: StreamCall) {
    this.#streams = streams
    this.#call = call
    this.#locator = new StreamLocator(streams.host.space, call.key, call.options.lease, {
      onRunning: (record) => this.#onRunning(record),
      onGranted: (grant) => this.#onGranted(grant),
      onCompleted: (record) => this.#onCompleted(record),
      onFailed: (error) => this.#onLocateFailed(error),
    })
  }

  get key(): string {
    return this.#call.key
  }

  get position(): number {
    return this.#cursor?.position ?? 0
  }

  [Symbol.asyncIterator](): this {
    return this
  }

  /** The next chunk. */
  next(): Promise<IteratorResult<T, undefined>> {
    const step = this.#lastStep.then(() => this.#step())
    this.#lastStep = step.catch(() => {})
    return step
  }

  /** Ends this reader. The work goes on for the others, unless `abortUnwanted` is set. */
  async return(): Promise<IteratorResult<T, undefined>> {
    this.#finish()
    return END
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#finish()
  }

  async #step(): Promise<IteratorResult<T, undefined>> {
    this.#start()
    const { clock } = this.#streams.host.space
    const work = callingWork()
    refProcess(clock)
    try {
      for (;;) {
        const result = this.#result()
        if (result) return result
        this.#startDeadline()
        await this.#waitForChange(work)
      }
    } finally {
      unrefProcess(clock)
      this.#timer?.cancel()
      this.#timer = undefined
    }
  }

  /** Resolves when there may be a result. A work that reads a stream waits for its producer, and lends its slot meanwhile. */
  async #waitForChange(work: WorkScope | undefined): Promise<void> {
    const producer = this.#cursor?.view.producer?.waitNodeFor(this.#cursor.position)
    if (work && producer && wouldDeadlock(work.node, producer)) {
      const message = 'The work waits for itself: it reads a stream that waits for this work'
      return this.fail(new DeadlockError(message, { key: this.key }))
    }
    const resume = work && (producer ? addWait(work, producer) : work.slot.lend())
    await new Promise<void>((resolve) => {
      this.#resolveChange = resolve
    })
    resume?.()
  }

  #start(): void {
    if (this.#started || this.#done) return
    this.#started = true
    this.#streams.onReaderStarted(this)
    const { signal } = this.#call.options
    if (signal?.aborted) return this.#onAbort()
    this.#unlisten = signal && onAbort(signal, this.#onAbort)
    this.#locate()
  }

  #startDeadline(): void {
    const { timeout } = this.#call.options
    if (this.#timer || timeout === Number.POSITIVE_INFINITY) return
    const expire = () =>
      this.fail(new TimeoutError(`No chunk of ${shown(this.key)} within ${timeout} ms`, { key: this.key }))
    this.#timer = this.#streams.host.space.clock.after(timeout, expire)
  }

  /** The next result; undefined when the reader must wait for it. */
  #result(): IteratorResult<T, undefined> | undefined {
    if (this.#done) return END
    const cursor = this.#cursor
    const chunk = this.#undelivered.shift() ?? cursor?.take()
    if (chunk) return this.#deliver(chunk)
    if (this.#failure) {
      this.#finish()
      throw this.#failure
    }
    if (cursor?.atEnd) return this.#end(cursor.view)
    cursor?.readAhead()
    return undefined
  }

  #deliver(chunk: Buffer): IteratorResult<T, undefined> | undefined {
    try {
      const value = decodeWith(this.#streams.host.codec, chunk, this.key) as T
      this.#delivered++
      return { done: false, value }
    } catch (error) {
      if (this.#replaceUndecodable()) return this.#result()
      this.#finish()
      throw error
    }
  }

  /**
   * The first chunk cannot be decoded: another codec encoded it. A complete stream is produced once more in its place;
   * while it is still being produced, this process runs an unshared work. Returns false when neither would help: chunks
   * were delivered, or the codec of this process encoded it.
   */
  #replaceUndecodable(): boolean {
    const cursor = this.#cursor
    if (!cursor || this.#delivered > 0 || !isShared(cursor.log) || cursor.log === this.#producedLog)
      return false
    countUndecodable(this.#streams.host.counters, this.key, Number(cursor.log))
    if (!cursor.view.end || ++this.#retries > MAX_RETRIES) {
      this.#produceUnshared()
      return true
    }
    this.#leaveLog()
    this.#locator.stop()
    this.#locate()
    return true
  }

  #end({ end, original }: LogView): IteratorResult<T, undefined> {
    this.#finish()
    if (end?.failure) throw remoteError(end.failure, this.key, original)
    return END
  }

  #locate(): void {
    this.#locator.locate(this.#afterFence, this.#call.options.onUnavailable)
  }

  #onRunning({ log, open }: StreamRecord): void {
    if (log === this.#cursor?.log) return
    // The log is known to be interrupted. Its successor will be announced.
    if (this.#streams.isInterrupted(this.#call, log) || (isShared(log) && Number(log) <= this.#afterFence))
      return
    if (!this.#switchLog()) return
    if (open) this.#read(log, this.#streams.openView(this.#call, log))
    else this.#produceUnshared()
  }

  #onGranted(grant: StreamGrant): void {
    const complete = this.#cursor?.view.end && this.#delivered > 0
    if (complete || !this.#switchLog()) return void grant.release().catch(() => {})
    const { log, view } = this.#streams.produce(this.#call, grant)
    this.#producedLog = log
    this.#read(log, view)
  }

  #onCompleted({ log, open, end }: StreamRecord): void {
    if (!end) return this.fail(this.#interrupted('The record is not that of a stream'))
    if (log !== this.#cursor?.log) {
      if (!this.#switchLog()) return
      // The log was trimmed: only a reader that follows it already can read it.
      if (!open) return this.#locate()
      this.#read(log, this.#streams.openView(this.#call, log))
    }
    this.#cursor?.view.finish(end)
    this.onChange()
  }

  #onLocateFailed(error: Error): void {
    if (this.#cursor?.view.end) return
    const died = error instanceof LockTimeoutError && this.#delivered > 0
    this.fail(died ? this.#interrupted('The producer died', error) : error)
  }

  #interrupted(why: string, cause?: unknown): StreamInterruptedError {
    return new StreamInterruptedError(`${why}, after ${this.#delivered} chunks`, { key: this.key, cause })
  }

  /** Leaves the current log for another one. Fails the reader and returns false if chunks of it were delivered. */
  #switchLog(): boolean {
    const view = this.#leaveLog()
    if (!view) return true
    // Another grant has replaced its producer. This interrupts the other readers of this process as well.
    const interruption: Interruption = {
      canRestart: true,
      error: (key) => new StreamInterruptedError('The producer died', { key }),
    }
    if (!view.end) view.interrupt(interruption)
    if (this.#delivered === 0) return true
    this.fail(this.#interrupted('The producer died'))
    return false
  }

  #read(log: string, view: LogView): void {
    this.#cursor = new Cursor(log, view, {
      onChange: () => this.onChange(),
      onTrimmed: () => this.#onTrimmed(),
      onMissing: () => this.#onMissing(),
      onReadFailed: (error) => this.#onReadFailed(error),
    })
    view.join(this)
    this.onChange()
  }

  #leaveLog(): LogView | undefined {
    const cursor = this.#cursor
    this.#cursor = undefined
    if (!cursor) return undefined
    if (isShared(cursor.log)) this.#afterFence = Math.max(this.#afterFence, Number(cursor.log))
    if (this.#delivered > 0) this.#undelivered.push(...cursor.takeBuffered())
    cursor.close()
    cursor.view.leave(this)
    return cursor.view
  }

  /** Runs an unshared work: the shared log cannot be joined, or Redis is away. */
  #produceUnshared(): void {
    this.#leaveLog()
    this.#locator.stop()
    const { log, view } = this.#streams.produceUnshared(this.#call)
    this.#read(log, view)
  }

  #onTrimmed(): void {
    if (this.#delivered === 0) this.#produceUnshared()
    else this.fail(this.#interrupted('The next chunk was trimmed (`maxBytes`)'))
  }

  /** The record names chunks that the log does not have. */
  #onMissing(): void {
    if (this.#delivered > 0 || ++this.#retries > MAX_RETRIES)
      return this.fail(this.#interrupted('The next chunk is missing from the log'))
    this.#leaveLog()
    this.#locator.stop()
    this.#locate()
  }

  #onReadFailed(error: unknown): void {
    const local = error instanceof UnavailableError && this.#call.options.onUnavailable === 'local'
    if (local && this.#delivered === 0) this.#produceUnshared()
    else this.fail(errorFor(error)(this.key) as Error)
  }

  onInterrupted({ canRestart, error }: Interruption): void {
    if (this.#delivered > 0 || !canRestart) return this.#onLocateFailed(error(this.key))
    this.#leaveLog()
    if (!this.#locator.pending) this.#locate()
  }

  /** Removes the listener from the caller's signal. */
  #unlisten: (() => void) | undefined

  readonly #onAbort = (): void => {
    const { signal } = this.#call.options
    this.fail(new AbortedError('The reader aborted', { key: this.key, cause: signal?.reason }))
    this.#undelivered = []
  }

  /** The locker is closed. A complete stream whose rest is buffered is still delivered. */
  close(error: Error): void {
    const cursor = this.#cursor
    this.#undelivered.push(...(cursor?.takeBuffered() ?? []))
    if (!cursor?.atEnd) this.fail(error)
  }

  /** Throws `error` after the chunks that were read already. */
  fail(error: Error): void {
    if (this.#done || this.#failure) return
    this.#failure = error
    this.#releaseAll()
    this.onChange()
  }

  /** Resumes a `next` that waits. */
  onChange(): void {
    const resolve = this.#resolveChange
    this.#resolveChange = undefined
    resolve?.()
  }

  #finish(): void {
    if (this.#done) return
    this.#done = true
    this.#releaseAll()
    this.#undelivered = []
    this.onChange()
  }

  /** Leaves the record, the log and the caller's signal. */
  #releaseAll(): void {
    this.#unlisten?.()
    this.#locator.stop()
    this.#leaveLog()
    this.#streams.onReaderEnded(this)
  }
}
