import {
  AbortedError,
  BusyError,
  ClosedError,
  CodecError,
  NoServiceError,
  ProcessLostError,
  type Ran,
  TimeoutError,
  UnknownEventError,
} from '../../errors.ts'
import { decodeWith } from '../../kernel/codec/codec.ts'
import { remoteError } from '../../kernel/codec/failure.ts'
import { assertTransition } from '../../kernel/collections.ts'
import { notifyProgress } from '../../kernel/hooks.ts'
import { newId } from '../../kernel/keys.ts'
import type { Timer } from '../../kernel/time.ts'
import { BaseWaiter } from '../../kernel/waiter.ts'
import { type Answer, abortMessage, callMessage, type Refusal } from '../messages.ts'
import type { Dealt, DispatchHandler, DispatchReply } from '../store/store.ts'
import { type CallingDeps, type CallTerms, mayHaveHappened, type OpenCall, withRan } from './call-terms.ts'
import type { CallListener, Dispatched } from './calls.ts'
import { OUTGOING_TRANSITIONS, type OutgoingState, Try } from './outgoing-state.ts'

/** Pause before the next try when no process is left that might do better, ms: doubles with each, up to the maximum. */
const MIN_TRY_PAUSE = 50
const MAX_TRY_PAUSE = 2_000

/** Refusals of one try before it fails as busy, and the pause before a process that has refused is asked again, ms. */
const MAX_REFUSALS = 10
const REFUSAL_PAUSE = 50

/** Says why a call was not run. */
export const UNREADABLE = 'The process that was called cannot decode the arguments'

/** How often a call that waits for a first process looks for one, ms: the announcement of it may be lost. */
const ARRIVAL_POLL_MS = 1000

/** One call of an event, with all its tries. */
export class OutgoingCall extends BaseWaiter implements CallListener, OpenCall {
  readonly id: string = newId()
  readonly #terms: CallTerms
  readonly #deps: CallingDeps
  #state: OutgoingState = 'choosing'
  #try: Try
  #tries = 0
  #refusals = 0
  #tryPause = MIN_TRY_PAUSE
  #waitUntil = 0
  /** The dispatches so far. */
  #turn = 0
  /** The last turn that each process was given. Those that have surely not run the call are removed. */
  readonly #mayRun = new Map<string, number>()
  /** A process was given the call again, and may have run it when it was given it before. */
  #earlierMayRun = false
  /** Processes to avoid. */
  readonly #avoided = new Set<string>()
  /** Turns that were refused, and processes that have lost the call, before Redis has said who was given it. */
  readonly #refusedEarly = new Set<number>()
  readonly #lostEarly = new Set<string>()
  #unwanted = false
  /** The timeout of a try has passed. Its process does not run the call again. */
  #timedOut = false
  /** Turns of which is not known whether a process was given the call. */
  readonly #unanswered = new Set<number>()
  /** Cancels what `waiting` and `pausing` wait for. */
  #stopWaiting: (() => void) | undefined

  constructor(terms: CallTerms, deps: CallingDeps) {
    super(
      { key: terms.event, timeout: terms.within, signal: terms.signal },
      deps.clock,
      deps.deadlines,
      false,
    )
    this.#terms = terms
    this.#deps = deps
    this.#try = new Try((tried) => this.#onTryExpired(tried))
    this.#waitUntil = deps.clock.now() + terms.wait
    deps.open.add(this)
    deps.calls.add(this.id, this)
    this.#begin()
  }

  /** The process that runs the present try. */
  get process(): string | undefined {
    return this.#try.process
  }

  #enter(state: OutgoingState): void {
    assertTransition('call of a service', OUTGOING_TRANSITIONS, this.#state, state)
    this.#state = state
  }

