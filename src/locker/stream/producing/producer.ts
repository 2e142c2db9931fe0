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
import { checkDuration } from '../../../kernel/options.ts'
import type { Timer } from '../../../kernel/time/clock.ts'
import type { Slot } from '../../../kernel/work/work-scheduler.ts'
import { runInScope, type WaitNode } from '../../flight/deadlock.ts'
import { LOG_GRACE } from '../log/log-store.ts'
import type { Cut, LocalProducer, LogView } from '../log/log-view.ts'
import type { StreamContext } from '../options.ts'
import type { Grant, StreamCall, StreamHost } from '../stream-host.ts'
import type { StreamEnd, StreamNote } from '../stream-record.ts'
import { Source } from './chunk-source.ts'
import { LogWriter } from './log-writer.ts'

/** After the last reader of this process has left, those of others are asked for so much later, ms. */
const UNWANTED_AFTER = 100

/** Without anything to write, the log is kept once more after this part of its grace. */
const KEEP_AFTER = LOG_GRACE / 2

/**
 * Produces one stream under one grant: takes chunks out of the work, writes them into the log, and lets the record accept
 * its end. Or is stopped, and lets the grant go.
 */
export class Producer implements LocalProducer {
  readonly view: LogView
  readonly #host: StreamHost
  readonly #call: StreamCall
  readonly #grant: Grant
  readonly log: string
  readonly #writer: LogWriter
  readonly #source = new Source()
  readonly #abort = new AbortController()
  readonly #done: () => void
  readonly #node: WaitNode
  #ttl: number
  /** Why it was stopped. */
  #stopped: Error | undefined
  /** Its end was offered to the record, and may have been accepted. */
  #offered = false
  #over = false
  #keptAt = 0
  #tick: Timer | undefined

