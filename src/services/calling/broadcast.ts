import {
  AbortedError,
  ClosedError,
  CodecError,
  ProcessLostError,
  type SoloflightErrorOptions,
  TimeoutError,
  UnknownEventError,
} from '../../errors.ts'
import { decodeWith } from '../../kernel/codec/codec.ts'
import { remoteError } from '../../kernel/codec/failure.ts'
import { Fifo } from '../../kernel/collections.ts'
import { newId } from '../../kernel/keys.ts'
import type { Pending } from '../../kernel/time.ts'
import { onAbort, refProcess, unrefProcess } from '../../kernel/waiter.ts'
import { type Answer, abortMessage, callMessage } from '../messages.ts'
import { type CallingDeps, type CallTerms, mayHaveHappened, type OpenCall, withRan } from './call-terms.ts'
import type { CallListener } from './calls.ts'
import { UNREADABLE } from './outgoing-call.ts'
import type { ReplySource } from './reply-iterator.ts'

/** The answer of one process to a broadcast. */
export type BroadcastAnswer<Result = unknown> =
  | { readonly id: string; readonly result: Result }
  | { readonly id: string; readonly error: Error }

/**
 * A call to every process that serves a service, full or not. It ends when each that listens has answered, is lost, or the
 * timeout has passed; with the deadline or the signal, those that have not answered get an error each.
 */
export class Broadcast implements CallListener, OpenCall, Pending, ReplySource<BroadcastAnswer> {
  deadline: number = Number.POSITIVE_INFINITY
  readonly #id = newId()
  readonly #terms: CallTerms
  readonly #deps: CallingDeps
  readonly #answers = new Fifo<BroadcastAnswer>()
  /** Processes that have answered: a process may answer before it is known that it was asked. */
  readonly #answered = new Set<string>()
  /** Processes that are to answer; undefined until Redis has said which. */
  #asked: Set<string> | undefined
  #failure: { readonly error: unknown } | undefined
  #wake: (() => void) | undefined
  #state: 'open' | 'closed' = 'open'
  readonly #stopListening: (() => void) | undefined

  constructor(terms: CallTerms, deps: CallingDeps) {
    this.#terms = terms
    this.#deps = deps
    deps.open.add(this)
    deps.calls.add(this.#id, this)
    refProcess(deps.clock)
    if (this.#timeout !== Number.POSITIVE_INFINITY) deps.deadlines.add(this, this.#timeout)
    this.#stopListening = terms.signal && onAbort(terms.signal, () => this.#onAborted())
    void this.#ask()
  }

  /** ms. The timeout of a try holds for the whole: there is only one. */
  get #timeout(): number {
    return Math.min(this.#terms.timeout, this.#terms.within)
  }

  async #ask(): Promise<void> {
    const { service } = this.#terms
    const { store, clock, storeTimeout, calls } = this.#deps
    const head = { id: this.#id, from: store.address, left: this.#timeout, attempt: 1, turn: 1 }
    const message = callMessage(head, this.#terms)
    const dispatched = { id: this.#id, turn: 1, service, at: clock.now() }
    try {
      const dealt = await store.dispatchAll(service, message, storeTimeout)
      this.#asked = new Set(dealt.map(({ process }) => process))
      if (this.#state === 'closed') return this.#tellUnwanted()
      for (const { process, leaseLeft } of dealt)
        if (!this.#answered.has(process)) calls.watch(dispatched, process, leaseLeft)
    } catch (error) {
      const ran = mayHaveHappened(error as Error) ? 'maybe' : 'no'
      this.#failure ??= { error: withRan(error as Error, { key: this.#terms.event, ran }) }
    }
    this.#closeIfComplete()
  }

  onAnswer(process: string, answer: Answer): void {
    const { event, service } = this.#terms
    const options = { key: event }
    if (answer.kind === 'result') this.#add(process, this.#decode(answer.body))
    else if (answer.kind === 'failure')
      this.#add(process, { error: remoteError(answer.body, event, undefined, 'yes') })
    else if (answer.kind === 'refused' && answer.reason === 'event')
      this.#add(process, {
        error: new UnknownEventError(`${service} has no handler for ${event}`, { ...options, ran: 'no' }),
      })
    else if (answer.kind === 'refused' && answer.reason === 'args')
      this.#add(process, { error: new CodecError(UNREADABLE, { ...options, ran: 'no' }) })
    else if (answer.kind === 'refused')
      this.#add(process, { error: new ProcessLostError('The process closes', { ...options, ran: 'no' }) })
    else if (answer.kind === 'forgotten') this.onProcessLost(process)
  }

  #decode(body: Buffer): { result: unknown } | { error: Error } {
    try {
      return { result: decodeWith(this.#deps.options.codec, body, this.#terms.event, 'yes') }
    } catch (error) {
      return { error: error as Error }
    }
  }

  onProcessLost(process: string): void {
    const options = { key: this.#terms.event, ran: 'maybe' } as const
    this.#add(process, { error: new ProcessLostError('The process was lost before it replied', options) })
  }

  #add(id: string, answer: { result: unknown } | { error: Error }): void {
    if (this.#state === 'closed' || this.#answered.has(id)) return
    this.#answered.add(id)
    this.#deps.calls.unwatch(this.#id, id)
    this.#answers.push({ id, ...answer })
    this.#wake?.()
    this.#closeIfComplete()
  }

  #closeIfComplete(): void {
    if (this.#failure || this.#pending.length === 0) this.#close()
  }

  /** Processes that were asked and have not answered; one that is unknown stands for all until Redis has said which. */
  get #pending(): string[] {
    return this.#asked ? [...this.#asked].filter((process) => !this.#answered.has(process)) : ['']
  }

  expire(): void {
    this.#giveUp((options) => new TimeoutError('No reply within the timeout', options))
  }

  #onAborted(): void {
    const { signal } = this.#terms
    this.#tellUnwanted()
    this.#giveUp(
      (options) => new AbortedError('The caller has aborted', { ...options, cause: signal?.reason }),
    )
  }

  #giveUp(make: (options: SoloflightErrorOptions) => Error): void {
    const options = { key: this.#terms.event, ran: 'maybe' } as const
    if (!this.#asked) this.#failure = { error: make(options) }
    for (const process of this.#pending) if (process !== '') this.#add(process, { error: make(options) })
    this.#close()
  }

  #tellUnwanted(): void {
    const { store, storeTimeout } = this.#deps
    for (const process of this.#pending)
      if (process !== '') store.send(process, abortMessage(this.#id), storeTimeout).catch(() => {})
  }

  #close(): void {
    if (this.#state === 'closed') return
    this.#state = 'closed'
    const { calls, clock, deadlines, open } = this.#deps
    for (const process of this.#pending) calls.unwatch(this.#id, process)
    calls.delete(this.#id)
    open.delete(this)
    if (this.deadline !== Number.POSITIVE_INFINITY) deadlines.delete(this, this.#timeout)
    this.#stopListening?.()
    unrefProcess(clock)
    this.#wake?.()
  }

  close(): void {
    this.#tellUnwanted()
    this.#failure = { error: new ClosedError('The Services object was closed', { ran: 'maybe' }) }
    this.#close()
  }

  async read(): Promise<IteratorResult<BroadcastAnswer, void>> {
    for (;;) {
      const answer = this.#answers.shift()
      if (answer) return { done: false, value: answer }
      if (this.#failure) throw this.#failure.error
      if (this.#state === 'closed') return { done: true, value: undefined }
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    }
  }

  leave(): void {
    if (this.#state === 'open') this.#tellUnwanted()
    this.#close()
  }
}