  /** Begins the next try. */
  #begin(): void {
    this.#tries++
    this.#refusals = 0
    this.#endTry()
    this.#try = new Try((tried) => this.#onTryExpired(tried))
    this.startTryTimer()
    this.#dispatch()
  }

  /** The present try may take `timeout` from now on. */
  startTryTimer(): void {
    this.stopTryTimer()
    const { timeout } = this.#terms
    if (timeout !== Number.POSITIVE_INFINITY) this.#deps.deadlines.add(this.#try, timeout)
  }

  stopTryTimer(): void {
    if (this.#try.deadline === Number.POSITIVE_INFINITY) return
    this.#deps.deadlines.delete(this.#try, this.#terms.timeout)
    this.#try.deadline = Number.POSITIVE_INFINITY
  }

  #endTry(): void {
    this.stopTryTimer()
    this.#stopWaiting?.()
    this.#stopWaiting = undefined
  }

  #dispatch(): void {
    this.#enter('choosing')
    this.#lostEarly.clear()
    const { service, mode, choose } = this.#terms
    const { store, clock, options } = this.#deps
    const now = clock.now()
    const tried = this.#try
    // The deadline of a stream counts from chunk to chunk: its reader watches it.
    const left = mode === 'stream' ? Number.POSITIVE_INFINITY : Math.min(tried.deadline, this.deadline) - now
    const turn = ++this.#turn
    const head = { id: this.id, from: store.address, left: Math.max(0, left), attempt: this.#tries, turn }
    const dispatched = { id: this.id, turn, service, at: now }
    const handler: DispatchHandler = {
      onReply: (reply) => this.#onDispatched(tried, reply, dispatched),
      onError: (error) => this.#onDispatchFailed(tried, error, turn),
    }
    this.#unanswered.add(turn)
    store.dispatch(
      {
        service,
        preferred: choose === 'local-first' ? store.address : '',
        avoided: [...this.#avoided],
        message: callMessage(head, this.#terms),
      },
      options.unavailableAfter,
      handler,
    )
  }

  #onDispatched(tried: Try, reply: DispatchReply, dispatched: Dispatched): void {
    this.#unanswered.delete(dispatched.turn)
    if (reply.kind === 'dealt') return this.#onDealt(tried, reply, dispatched)
    if (this.#state !== 'choosing' || tried !== this.#try) return
    if (reply.kind === 'none') this.#onNone()
    else this.#onFull()
  }

  #onDealt(tried: Try, { process, leaseLeft }: Dealt, dispatched: Dispatched): void {
    if (this.#state === 'settled') {
      if (this.#unwanted) this.#abortAt(process)
      return
    }
    // It was dispatched again.
    if (this.#refusedEarly.delete(dispatched.turn)) return
    if (this.#mayRun.has(process)) this.#earlierMayRun = true
    this.#mayRun.set(process, dispatched.turn)
    this.#deps.calls.watch(dispatched, process, leaseLeft)
    tried.process = process
    if (tried !== this.#try || this.#state !== 'choosing') return
    this.#enter('dealt')
    if (this.#terms.mode === 'notify') this.resolve(undefined)
    else if (this.#lostEarly.has(process)) this.onProcessLost(process)
  }

  #onNone(): void {
    const left = this.#waitUntil - this.#deps.clock.now()
    if (left <= 0)
      return this.reject(new NoServiceError(`No process serves ${this.#terms.service}`, this.#info))
    this.stopTryTimer()
    this.#enter('waiting')
    const retry = () => {
      this.#endTry()
      this.startTryTimer()
      this.#dispatch()
    }
    const cancel = this.#deps.onArrival(this.#terms.service, retry)
    const timer = this.#deps.clock.after(Math.min(left, ARRIVAL_POLL_MS), retry)
    this.#stopWaiting = () => {
      cancel()
      timer.cancel()
    }
  }

  #onFull(): void {
    if (this.#tries >= this.#terms.tries)
      return this.reject(new BusyError('All processes of the service are full', this.#info))
    this.#beginLater()
  }

  #beginLater(): void {
    this.#pause(this.#tryPause, () => this.#begin())
    this.#tryPause = Math.min(2 * this.#tryPause, MAX_TRY_PAUSE)
    this.stopTryTimer()
  }

  #pause(ms: number, goOn: () => void): void {
    this.#enter('pausing')
    const timer: Timer = this.#deps.clock.after(ms, goOn)
    this.#stopWaiting = () => timer.cancel()
  }

  #onDispatchFailed(tried: Try, error: Error, turn: number): void {
    if (this.#state === 'settled') return
    if (!mayHaveHappened(error)) this.#unanswered.delete(turn)
    if (tried !== this.#try) return
    this.reject(withRan(error, this.#info))
  }

  /** Whether the handler has run, as far as is known. */
  get ran(): Ran {
    return this.#earlierMayRun || this.#mayRun.size + this.#unanswered.size > 0 ? 'maybe' : 'no'
  }

  get #info(): { key: string; ran: Ran } {
    return { key: this.#terms.event, ran: this.ran }
  }

  onAnswer(process: string, answer: Answer): void {
    if (this.#state === 'settled') return
    if (answer.kind === 'result') this.onResult(answer.body, answer.chunks)
    else if (answer.kind === 'failure') this.onFailure(answer.body, answer.chunks)
    else if (answer.kind === 'refused') this.#onRefused(process, answer.reason, answer.turn)
    else if (answer.kind === 'forgotten') this.onProcessLost(process)
    else if (answer.kind === 'progress') this.#onProgress(answer.body)
    else if (answer.kind === 'chunk') this.onChunk(answer.index, answer.body)
  }

  protected onResult(body: Buffer, _chunks: number): void {
    const { event } = this.#terms
    try {
      this.resolve(decodeWith(this.#deps.options.codec, body, event, 'yes'))
    } catch (error) {
      this.reject(error)
    }
  }

  protected onFailure(body: Buffer, _chunks: number): void {
    this.reject(remoteError(body, this.#terms.event, undefined, 'yes'))
  }

  protected onChunk(_index: number, _body: Buffer): void {}

  #onProgress(body: Buffer): void {
    const { onProgress, context } = this.#terms
    if (onProgress) notifyProgress(this.#deps.options.codec, body, context, onProgress)
  }

  /** The process has not called the handler for this turn, and will not. The same may be said twice. */
  #onRefused(process: string, reason: Refusal, turn: number): void {
    if (this.#mayRun.get(process) === turn) this.#mayRun.delete(process)
    else if (turn !== this.#turn || this.#state !== 'choosing') return
    else this.#refusedEarly.add(turn)
    this.#unanswered.delete(turn)
    this.#deps.calls.unwatch(this.id, process)
    const again = this.#avoided.has(process)
    this.#avoided.add(process)
    if (reason === 'event') {
      const { service, event } = this.#terms
      return this.reject(new UnknownEventError(`${service} has no handler for ${event}`, this.#info))
    }
    if (reason === 'args') return this.reject(new CodecError(UNREADABLE, this.#info))
    // Too late: the deadline is about to pass here as well.
    if (reason === 'late' || turn !== this.#turn || this.#state === 'pausing') return
    if (++this.#refusals >= MAX_REFUSALS)
      return this.reject(new BusyError('All processes refuse the call', this.#info))
    if (again) this.#pause(REFUSAL_PAUSE, () => this.#dispatch())
    else this.#dispatch()
  }

  onProcessLost(process: string): void {
    // It may be the process that is being chosen, even if it was given the call before: then it says so each time.
    if (this.#state === 'choosing') this.#lostEarly.add(process)
    this.#deps.calls.unwatch(this.id, process)
    if (this.#state !== 'dealt' || this.#try.process !== process) return
    const again = this.#avoided.has(process)
    this.#avoided.add(process)
    if (this.#tries < this.#terms.tries) {
      // It may say so at once, each time.
      if (again) this.#beginLater()
      else this.#begin()
    } else if (this.#timedOut) this.expire()
    else this.reject(new ProcessLostError('The process was lost before it replied', this.#info))
  }

  /** The timeout of a try has passed. */
  #onTryExpired(tried: Try): void {
    if (tried !== this.#try || this.#state === 'settled') return
    this.#timedOut = true
    if (tried.process !== undefined) this.#avoided.add(tried.process)
    if (this.#tries < this.#terms.tries) this.#begin()
    else this.expire()
  }

  expire(): void {
    this.reject(new TimeoutError('No reply within the timeout', this.#info))
  }

  protected onAborted(cause: unknown): void {
    this.abandon()
    this.reject(new AbortedError('The caller has aborted the call', { ...this.#info, cause }))
  }

  close(): void {
    this.abandon()
    this.reject(new ClosedError('The Services object was closed', this.#info))
  }

  /** The result is not wanted any more. */
  abandon(): void {
    if (this.#state === 'settled') return
    this.#unwanted = true
    for (const process of this.#mayRun.keys()) this.#abortAt(process)
  }

  #abortAt(process: string): void {
    const { store, storeTimeout } = this.#deps
    store.send(process, abortMessage(this.id), storeTimeout).catch(() => {})
  }

  protected onEnded(): void {
    this.#enter('settled')
    this.#endTry()
    this.#deps.open.delete(this)
    this.#deps.calls.delete(this.id)
    for (const process of this.#mayRun.keys()) this.#deps.calls.unwatch(this.id, process)
  }
}
