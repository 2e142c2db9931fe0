import { AbortedError, ProcessLostError, type SoloflightError, TimeoutError } from '../../errors.ts'
import { decodeWith, encodeProgress, messageOf } from '../../kernel/codec/codec.ts'
import { encodeFailure, exposedFailure } from '../../kernel/codec/failure.ts'
import { encodeLimited } from '../../kernel/codec/limit.ts'
import { assertTransition, type Transitions } from '../../kernel/collections.ts'
import type { AsyncContext, Deadlines, Pending } from '../../kernel/time.ts'
import { ProgressThrottle } from '../../kernel/waiter.ts'
import { masked } from '../../secrets.ts'
import { type AnyHandler, type CallSource, runHandler } from '../call.ts'
import {
  type CallMode,
  type DealtCall,
  failureMessage,
  forgottenMessage,
  progressMessage,
  refusalMessage,
  resultMessage,
} from '../messages.ts'
import type { ServicesContext } from '../options.ts'
import type { Message } from '../store/store.ts'
import { ChunkSender, isStream } from './chunk-sender.ts'

/** A handler, and the context in which it was registered and runs. */
export interface RegisteredHandler {
  readonly handler: AnyHandler
  readonly context: AsyncContext
}

/** What a call needs of the service that it is for. */
export interface IncomingCallHost extends ServicesContext {
  readonly deadlines: Deadlines
  /** The call is over. `error`: the message of its handler's failure. `ms`: how long it ran; undefined if it did not. */
  onOver(call: IncomingCall, outcome: { error: string | undefined; ms: number | undefined }): void
  /** The deadline of a call in the backlog has passed, or its caller has aborted it: it is not run. */
  onUnwanted(call: IncomingCall): void
  /** Sends a message to the caller, best effort. */
  send(call: IncomingCall, message: Message): void
}

/**
 * waiting  in the backlog
 * running  its handler was called and has not ended
 * over     its reply is kept for a while, unless it was removed from the backlog or given up
 *
 * | event                       | waiting          | running                    | over |
 * | --------------------------- | ---------------- | -------------------------- | ---- |
 * | start                       | running          |                            |      |
 * | the handler ends            |                  | over: replies, unless it   |      |
 * |                             |                  | fails after the deadline   |      |
 * | remove                      | over             |                            |      |
 * | abort, deadline             | `onUnwanted`     | the signal aborts          |      |
 * | giveUp: the process closes  |                  | over: the signal aborts    |      |
 */
type IncomingState = 'waiting' | 'running' | 'over'

const INCOMING_TRANSITIONS: Transitions<IncomingState> = {
  waiting: ['running', 'over'],
  running: ['over'],
  over: [],
}

/** A call that was dealt to this process. */
export class IncomingCall implements CallSource, Pending {
  /** By the clock, ms. Written by {@link Deadlines}. */
  deadline: number = Number.POSITIVE_INFINITY
  readonly id: string
  readonly attempt: number
  readonly turn: number
  /** Address of the caller. */
  readonly from: string
  readonly trace: string | undefined
  readonly event: string
  readonly mode: CallMode
  readonly #host: IncomingCallHost
  readonly #left: number
  /** Of the handler. Set by {@link start}. */
  #context: AsyncContext | undefined
  #state: IncomingState = 'waiting'
  /** Encoded arguments, until the handler is called. */
  #args: Buffer | undefined
  #startedAt: number | undefined
  /** Created when it is first read: most handlers never do. */
  #abortController: AbortController | undefined
  #abortReason: SoloflightError | undefined
  #progress: ProgressThrottle | undefined
  #chunks: ChunkSender | undefined
  #reply: Message | undefined
  #replyBytes = 0

  constructor(call: DealtCall, host: IncomingCallHost) {
    this.id = call.id
    this.attempt = call.attempt
    this.turn = call.turn
    this.from = call.from
    this.trace = call.trace
    this.event = call.event
    this.mode = call.mode
    this.#left = call.left
    this.#args = call.args
    this.#host = host
    if (call.left !== Number.POSITIVE_INFINITY) host.deadlines.add(this, call.left)
  }

  get over(): boolean {
    return this.#state === 'over'
  }

  /** The kept reply; undefined if there is none. */
  get reply(): Message | undefined {
    return this.#reply
  }

  /** Bytes of the kept reply and chunks. Constant while the call is over and its reply is kept. */
  get replyBytes(): number {
    return this.#replyBytes
  }

  dropReply(): void {
    this.#reply = undefined
    this.#chunks = undefined
    this.#replyBytes = 0
  }

