import {
  AbortedError,
  ClosedError,
  LockTimeoutError,
  StreamInterruptedError,
  TimeoutError,
} from '../../../errors.ts'
import { decodeWith } from '../../../kernel/codec/codec.ts'
import { assertTransition, type Transitions } from '../../../kernel/collections.ts'
import { shown } from '../../../kernel/options.ts'
import type { Timer } from '../../../kernel/time.ts'
import { onAbort } from '../../../kernel/waiter.ts'
import type { WaitNode } from '../../../kernel/work-scheduler.ts'
import { errorFor } from '../../flight/waiter-set.ts'
import type { LogViews } from '../log/log-view.ts'
import type { FollowedChunk, ResolvedFollowOptions, StreamHost } from '../options.ts'
import { isShared, type StreamRecord } from '../stream-record.ts'
import { Cursor, type CursorFailure, END } from './cursor.ts'
import type { Reader } from './reader.ts'
import { StreamWatch, type Watched } from './stream-watch.ts'

type State =
  | { readonly kind: 'idle' }
  /** No log is known. `vacant`: nobody produces, as far as is known. */
  | { readonly kind: 'locating'; readonly vacant: boolean }
  | { readonly kind: 'reading'; readonly cursor: Cursor; readonly fence: number }
  /** `take` throws. */
  | { readonly kind: 'failing'; readonly error: Error }
  | { readonly kind: 'done' }

/**
 * | from              | event                                                                  | to       |
 * | ----------------- | ---------------------------------------------------------------------- | -------- |
 * | idle              | `start`                                                                | locating |
 * | locating          | the record names a log                                                 | reading  |
 * | locating          | nobody produces                                                        | locating |
 * | locating          | nobody has produced until the end of `wait`                            | failing  |
 * | reading           | the producer is lost; the reader has received nothing, and began at 0  | locating |
 * | reading           | the producer is lost or replaced, or the next chunk was trimmed        | failing  |
 * | locating, reading | another production than the one to resume; timeout, abort, close       | failing  |
 * | reading           | the end of the stream was delivered                                    | done     |
 * | failing           | the error was thrown                                                   | done     |
 * | any but done      | `finish`                                                               | done     |
 */
const TRANSITIONS: Transitions<State['kind']> = {
  idle: ['locating', 'failing', 'done'],
  locating: ['locating', 'reading', 'failing', 'done'],
  reading: ['locating', 'failing', 'done'],
  failing: ['done'],
  done: [],
}

/** What followers use of the streams of their locker. */
export interface FollowerDeps {
  readonly host: StreamHost
  readonly views: LogViews
  /** Those that have started and have not ended: each adds and removes itself. */
  readonly readers: Set<{ close(): void }>
}

/** The state of one caller of `follow`: reads a stream that others produce, and never produces it. */
export class StreamFollower implements Reader {
  readonly #deps: FollowerDeps
  readonly #key: string
  readonly #options: ResolvedFollowOptions
  readonly #onChange: () => void
  #state: State = { kind: 'idle' }
  #watch: StreamWatch | undefined
  /** Number of the next chunk to deliver. */
  #next: number
  /** The production whose chunks were delivered, or are to be resumed. Undefined: any. */
  #fence: number | undefined
  /** Highest fence of a log that was left: it is not read again. */
  #afterFence = 0
  #waitTimer: Timer | undefined
  #waitIsOver = false
  /** Removes the listener from the caller's signal. */
  #unlisten: (() => void) | undefined

  /** Calls `onChange` when {@link take} may have a result. */
  constructor(deps: FollowerDeps, key: string, options: ResolvedFollowOptions, onChange: () => void) {
    this.#deps = deps
    this.#key = key
    this.#options = options
    this.#onChange = onChange
    this.#next = options.from
    this.#fence = options.fence
  }

  #enter(state: State): void {
    assertTransition('stream follower', TRANSITIONS, this.#state.kind, state.kind)
    this.#state = state
    this.#onChange()
  }

