import {
  AbortedError,
  ClosedError,
  LockTimeoutError,
  StreamInterruptedError,
  UnavailableError,
} from '../../../errors.ts'
import { decodeWith } from '../../../kernel/codec/codec.ts'
import { assertTransition, type Transitions } from '../../../kernel/collections.ts'
import { onAbort } from '../../../kernel/waiter.ts'
import type { WaitNode } from '../../../kernel/work-scheduler.ts'
import { errorFor } from '../../flight/waiter-set.ts'
import { countUndecodable } from '../../locker-context.ts'
import type { LogView, LogViews } from '../log/log-view.ts'
import type { StreamCall, StreamHost } from '../options.ts'
import type { Producer } from '../producing/producer.ts'
import { isShared, type StreamGrant, type StreamRecord } from '../stream-record.ts'
import { Cursor, type CursorFailure, END } from './cursor.ts'
import type { Reader } from './reader.ts'
import { type Located, StreamLocator } from './stream-locator.ts'

type State =
  | { readonly kind: 'idle' }
  /** The log is not known: a request for the record is under way. */
  | { readonly kind: 'locating' }
  /** The request goes on until the record has an end. `own`: the work of this reader produces the log. */
  | { readonly kind: 'reading'; readonly cursor: Cursor; readonly own: boolean }
  /** `take` returns these chunks, and then throws. */
  | { readonly kind: 'failing'; readonly error: Error; readonly chunks: Buffer[] }
  | { readonly kind: 'done' }

/**
 * | from              | event                                                             | to       |
 * | ----------------- | ----------------------------------------------------------------- | -------- |
 * | idle              | `start`                                                           | locating |
 * | idle              | `start`, after the signal has aborted                             | failing  |
 * | locating          | the record names a log, or this process starts to produce         | reading  |
 * | reading           | the log is lost, replaced or undecodable, and no chunk delivered  | locating |
 * | locating, reading | timeout, abort, close, deadlock, an error of the store            | failing  |
 * | reading           | the log is lost or replaced, after chunks were delivered          | failing  |
 * | reading           | the end of the stream was delivered                               | done     |
 * | failing           | the error was thrown                                              | done     |
 * | any but done      | `finish`                                                          | done     |
 */
const TRANSITIONS: Transitions<State['kind']> = {
  idle: ['locating', 'failing', 'done'],
  locating: ['reading', 'failing', 'done'],
  reading: ['locating', 'failing', 'done'],
  failing: ['done'],
  done: [],
}

const IDLE: State = { kind: 'idle' }
const LOCATING: State = { kind: 'locating' }
const DONE: State = { kind: 'done' }

/** A reader locates the stream once more so often when a complete log is missing, or its chunks cannot be decoded. */
const MAX_RETRIES = 3

/** What readers use of the streams of their locker. */
export interface ReaderDeps {
  readonly host: StreamHost
  readonly views: LogViews
  /** The readers that have started and have not ended: each adds and removes itself. */
  readonly readers: Set<{ close(): void }>
  /** Starts to produce under a grant, or unshared without one. May return a producer that runs already. */
  produce(call: StreamCall, grant?: StreamGrant): Producer
}

/**
 * The state of one caller of `stream`. It buffers the chunks of one read, and reads further only when a chunk is taken.
 * After it has ended it holds no resources.
 */
export class StreamReader implements Reader {
  readonly #deps: ReaderDeps
  readonly #call: StreamCall
  readonly #onChange: () => void
  readonly #locator: StreamLocator
  #state: State = IDLE
  /** Number of chunks that were taken. */
  #delivered = 0
  /** Highest fence of a log that the reader has left: results of grants up to it are ignored. */
  #afterFence = 0
  #retries = 0
  /** Removes the listener from the caller's signal. */
  #unlisten: (() => void) | undefined

  /** Calls `onChange` when {@link take} may have a result. */
  constructor(deps: ReaderDeps, call: StreamCall, onChange: () => void) {
    this.#deps = deps
    this.#call = call
    this.#onChange = onChange
    const { key, options } = call
    this.#locator = new StreamLocator(deps.host.space, key, options.lease, (found) => this.#onLocated(found))
  }

  #enter(state: State): void {
    assertTransition('stream reader', TRANSITIONS, this.#state.kind, state.kind)
    this.#state = state
    this.#onChange()
  }