  left(): number {
    return Math.max(0, this.deadline - this.#host.clock.now())
  }

  get signal(): AbortSignal {
    if (!this.#abortController) {
      this.#abortController = new AbortController()
      if (this.#abortReason) this.#abortController.abort(this.#abortReason)
    }
    return this.#abortController.signal
  }

  progress(value: unknown): void {
    const { options, store, clock } = this.#host
    const bytes = encodeProgress(options.codec, value, this.event)
    if (this.#state !== 'running') return
    this.#progress ??= new ProgressThrottle(clock, (body) =>
      this.#host.send(this, progressMessage(this.id, store.address, body)),
    )
    this.#progress.push(bytes)
  }

  #enter(state: IncomingState): void {
    assertTransition('call to a service', INCOMING_TRANSITIONS, this.#state, state)
    this.#state = state
  }

  /** Calls the handler. */
  start({ handler, context }: RegisteredHandler): void {
    this.#enter('running')
    this.#context = context
    this.#startedAt = this.#host.clock.now()
    void this.#run(handler, context)
  }

  async #run(handler: AnyHandler, context: AsyncContext): Promise<void> {
    const { codec } = this.#host.options
    const { address } = this.#host.store
    let reply: Message | undefined
    let failure: string | undefined
    let args: unknown
    try {
      args = decodeWith(codec, this.#args ?? Buffer.alloc(0), this.event)
    } catch (error) {
      return this.#end(refusalMessage(this, address, 'args'), masked(messageOf(error)))
    } finally {
      this.#args = undefined
    }
    try {
      const result = await context.run(() => runHandler(handler, Array.isArray(args) ? args : [args], this))
      const chunks = this.mode === 'stream' ? await this.#sendChunks(result, context) : undefined
      reply = resultMessage(this.id, address, this.#encode(chunks === undefined ? result : undefined), chunks)
    } catch (error) {
      failure = masked(messageOf(error))
      // Mostly it fails because its signal has fired. The caller has given up this try, or calls another process.
      if (!(this.#abortReason instanceof TimeoutError))
        reply = failureMessage(this.id, address, this.#describe(error, context), this.#chunks?.sent)
    }
    this.#end(reply, failure)
  }

  #encode(value: unknown): Buffer {
    if (isStream(value)) throw new TypeError('The handler returned a stream: call it by `stream`')
    return encodeLimited(this.#host.options, value, 'The result has', { key: this.event })
  }

  #describe(error: unknown, context: AsyncContext): Buffer {
    return encodeFailure(exposedFailure(this.#host.options.exposeError, context, error))
  }

  async #sendChunks(result: unknown, context: AsyncContext): Promise<number> {
    const values = isStream(result) ? result : oneChunk(result)
    const { store, clock } = this.#host
    this.#chunks = new ChunkSender({
      id: this.id,
      process: store.address,
      clock,
      encode: (value) => this.#encode(value),
      send: (message) => this.#host.send(this, message),
      onCallerLost: () => this.abort(),
    })
    // The abort may have come with the call.
    if (this.#abortReason) this.#chunks.cancel(this.#abortReason)
    return context.run(() => this.#chunks?.sendAll(values) ?? 0)
  }

  /** The caller has taken so many chunks. */
  onCredit(received: number): void {
    this.#chunks?.onCredit(received)
  }

  /** Nobody has heard what was sent to the caller. */
  onUnheard(): void {
    this.#chunks?.onUnheard()
  }

  /** The caller asks what became of it. */
  resume(): void {
    this.#chunks?.resend()
  }

  #end(reply: Message | undefined, failure: string | undefined): void {
    this.#progress?.stop()
    if (this.#state === 'over') return
    if (reply && this.mode !== 'notify') {
      this.#reply = reply
      this.#replyBytes = reply.body.length + (this.#chunks?.keptBytes ?? 0)
    }
    this.#finish(failure)
  }

  #finish(error: string | undefined): void {
    this.#enter('over')
    if (this.#left !== Number.POSITIVE_INFINITY) this.#host.deadlines.delete(this, this.#left)
    const ms = this.#startedAt === undefined ? undefined : this.#host.clock.now() - this.#startedAt
    this.#host.onOver(this, { error, ms })
  }

  /** Removes it from the backlog, without a reply. */
  remove(): void {
    this.#args = undefined
    this.#finish(undefined)
  }

  expire(): void {
    this.#abort(new TimeoutError('The deadline of the caller has passed', { key: this.event }))
  }

  /** The caller has aborted, or has gone. */
  abort(): void {
    this.#abort(new AbortedError('The caller does not want the result any more', { key: this.event }))
  }

  #abort(reason: SoloflightError): void {
    if (this.#state === 'waiting') this.#host.onUnwanted(this)
    else if (this.#state === 'running') this.#fireSignal(reason)
  }

  #fireSignal(reason: SoloflightError): void {
    if (this.#abortReason) return
    this.#abortReason = reason
    this.#context?.run(() => this.#abortController?.abort(reason))
    this.#chunks?.cancel(reason)
  }

  /** Ends a running call: this process closes. What its handler does from now on is not reported. */
  giveUp(): void {
    const reason = new ProcessLostError('The process closes', { key: this.event })
    this.#fireSignal(reason)
    this.#end(forgottenMessage(this.id, this.#host.store.address), reason.message)
  }
}

async function* oneChunk(value: unknown): AsyncGenerator<unknown, void> {
  yield value
}
