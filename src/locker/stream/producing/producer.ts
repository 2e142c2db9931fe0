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
import type { Slot } from '../../../kernel/work-scheduler.ts'
import { runInScope, type WaitNode } from '../../flight/deadlock.ts'
import { LOG_GRACE } from '../log/log-store.ts'
import type { Interruption, LocalProducer, LogView } from '../log/log-view.ts'
import type { StreamContext } from '../options.ts'
import type { StreamCall, StreamGrant, StreamHost } from '../stream-host.ts'
import type { StreamEnd, StreamRecord } from '../stream-record.ts'
import { ChunkSource } from './chunk-source.ts'
import { LogWriter } from './log-writer.ts'

/** After the last reader of this process has left, the check for other followers runs after this time, ms. */
const UNWANTED_CHECK_DELAY = 100

/** The log is retained at this interval, in case the work yields nothing for longer than its grace, ms. */
const RETAIN_INTERVAL = LOG_GRACE / 2

/**
 * Produces one stream under one grant: runs the work, writes its chunks into the log, and publishes the end to the record.
 * Releases the grant in the end, also when it was stopped.
 */
export class Producer implements LocalProducer {
  readonly view: LogView
  readonly #host: StreamHost
  readonly #call: StreamCall
  readonly #grant: StreamGrant
  readonly log: string
  readonly #writer: LogWriter
  readonly #source = new ChunkSource()
  readonly #abort = new AbortController()
  readonly #onDone: () => void
  readonly #node: WaitNode
  /** Set by the work with `setTtl`. */
  #ttl: number
  /** The reason of {@link stop}. */
  #stopped: Error | undefined
  /** The end was sent to the record, which may have accepted it even if the reply was lost. */
  #publishAttempted = false
  #done = false
  #retainedAt = 0
  #checkTimer: Timer | undefined

  /** Calls `onDone` after it has released the grant. */
  constructor(
    host: StreamHost,
    call: StreamCall,
    grant: StreamGrant,
    log: string,
    view: LogView,
    onDone: () => void,
  ) {
    this.#host = host
    this.#call = call
    this.#grant = grant
    this.log = log
    this.view = view
    this.#ttl = call.options.ttl
    this.#onDone = onDone
    this.#writer = new LogWriter({
      view,
      maxBytes: call.options.maxBytes,
      unavailableAfter: host.unavailableAfter,
      onTrim: () => this.#announce(false),
      onLost: (cause) => this.stop(toInterruptingError(cause, call.key)),
    })
    this.#node = grant.node ?? { waitsFor: undefined }
    view.attachProducer(this)
    view.onReadersChanged = () => this.#readersChanged()
    grant.signal.addEventListener('abort', this.#onAbort, { once: true })
    host.scheduler.schedule((slot) => void this.#run(slot).finally(() => slot.release()))
  }

  /** Whether a reader may join: the log still has its beginning, and may become complete. */
  get joinable(): boolean {
    return !this.#done && !this.#stopped && !this.#writer.trimmed
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

  /**
   * Releases the grant. Unless it was settled, the next waiter is granted the lease. Discards a log that will never be
   * complete first, so that no reader starts on it.
   */
  async #releaseGrant(): Promise<void> {
    const { name, logs } = this.view
    const { unavailableAfter } = this.#host
    if (this.#stopped && !this.#publishAttempted) logs.discard(name, true, unavailableAfter).catch(() => {})
    await this.#grant.release().catch(() => {})
  }

  readonly #onAbort = (): void => this.stop(this.#grant.signal.reason as Error)

  async #run(slot: Slot): Promise<void> {
    try {
      if (!this.#stopped) await this.#produce(slot)
    } finally {
      await this.#releaseGrant()
      this.#end()
    }
  }

  async #produce(slot: Slot): Promise<void> {
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
    if (!this.#stopped) await this.#settle(failure)
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

  async #settle(failure: { error: unknown } | undefined): Promise<void> {
    const { key, options, context } = this.#call
    const open = !this.#writer.trimmed
    const ttl = open ? (failure ? options.errorTtl : this.#ttl) : 0
    const end: StreamEnd = { count: this.#writer.count }
    if (failure) end.failure = encodeFailure(exposedFailure(this.#host.exposeError, context, failure.error))
    const record: StreamRecord = { log: this.log, open, end }
    try {
      // The log must exist for as long as the record names it, so it is retained first.
      if (ttl > 0 && this.#grant.shared) await this.#writer.retain(ttl + LOG_GRACE)
      this.#publishAttempted = true
      await this.#grant.publish(record, { ttl })
    } catch (cause) {
      // With `local`, the readers of this process still receive the end.
      const unshared = cause instanceof UnavailableError && options.onUnavailable === 'local'
      if (!unshared) this.stop(toInterruptingError(cause, key))
    }
    if (!this.#stopped) this.view.finish(end, failure?.error)
  }

  /** Aborts the work and interrupts the readers of the log. Those that were delivered nothing may locate once more. */
  stop(reason: Error): void {
    if (this.#stopped || this.#done) return
    this.#stopped = reason
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

  #end(): void {
    this.#done = true
    this.#checkTimer?.cancel()
    this.view.onReadersChanged = undefined
    this.#grant.signal.removeEventListener('abort', this.#onAbort)
    this.view.detachProducer()
    this.#onDone()
  }

  #readersChanged(): void {
    this.#writer.onReadersChanged()
    if (this.#call.options.abortUnwanted && this.view.readers.size === 0)
      this.#scheduleCheck(UNWANTED_CHECK_DELAY)
  }

  #scheduleCheck(ms: number = this.#call.options.lease / 3): void {
    if (this.#done || this.#stopped) return
    this.#checkTimer?.cancel()
    this.#checkTimer = this.#host.space.clock.after(ms, () => void this.#check(), true)
  }

  /** Retains the log, and stops if no process reads it and `abortUnwanted` is set. */
  async #check(): Promise<void> {
    this.#scheduleCheck()
    const now = this.#host.space.clock.now()
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