  /** Starts to read, the first time that it is called. */
  start(): void {
    if (this.#state.kind !== 'idle') return
    this.#deps.readers.add(this)
    const { signal } = this.#call.options
    if (signal?.aborted) return this.#onAbort()
    this.#unlisten = signal && onAbort(signal, this.#onAbort)
    this.#locate()
  }

  /** The next chunk or the end; undefined when the reader must wait for it. Throws the error that ends the stream. */
  take(): IteratorResult<unknown, undefined> | undefined {
    const state = this.#state
    if (state.kind === 'done') return END
    if (state.kind === 'failing') {
      const chunk = state.chunks.shift()
      if (chunk) return this.#deliver(chunk)
      this.finish()
      throw state.error
    }
    if (state.kind !== 'reading') return undefined
    const chunk = state.cursor.take()
    if (chunk) return this.#deliver(chunk)
    if (state.cursor.atEnd) return this.#end(state.cursor)
    state.cursor.readAhead()
    return undefined
  }

  #deliver(chunk: Buffer): IteratorResult<unknown, undefined> | undefined {
    try {
      const value = decodeWith(this.#deps.host.codec, chunk, this.#call.key)
      this.#delivered++
      return { done: false, value }
    } catch (error) {
      if (this.#replaceUndecodable()) return this.take()
      this.finish()
      throw error
    }
  }

  #end(cursor: Cursor): IteratorResult<unknown, undefined> {
    this.finish()
    return cursor.end(this.#call.key)
  }

  /** The wait-for edge of this reader, while it waits for a producer in this process. */
  get waitNode(): WaitNode | undefined {
    return this.#state.kind === 'reading' ? this.#state.cursor.waitNode : undefined
  }

  /**
   * The first chunk cannot be decoded: another codec encoded it. A complete stream is produced once more in its place;
   * while it is still being produced, this process runs an unshared work. Returns false when neither would help: chunks
   * were delivered, or the codec of this process encoded it.
   */
  #replaceUndecodable(): boolean {
    const state = this.#state
    if (state.kind !== 'reading' || state.own || this.#delivered > 0) return false
    const { log, view } = state.cursor
    if (!isShared(log)) return false
    countUndecodable(this.#deps.host.counters, this.#call.key, Number(log))
    if (view.state.kind !== 'finished' || ++this.#retries > MAX_RETRIES) this.#produceUnshared()
    else this.#relocate()
    return true
  }

  /** Leaves the log, if it reads one, and locates the stream. */
  #relocate(): void {
    this.#leaveLog()
    this.#locate()
  }

  #locate(): void {
    if (this.#state.kind !== 'locating') this.#enter(LOCATING)
    this.#locator.locate(this.#afterFence, this.#call.options.onUnavailable)
  }

  #onLocated(located: Located): void {
    switch (located.kind) {
      case 'running':
        return this.#onRunning(located.record)
      case 'granted':
        return this.#onGranted(located.grant)
      case 'completed':
        return this.#onCompleted(located.record)
      case 'failed':
        return this.#onLost(located.error)
    }
  }

  #onRunning({ log, open }: StreamRecord): void {
    if (this.#reads(log)) return
    const view = this.#deps.views.find(this.#call.key, log)
    // The successor of a log that was interrupted or left will be announced.
    if (view?.state.kind === 'interrupted' || (isShared(log) && Number(log) <= this.#afterFence)) return
    if (!this.#switchLog()) return
    if (open) this.#read(log)
    else this.#produceUnshared()
  }

  #onGranted(grant: StreamGrant): void {
    const isComplete = this.#delivered > 0 && this.#isComplete()
    if (isComplete || !this.#switchLog()) return void grant.release().catch(() => {})
    this.#produce(grant)
  }

  #onCompleted({ log, open, end }: StreamRecord): void {
    if (!end) return this.fail(this.#interrupted('The record is not that of a stream'))
    if (!this.#reads(log)) {
      if (!this.#switchLog()) return
      // The log was trimmed: only a reader that follows it already can read it.
      if (!open) return this.#locate()
      this.#read(log)
    }
    if (this.#state.kind === 'reading') this.#state.cursor.view.finish(end)
  }

  /** The producer is lost, or the record cannot be read. */
  #onLost(error: Error): void {
    if (this.#isComplete()) return
    const died = error instanceof LockTimeoutError && this.#delivered > 0
    this.fail(died ? this.#interrupted('The producer died', error) : error)
  }

  #reads(log: string): boolean {
    return this.#state.kind === 'reading' && this.#state.cursor.log === log
  }

  #isComplete(): boolean {
    return this.#state.kind === 'reading' && this.#state.cursor.isComplete
  }

  #interrupted(why: string, cause?: unknown): StreamInterruptedError {
    const { key } = this.#call
    return new StreamInterruptedError(`${why}, after ${this.#delivered} chunks`, { key, cause })
  }

  /** Leaves the current log for another one. Fails the reader and returns false if chunks of it were delivered. */
  #switchLog(): boolean {
    if (this.#state.kind !== 'reading') return true
    const { view } = this.#state.cursor
    if (this.#delivered > 0) this.fail(this.#interrupted('The producer died'))
    else this.#leaveLog()
    // Another grant has replaced its producer. This interrupts the other readers of this process as well.
    const error = (key: string) => new StreamInterruptedError('The producer died', { key })
    view.interrupt({ canRestart: true, error })
    return this.#delivered === 0
  }

  #read(log: string): void {
    const { key, options } = this.#call
    this.#enterReading(log, this.#deps.views.open(key, log, options.lease), false)
  }

  #produce(grant?: StreamGrant): void {
    const { log, view } = this.#deps.produce(this.#call, grant)
    this.#enterReading(log, view, true)
  }

  /** Runs an unshared work: the shared log cannot be joined, or Redis is unavailable. */
  #produceUnshared(): void {
    this.#leaveLog()
    this.#locator.stop()
    this.#produce()
  }

  #enterReading(log: string, view: LogView, own: boolean): void {
    const cursor = new Cursor(log, view, (failure) => this.#onCursorChange(failure))
    if (this.#state.kind === 'locating') this.#enter({ kind: 'reading', cursor, own })
    // The work of this reader has begun, and ended it: it aborted its signal, say.
    else cursor.close()
  }

  #onCursorChange(failure: CursorFailure | undefined): void {
    const restarts = this.#delivered === 0
    switch (failure?.kind) {
      case undefined:
        return this.#onChange()
      case 'trimmed':
        if (restarts) return this.#produceUnshared()
        return this.fail(this.#interrupted('The next chunk was trimmed (`maxBytes`)'))
      case 'missing':
        if (restarts && ++this.#retries <= MAX_RETRIES) return this.#relocate()
        return this.fail(this.#interrupted('The next chunk is missing from the log'))
      case 'unreadable': {
        const { key, options } = this.#call
        const unavailable = failure.error instanceof UnavailableError
        if (restarts && unavailable && options.onUnavailable === 'local') return this.#produceUnshared()
        return this.fail(errorFor(failure.error)(key) as Error)
      }
      case 'interrupted': {
        const { canRestart, error } = failure.interruption
        if (!restarts || !canRestart) return this.#onLost(error(this.#call.key))
        return this.#locator.pending ? this.#leaveLog() : this.#relocate()
      }
    }
  }

  readonly #onAbort = (): void => {
    const { key, options } = this.#call
    this.fail(new AbortedError('The reader aborted', { key, cause: options.signal?.reason }), [])
  }

  /** The locker is closed. A complete stream whose rest is buffered is still delivered. */
  close(): void {
    const cursor = this.#state.kind === 'reading' ? this.#state.cursor : undefined
    if (cursor?.bufferRest()) return
    this.fail(new ClosedError('The locker was closed', { key: this.#call.key }), cursor?.takeBuffered())
  }

  /** Throws `error` after `chunks`: by default those that were read, unless none was delivered before. */
  fail(error: Error, chunks?: Buffer[]): void {
    const state = this.#state
    if (state.kind === 'failing' || state.kind === 'done') return
    const read = state.kind === 'reading' && this.#delivered > 0 ? state.cursor.takeBuffered() : []
    this.#release()
    this.#enter({ kind: 'failing', error, chunks: chunks ?? read })
  }

  /** Ends the reader without an error. */
  finish(): void {
    if (this.#state.kind === 'done') return
    this.#release()
    this.#enter(DONE)
  }

  /** Leaves the record, the log, the caller's signal and the set of readers. */
  #release(): void {
    this.#unlisten?.()
    this.#locator.stop()
    this.#leaveLog()
    this.#deps.readers.delete(this)
  }

  #leaveLog(): void {
    if (this.#state.kind !== 'reading') return
    const { cursor } = this.#state
    if (isShared(cursor.log)) this.#afterFence = Math.max(this.#afterFence, Number(cursor.log))
    cursor.close()
    this.#enter(LOCATING)
  }
}