  start(): void {
    if (this.#state.kind !== 'idle') return
    this.#deps.readers.add(this)
    const { signal } = this.#options
    if (signal?.aborted) return this.#onAbort()
    this.#unlisten = signal && onAbort(signal, this.#onAbort)
    this.#enter({ kind: 'locating', vacant: false })
    this.#awaitProducer()
    this.#watch = new StreamWatch(this.#deps.host.space, this.#key, (watched) => this.#onWatched(watched))
  }

  /** Whether the stream was found, and it is known whether it has a next chunk. Throws the error that ends the reader. */
  get isLocated(): boolean {
    const state = this.#state
    if (state.kind === 'failing') throw this.#thrown(state.error)
    if (state.kind === 'reading' && !state.cursor.isCaughtUp) {
      state.cursor.readAhead()
      return false
    }
    return state.kind === 'reading' || state.kind === 'done'
  }

  take(): IteratorResult<FollowedChunk<unknown>, undefined> | undefined {
    const state = this.#state
    if (state.kind === 'done') return END
    if (state.kind === 'failing') throw this.#thrown(state.error)
    if (state.kind !== 'reading') return undefined
    const { cursor, fence } = state
    const chunk = cursor.take()
    if (chunk) return this.#deliver(chunk, fence)
    if (cursor.atEnd) return this.#end(cursor)
    cursor.readAhead()
    return undefined
  }

  #thrown(error: Error): Error {
    this.finish()
    return error
  }

