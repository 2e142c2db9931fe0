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
import { shown } from '../../../kernel/options.ts'
import { refProcess, unrefProcess } from '../../../kernel/redis/keep-alive.ts'
import type { Timer } from '../../../kernel/time/clock.ts'
import { onAbort } from '../../../kernel/waiting/on-abort.ts'
import { addWait, callingWork, type WorkScope, wouldDeadlock } from '../../flight/deadlock.ts'
import { countUndecodable } from '../../flight/locker-context.ts'
import { errorFor } from '../../flight/waiter-set.ts'
import type { Cut, LogView, ViewReader } from '../log/log-view.ts'
import type { Grant, ReaderDesk, StreamCall } from '../stream-host.ts'
import { isShared, type StreamNote } from '../stream-record.ts'
import { Cursor } from './cursor.ts'
import { Inquiry } from './stream-locator.ts'

const END: IteratorReturnResult<undefined> = { done: true, value: undefined }

/** A complete stream whose log is not there, or cannot be read, is asked for anew so often. */
const MAX_RETRIES = 3

/**
 * One caller of `stream`. Does nothing until it is first asked for a chunk; holds what was read in one go, and no more;
 * asks for more when it is asked. Once it has ended, by whatever way, nothing of it is left.
 */
export class StreamReader<T> implements AsyncIterableIterator<T, undefined>, ViewReader {
  readonly #desk: ReaderDesk
  readonly #call: StreamCall
  readonly #inquiry: Inquiry
  /** Calls of `next` are answered one after another. */
  #turn: Promise<unknown> = Promise.resolve()
  #begun = false
  #ended = false
  /** Thrown when what was read before it has been delivered. */
  #failure: Error | undefined
  #rest: Buffer[] = []
  /** What is read. */
  #cursor: Cursor | undefined
  #delivered = 0
  /** The last grant of which nothing is wanted any more: its log was left. */
  #past = 0
  #retries = 0
  /** The log that was granted to this reader. */
  #produced: string | undefined
  #wake: (() => void) | undefined
  #timer: Timer | undefined

  constructor(desk: ReaderDesk, call: StreamCall) {
    this.#desk = desk
    this.#call = call
    this.#inquiry = new Inquiry(desk.host.space, call.key, call.terms.lease, {
      told: (note) => this.#told(note),
      granted: (lease) => this.#granted(lease),
      complete: (note) => this.#complete(note),
      refused: (error) => this.#refused(error),
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
    const step = this.#turn.then(() => this.#step())
    this.#turn = step.catch(() => {})
    return step
  }

  /** Leaves: the work goes on for the others. */
  async return(): Promise<IteratorResult<T, undefined>> {
    this.#finish()
    return END
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#finish()
  }

