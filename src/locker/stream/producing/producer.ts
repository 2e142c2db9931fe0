import {
  AbortedError,
  ClosedError,
  LeaseLostError,
  LockTimeoutError,
  OverloadedError,
  StreamInterruptedError,
  UnavailableError,
} from '../../../errors.ts'
import { encodeWith } from '../../../kernel/codec/codec.ts'
import { encodeFailure, exposedFailure } from '../../../kernel/codec/failure.ts'
import type { Timer } from '../../../kernel/event-loop.ts'
import { checkDuration } from '../../../kernel/options.ts'
import { assertTransition, type Transitions } from '../../../kernel/transitions.ts'
import type { Slot } from '../../../kernel/work-scheduler.ts'
import { runInScope, type WaitNode } from '../../flight/deadlock.ts'
import { LOG_GRACE } from '../log/log-store.ts'
import type { Interruption, LogProducer, LogView } from '../log/log-view.ts'
import type { StreamContext } from '../options.ts'
import type { StreamCall, StreamGrant, StreamHost } from '../stream-host.ts'
import type { StreamEnd, StreamRecord } from '../stream-record.ts'
import { ChunkSource } from './chunk-source.ts'
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
 * | scheduled, producing, publishing | lease lost, log lost, Redis away, locker closed, or no reader left  | stopped    |
 * | finished, stopped                | the grant is released, the view left                                | released   |
 */
const TRANSITIONS: Transitions<State['kind']> = {
  scheduled: ['producing', 'stopped'],
  producing: ['publishing', 'stopped'],
  publishing: ['finished', 'stopped'],
  finished: ['released'],
  stopped: ['released'],
  released: [],
}

/** After the last reader of this process has left, the check for other followers runs after this time, ms. */
const UNWANTED_CHECK_DELAY = 100

/** The log is retained at this interval, in case the work yields nothing for longer than its grace, ms. */
const RETAIN_INTERVAL = LOG_GRACE / 2

/**
 * Produces one stream under one grant: runs the work, writes its chunks into the log, and publishes the end to the record.
 * Releases the grant in the end, also when it was stopped.
 */
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
      onLost: (cause) => this.stop(toInterruptingError(cause, call.key)),
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
      this.stop(toInterruptingError(error, this.#call.key))
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
        this.#ttl = checkDuration('ttl', ms)
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
      if (!unshared) this.stop(toInterruptingError(cause, key))
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
    this.view.interrupt(this.#interruptionFor(reason))
  }

  /** The `finally` blocks of a generator run in the async context of the call. */
  #stopWork(reason: unknown): void {
    this.#call.context.run(() => this.#source.stop(reason))
  }

  #interruptionFor(reason: Error): Interruption {
    if (reason instanceof ClosedError)
      return { canRestart: false, error: (key) => new ClosedError('The locker was closed', { key }) }
    if (reason instanceof UnavailableError) {
      const { message, cause } = reason
      const canRestart = this.#call.options.onUnavailable === 'local'
      return { canRestart, error: (key) => new UnavailableError(message, { key, cause }) }
    }
    if (reason instanceof OverloadedError)
      return { canRestart: false, error: (key) => new OverloadedError(reason.message, { key }) }
    if (reason instanceof LeaseLostError && !this.#host.takeover) {
      const lost = 'The producer lost its lease, and takeover is off'
      return { canRestart: false, error: (key) => new LockTimeoutError(lost, { key, cause: reason }) }
    }
    const message = 'The producer was stopped'
    return { canRestart: true, error: (key) => new StreamInterruptedError(message, { key, cause: reason }) }
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

  /** Retains the log, and stops if no process reads it and `abortUnwanted` is set. */
  async #check(): Promise<void> {
    this.#scheduleCheck()
    const now = this.#host.clock.now()
    const due = now - this.#retainedAt >= RETAIN_INTERVAL
    // A failure is left to the next check, or to the next append.
    try {
      if (this.#call.options.abortUnwanted && this.view.readers.size === 0) await this.#stopIfUnwanted()
      if (due) await this.#writer.retain(LOG_GRACE)
      if (due) this.#retainedAt = now
    } catch {}
  }

  /** Discards the log unless another process follows it; a later reader then waits for the next producer. */
  async #stopIfUnwanted(): Promise<void> {
    const { view } = this
    if (await view.logs.discard(view.name, false, this.#host.unavailableAfter))
      this.stop(new AbortedError('No reader is left', { key: this.#call.key }))
  }
}

/** The reason of `stop` for a failure of the log or of the record. */
function toInterruptingError(cause: unknown, key: string): Error {
  const known = [UnavailableError, ClosedError, OverloadedError].some((kind) => cause instanceof kind)
  if (known) return cause as Error
  return new StreamInterruptedError('The log of the stream cannot be written', { key, cause })
}