  #deliver(chunk: Buffer, fence: number): IteratorYieldResult<FollowedChunk<unknown>> {
    try {
      const value = decodeWith(this.#deps.host.codec, chunk, this.#key)
      this.#fence = fence
      return { done: false, value: { number: this.#next++, fence, value } }
    } catch (error) {
      throw this.#thrown(error as Error)
    }
  }

  #end(cursor: Cursor): IteratorReturnResult<undefined> {
    this.finish()
    return cursor.end(this.#key)
  }

  get waitNode(): WaitNode | undefined {
    return this.#state.kind === 'reading' ? this.#state.cursor.waitNode : undefined
  }

  /** Nothing of a production was received yet: that of another producer will do. */
  get #canRestart(): boolean {
    return this.#next === 0 && this.#fence === undefined
  }

  #awaitProducer(): void {
    const { wait } = this.#options
    this.#waitTimer?.cancel()
    this.#waitIsOver = wait === 0
    if (wait === 0 || wait === Number.POSITIVE_INFINITY) return
    this.#waitTimer = this.#deps.host.clock.after(wait, () => {
      this.#waitIsOver = true
      this.#failIfVacant()
    })
  }

  #failIfVacant(): void {
    if (!this.#waitIsOver || this.#state.kind !== 'locating' || !this.#state.vacant) return
    const { wait } = this.#options
    this.fail(
      new TimeoutError(`Nobody has produced ${shown(this.#key)} within ${wait} ms`, { key: this.#key }),
    )
  }

  #onWatched(watched: Watched): void {
    switch (watched.kind) {
      case 'running':
        return this.#onRunning(watched.record)
      case 'held':
        if (this.#state.kind === 'locating') this.#enter({ kind: 'locating', vacant: false })
        return
      case 'vacant':
        return this.#onVacant()
      case 'completed':
        return this.#onCompleted(watched.record)
      case 'failed':
        return this.#onLost(watched.error)
    }
  }

  /** A log that was trimmed can be read from where it begins now. */
  #onRunning({ log }: StreamRecord): void {
    if (this.#reads(log) || !isShared(log) || Number(log) <= this.#afterFence) return
    if (this.#leave('The producer was replaced')) this.#read(log)
  }

  #onVacant(): void {
    if (this.#state.kind === 'reading' && !this.#leave('The producer died')) return
    if (this.#state.kind !== 'locating') return
    // The production that was to be resumed is gone.
    if (this.#fence !== undefined) return this.fail(this.#interrupted('Nobody produces the stream'))
    this.#enter({ kind: 'locating', vacant: true })
    this.#failIfVacant()
  }

  #onCompleted({ log, end }: StreamRecord): void {
    if (!end || !isShared(log)) return this.fail(this.#interrupted('The record is not that of a stream'))
    if (!this.#reads(log)) {
      if (!this.#leave('The producer was replaced')) return
      this.#read(log)
    }
    if (this.#state.kind !== 'reading') return
    if (this.#next > end.count) this.fail(this.#interrupted(`The stream has ${end.count} chunks`))
    else this.#state.cursor.view.finish(end)
  }

  /** The producer is lost, or the record cannot be read. */
  #onLost(error: Error): void {
    if (this.#isComplete()) return
    const died = error instanceof LockTimeoutError && !this.#canRestart
    this.fail(died ? this.#interrupted('The producer died', error) : error)
  }

  #reads(log: string): boolean {
    return this.#state.kind === 'reading' && this.#state.cursor.log === log
  }

  #isComplete(): boolean {
    return this.#state.kind === 'reading' && this.#state.cursor.isComplete
  }

  #interrupted(why: string, cause?: unknown): StreamInterruptedError {
    return new StreamInterruptedError(`${why}, before chunk ${this.#next}`, { key: this.#key, cause })
  }

  /** Leaves the log that it reads, whose producer is lost. Fails and returns false if chunks of it were delivered. */
  #leave(why: string): boolean {
    if (this.#state.kind !== 'reading') return true
    if (this.#isComplete()) return false
    if (!this.#canRestart) {
      this.fail(this.#interrupted(why))
      return false
    }
    this.#leaveLog()
    return true
  }

  #leaveLog(): void {
    if (this.#state.kind !== 'reading') return
    const { cursor, fence } = this.#state
    this.#afterFence = Math.max(this.#afterFence, fence)
    cursor.close()
    this.#enter({ kind: 'locating', vacant: false })
    this.#awaitProducer()
  }

  #read(log: string): void {
    const fence = Number(log)
    if (this.#fence !== undefined && this.#fence !== fence)
      return this.fail(this.#interrupted('Another producer has replaced the one to resume'))
    this.#waitTimer?.cancel()
    const view = this.#deps.views.open(this.#key, log, this.#options.lease)
    const cursor = new Cursor(log, view, (failure) => this.#onCursorChange(failure), this.#next)
    this.#enter({ kind: 'reading', cursor, fence })
  }

  #onCursorChange(failure: CursorFailure | undefined): void {
    switch (failure?.kind) {
      case undefined:
        return this.#onChange()
      case 'trimmed':
        return this.fail(this.#interrupted('The next chunk was trimmed (`maxBytes`)'))
      case 'missing':
        // A log that expired, or was discarded by a producer that gave up: the record will tell of another one.
        return this.#canRestart && !this.#isComplete()
          ? this.#leaveLog()
          : this.fail(this.#interrupted('The next chunk is missing from the log'))
      case 'unreadable':
        return this.fail(errorFor(failure.error)(this.#key) as Error)
      case 'interrupted': {
        const { canRestart, error } = failure.interruption
        if (canRestart && this.#canRestart) return this.#leaveLog()
        return this.#onLost(error(this.#key))
      }
    }
  }

  readonly #onAbort = (): void => {
    const { signal } = this.#options
    this.fail(new AbortedError('The reader aborted', { key: this.#key, cause: signal?.reason }))
  }

  /** The locker is closed. */
  close(): void {
    this.fail(new ClosedError('The locker was closed', { key: this.#key }))
  }

  fail(error: Error): void {
    const { kind } = this.#state
    if (kind === 'failing' || kind === 'done') return
    this.#release()
    this.#enter({ kind: 'failing', error })
  }

  finish(): void {
    if (this.#state.kind === 'done') return
    this.#release()
    this.#enter({ kind: 'done' })
  }

  /** Leaves the record, the log, the caller's signal and the set of readers. */
  #release(): void {
    this.#unlisten?.()
    this.#waitTimer?.cancel()
    this.#watch?.stop()
    if (this.#state.kind === 'reading') this.#state.cursor.close()
    this.#deps.readers.delete(this)
  }
}