  async #step(): Promise<IteratorResult<T, undefined>> {
    this.#begin()
    const { clock } = this.#desk.host.space
    const work = callingWork()
    refProcess(clock)
    try {
      for (;;) {
        const result = this.#result()
        if (result) return result
        this.#startDeadline()
        await this.#change(work)
      }
    } finally {
      unrefProcess(clock)
      this.#timer?.cancel()
      this.#timer = undefined
    }
  }

  /** Resolves when there may be something to say. A work that reads waits for the producer, and lends its slot meanwhile. */
  async #change(work: WorkScope | undefined): Promise<void> {
    const chunk = this.#cursor?.view.producer?.waitFor(this.#cursor.position)
    if (work && chunk && wouldDeadlock(work.node, chunk)) {
      const message = 'The work waits for itself: it reads a stream that waits for it'
      return this.fail(new DeadlockError(message, { key: this.key }))
    }
    const resume = work && (chunk ? addWait(work, chunk) : work.slot.lend())
    await new Promise<void>((wake) => {
      this.#wake = wake
    })
    resume?.()
  }

  #begin(): void {
    if (this.#begun || this.#ended) return
    this.#begun = true
    this.#desk.began(this)
    const { signal } = this.#call.terms
    if (signal?.aborted) return this.#onAbort()
    this.#unlisten = signal && onAbort(signal, this.#onAbort)
    this.#ask()
  }

  #startDeadline(): void {
    const { timeout } = this.#call.terms
    if (this.#timer || timeout === Number.POSITIVE_INFINITY) return
    const expire = () =>
      this.fail(new TimeoutError(`No chunk of ${shown(this.key)} within ${timeout} ms`, { key: this.key }))
    this.#timer = this.#desk.host.space.clock.after(timeout, expire)
  }

  /** What can be said now; undefined when that must be waited for. */
  #result(): IteratorResult<T, undefined> | undefined {
    if (this.#ended) return END
    const cursor = this.#cursor
    const chunk = this.#rest.shift() ?? cursor?.take()
    if (chunk) return this.#deliver(chunk)
    if (this.#failure) {
      this.#finish()
      throw this.#failure
    }
    if (cursor?.atEnd) return this.#conclude(cursor.view)
    cursor?.seek()
    return undefined
  }

  #deliver(chunk: Buffer): IteratorResult<T, undefined> | undefined {
    try {
      const value = decodeWith(this.#desk.host.codec, chunk, this.key) as T
      this.#delivered++
      return { done: false, value }
    } catch (error) {
      if (this.#startOver()) return this.#result()
      this.#finish()
      throw error
    }
  }

  /**
   * Another codec wrote what would be delivered first. A complete stream is then produced anew in its place; beside one
   * that is still produced this process produces its own. False when it was produced for this reader already.
   */
  #startOver(): boolean {
    const cursor = this.#cursor
    if (!cursor || this.#delivered > 0 || !isShared(cursor.log) || cursor.log === this.#produced) return false
    countUndecodable(this.#desk.host.counters, this.key, Number(cursor.log))
    if (!cursor.view.end || ++this.#retries > MAX_RETRIES) {
      this.#goAlone()
      return true
    }
    this.#leaveLog()
    this.#inquiry.stop()
    this.#ask()
    return true
  }

  #conclude({ end, original }: LogView): IteratorResult<T, undefined> {
    this.#finish()
    if (end?.failure) throw remoteError(end.failure, this.key, original)
    return END
  }

  #ask(): void {
    this.#inquiry.ask(this.#past, this.#call.terms.onUnavailable)
  }

  #told({ log, open }: StreamNote): void {
    if (log === this.#cursor?.log) return
    // Nothing will come of it, as is known here already: its successor will be told.
    if (this.#desk.isDead(this.#call, log) || (isShared(log) && Number(log) <= this.#past)) return
    if (!this.#moveOn()) return
    if (open) this.#follow(log, this.#desk.view(this.#call, log))
    else this.#goAlone()
  }

  #granted(lease: Grant): void {
    const complete = this.#cursor?.view.end && this.#delivered > 0
    if (complete || !this.#moveOn()) return void lease.release().catch(() => {})
    const { log, view } = this.#desk.produce(this.#call, lease)
    this.#produced = log
    this.#follow(log, view)
  }

  #complete({ log, open, end }: StreamNote): void {
    if (!end) return this.fail(this.#interrupted('The record is not that of a stream'))
    if (log !== this.#cursor?.log) {
      if (!this.#moveOn()) return
      // Only those who read already can go on with what has no beginning.
      if (!open) return this.#ask()
      this.#follow(log, this.#desk.view(this.#call, log))
    }
    this.#cursor?.view.finish(end)
    this.wake()
  }

  #refused(error: Error): void {
    if (this.#cursor?.view.end) return
    const died = error instanceof LockTimeoutError && this.#delivered > 0
    this.fail(died ? this.#interrupted('The producer died', error) : error)
  }

  #interrupted(why: string, cause?: unknown): StreamInterruptedError {
    return new StreamInterruptedError(`${why}, after ${this.#delivered} chunks`, { key: this.key, cause })
  }

  /** Leaves the log that was read for another. False when it is too late for that: something was delivered of it. */
  #moveOn(): boolean {
    const view = this.#leaveLog()
    if (!view) return true
    // Nobody here will read to its end.
    const cut: Cut = {
      restart: true,
      error: (key) => new StreamInterruptedError('The producer died', { key }),
    }
    if (!view.end) view.interrupt(cut)
    if (this.#delivered === 0) return true
    this.fail(this.#interrupted('The producer died'))
    return false
  }

  #follow(log: string, view: LogView): void {
    this.#cursor = new Cursor(log, view, {
      wake: () => this.wake(),
      trimmed: () => this.#trimmed(),
      lost: () => this.#lost(),
      unread: (error) => this.#unread(error),
    })
    view.join(this)
    this.wake()
  }

  #leaveLog(): LogView | undefined {
    const cursor = this.#cursor
    this.#cursor = undefined
    if (!cursor) return undefined
    if (isShared(cursor.log)) this.#past = Math.max(this.#past, Number(cursor.log))
    if (this.#delivered > 0) this.#rest.push(...cursor.rest())
    cursor.leave()
    cursor.view.leave(this)
    return cursor.view
  }

  /** There is no beginning left of what is produced: this caller has it produced once more. */
  #goAlone(): void {
    this.#leaveLog()
    this.#inquiry.stop()
    const { log, view } = this.#desk.goAlone(this.#call)
    this.#follow(log, view)
  }

  #trimmed(): void {
    if (this.#delivered === 0) this.#goAlone()
    else this.fail(this.#interrupted('Further behind than what is kept (`maxBytes`)'))
  }

  /** The chunks are not there any more, although the record says that they are. */
  #lost(): void {
    if (this.#delivered > 0 || ++this.#retries > MAX_RETRIES)
      return this.fail(this.#interrupted('What followed is not kept any more'))
    this.#leaveLog()
    this.#inquiry.stop()
    this.#ask()
  }

  #unread(error: unknown): void {
    const local = error instanceof UnavailableError && this.#call.terms.onUnavailable === 'local'
    if (local && this.#delivered === 0) this.#goAlone()
    else this.fail(errorFor(error)(this.key) as Error)
  }

  cut(cut: Cut): void {
    if (this.#delivered > 0 || !cut.restart) return this.#refused(cut.error(this.key))
    this.#leaveLog()
    if (!this.#inquiry.pending) this.#ask()
  }

  /** Stops listening to the caller's signal. */
  #unlisten: (() => void) | undefined

  readonly #onAbort = (): void => {
    const { signal } = this.#call.terms
    this.fail(new AbortedError('The reader aborted', { key: this.key, cause: signal?.reason }))
    this.#rest = []
  }

  /** The locker is closed. What is at hand to the end of a complete stream is still delivered. */
  close(error: Error): void {
    const cursor = this.#cursor
    this.#rest.push(...(cursor?.rest() ?? []))
    if (!cursor?.atEnd) this.fail(error)
  }

  /** Ends it with this error, once what was read before has been delivered. */
  fail(error: Error): void {
    if (this.#ended || this.#failure) return
    this.#failure = error
    this.#leave()
    this.wake()
  }

  wake(): void {
    const wake = this.#wake
    this.#wake = undefined
    wake?.()
  }

  #finish(): void {
    if (this.#ended) return
    this.#ended = true
    this.#leave()
    this.#rest = []
    this.wake()
  }

  /** Gives up its places: at the record, at the log, and with its signal. */
  #leave(): void {
    this.#unlisten?.()
    this.#inquiry.stop()
    this.#leaveLog()
    this.#desk.ended(this)
  }
}