  /** `done` is called when it has ended, whatever the way. */
  constructor(
    host: StreamHost,
    call: StreamCall,
    grant: Grant,
    log: string,
    view: LogView,
    done: () => void,
  ) {
    this.#host = host
    this.#call = call
    this.#grant = grant
    this.log = log
    this.view = view
    this.#ttl = call.terms.ttl
    this.#done = done
    this.#writer = new LogWriter({
      view,
      maxBytes: call.terms.maxBytes,
      within: host.unavailableAfter,
      onOverflow: () => this.#tell(false),
      onLost: (cause) => this.stop(lossOf(cause, call.key)),
    })
    this.#node = grant.node ?? { waitsFor: undefined }
    view.own(this)
    view.onChange = () => this.#readersChanged()
    grant.signal.addEventListener('abort', this.#onAbort, { once: true })
    host.scheduler.schedule((slot) => void this.#run(slot).finally(() => slot.release()))
  }

  /** Whether a reader may still begin at the beginning. */
  get open(): boolean {
    return !this.#over && !this.#stopped && !this.#writer.overflown
  }

  waitFor(chunk: number): WaitNode {
    const produced = () => this.#writer.count > chunk
    const waitsFor = new Map([[this.#node, 1]])
    return {
      get waitsFor() {
        return produced() ? undefined : waitsFor
      },
    }
  }

  /** Unless it was settled, the next who waits becomes the producer. Nobody is to begin with what comes to no end. */
  async #letGo(): Promise<void> {
    const { name, logs } = this.view
    const within = this.#host.unavailableAfter
    if (this.#stopped && !this.#offered) logs.forget(name, true, within).catch(() => {})
    await this.#grant.release().catch(() => {})
  }

  readonly #onAbort = (): void => this.stop(this.#grant.signal.reason as Error)

  async #run(slot: Slot): Promise<void> {
    try {
      if (!this.#stopped) await this.#produce(slot)
    } finally {
      await this.#letGo()
      this.#end()
    }
  }

  async #produce(slot: Slot): Promise<void> {
    this.#tell(true)
    this.#tickLater()
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
    // A chunk that cannot be carried ends the stream, but not by itself the generator that yielded it.
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
    return this.#writer.room()
  }

  /** Says to all who wait where to read, and whether they still may. */
  #tell(open: boolean): void {
    this.#grant.progress({ log: this.log, open })
  }

  async #settle(failure: { error: unknown } | undefined): Promise<void> {
    const { key, terms, context } = this.#call
    const open = !this.#writer.overflown
    const ttl = open ? (failure ? terms.errorTtl : this.#ttl) : 0
    const end: StreamEnd = { count: this.#writer.count }
    if (failure) end.failure = encodeFailure(exposedFailure(this.#host.exposeError, context, failure.error))
    const note: StreamNote = { log: this.log, open, end }
    try {
      // First the log, then the record: what the record names must be there.
      if (ttl > 0 && this.#grant.shared) await this.#writer.keep(ttl + LOG_GRACE)
      this.#offered = true
      await this.#grant.publish(note, { ttl })
    } catch (cause) {
      const alone = cause instanceof UnavailableError && this.#call.terms.onUnavailable === 'local'
      if (!alone) this.stop(lossOf(cause, key))
    }
    if (!this.#stopped) this.view.finish(end, failure?.error)
  }

  /** Stops the work: the stream comes to no end. Readers who were delivered nothing start again, unless it was closed. */
  stop(reason: Error): void {
    if (this.#stopped || this.#over) return
    this.#stopped = reason
    this.#writer.stop()
    this.#call.context.run(() => this.#abort.abort(reason))
    this.#stopWork(reason)
    this.view.interrupt(this.#cutFor(reason))
  }

  /** The rest of a generator runs in the context of the work, too. */
  #stopWork(reason: unknown): void {
    this.#call.context.run(() => this.#source.stop(reason))
  }

  #cutFor(reason: Error): Cut {
    if (reason instanceof ClosedError)
      return { restart: false, error: (key) => new ClosedError('The locker was closed', { key }) }
    if (reason instanceof UnavailableError) {
      const { message, cause } = reason
      const restart = this.#call.terms.onUnavailable === 'local'
      return { restart, error: (key) => new UnavailableError(message, { key, cause }) }
    }
    if (reason instanceof OverloadedError)
      return { restart: false, error: (key) => new OverloadedError(reason.message, { key }) }
    if (reason instanceof LeaseLostError && !this.#host.takeover) {
      const lost = 'The producer lost its lease, and takeover is off'
      return { restart: false, error: (key) => new LockTimeoutError(lost, { key, cause: reason }) }
    }
    const message = 'The producer lost its right to go on'
    return { restart: true, error: (key) => new StreamInterruptedError(message, { key, cause: reason }) }
  }

  #end(): void {
    this.#over = true
    this.#tick?.cancel()
    this.view.onChange = undefined
    this.#grant.signal.removeEventListener('abort', this.#onAbort)
    this.view.release()
    this.#done()
  }

  #readersChanged(): void {
    this.#writer.readersChanged()
    if (this.#call.terms.abortUnwanted && this.view.readers.size === 0) this.#tickLater(UNWANTED_AFTER)
  }

  #tickLater(ms: number = this.#call.terms.lease / 3): void {
    if (this.#over || this.#stopped) return
    this.#tick?.cancel()
    this.#tick = this.#host.space.clock.after(ms, () => void this.#onTick(), true)
  }

  /** Keeps the log while there is nothing to write, and finds out whether it is still wanted. */
  async #onTick(): Promise<void> {
    this.#tickLater()
    const now = this.#host.space.clock.now()
    const due = now - this.#keptAt >= KEEP_AFTER
    // If it cannot be asked now, the next tick asks, or the next append fails.
    try {
      if (this.#call.terms.abortUnwanted && this.view.readers.size === 0) await this.#stopIfUnwanted()
      if (due) await this.#writer.keep(LOG_GRACE)
      if (due) this.#keptAt = now
    } catch {}
  }

  /** Without a log, whoever comes now waits for the next producer. */
  async #stopIfUnwanted(): Promise<void> {
    const { view } = this
    if (await view.logs.forget(view.name, false, this.#host.unavailableAfter))
      this.stop(new AbortedError('Nobody reads the stream any more', { key: this.#call.key }))
  }
}

/** Why a stream cannot go on, as an error of ours. */
function lossOf(cause: unknown, key: string): Error {
  const known = [UnavailableError, ClosedError, OverloadedError].some((kind) => cause instanceof kind)
  if (known) return cause as Error
  return new StreamInterruptedError('The stream cannot be written any more', { key, cause })
}
