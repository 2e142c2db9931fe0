import { AbortedError } from '../errors.ts'
import { encodeLimited } from '../kernel/codec/limit.ts'
import { callHook } from '../kernel/hooks.ts'
import { MAX_TRACE_LENGTH } from '../kernel/keys.ts'
import { checkWellFormedName } from '../kernel/names.ts'
import { AsyncContext } from '../kernel/time.ts'
import { Broadcast, type BroadcastAnswer } from './calling/broadcast.ts'
import { type CallTerms, withRan } from './calling/call-terms.ts'
import { type DedupeDeps, shareRun } from './calling/dedupe.ts'
import { OutgoingCall } from './calling/outgoing-call.ts'
import { ReplyIterator } from './calling/reply-iterator.ts'
import { StreamCall } from './calling/reply-stream.ts'
import type { AnyApi, Api, ArgsOf, ChunkOf, EventOf, ResultOf } from './contract.ts'
import type { CallMode } from './messages.ts'
import { type CallOptions, checkCallOptions, type RequireOptions } from './options.ts'
import { ServiceSettings, type SettingsDeps } from './settings.ts'

/** What a Remote needs of its Services object. */
export interface RemoteDeps extends DedupeDeps {
  readonly settings: SettingsDeps
  /** @throws ClosedError */
  assertOpen(): void
  /** Resolves when a process serves the service. */
  ready(service: string, timeout: number): Promise<void>
}

const RETRY_FOREVER = -1

/**
 * Calls the events of a service. Each call goes to the process with the fewest calls that has room.
 *
 * The errors of a call say by `ran` whether the handler has run. Beside those that are named: RemoteError (`ran: 'yes'`) if
 * the handler fails; NoServiceError, BusyError, UnknownEventError (`'no'`; `'maybe'` by `pemit` after an earlier try);
 * ProcessLostError, TimeoutError (`'maybe'`); AbortedError, UnavailableError, OverloadedError, ClosedError (`'no'` or
 * `'maybe'`); CodecError, TooLargeError, TypeError.
 * With `dedupe`, a shared run that has failed says `'maybe'` in place of `'no'`: another process may have begun it, and died.
 */
export class Remote<A extends Api<A> = AnyApi> extends ServiceSettings {
  readonly service: string
  readonly #deps: RemoteDeps
  readonly #options: RequireOptions
  readonly #call: CallOptions

  /** @internal */
  constructor(service: string, options: RequireOptions, call: CallOptions, deps: RemoteDeps) {
    super(service, deps.settings)
    this.service = service
    this.#options = options
    this.#call = call
    this.#deps = deps
  }

  /** The same service, with these options added to those of this object. @throws TypeError */
  with(options: CallOptions): Remote<A> {
    const call = checkCallOptions(options, this.#call)
    return new Remote(this.service, this.#options, call, this.#deps)
  }

  /** Calls an event once. Resolves with the result of its handler. */
  emit<E extends EventOf<A>>(event: E, ...args: ArgsOf<A, E>): Promise<ResultOf<A, E>> {
    return this.#emit(1, event, args) as Promise<ResultOf<A, E>>
  }

  /**
   * Calls an event up to `tries` times; -1: until the deadline, which `with({ within })` or its `signal` must set. It is
   * called again, at another process if there is one, when the process was lost, the timeout of the try has passed, or all
   * processes were full. So the handler may run more than once; it sees `call.attempt`. An earlier try that answers late
   * still counts.
   */
  async pemit<E extends EventOf<A>>(tries: number, event: E, ...args: ArgsOf<A, E>): Promise<ResultOf<A, E>> {
    const { within, signal } = this.#call
    if (tries !== RETRY_FOREVER && !(Number.isInteger(tries) && tries > 0))
      throw new TypeError('Expected `tries` to be a whole number from 1 and up, or -1')
    if (tries === RETRY_FOREVER && within === undefined && signal === undefined)
      throw new TypeError('Expected `within` or `signal`, by `with`, for tries without an end')
    const result = await this.#emit(tries === RETRY_FOREVER ? Number.POSITIVE_INFINITY : tries, event, args)
    return result as ResultOf<A, E>
  }

  async #emit(tries: number, event: string, args: readonly unknown[]): Promise<unknown> {
    const terms = this.#terms('reply', tries, event, args)
    const { dedupe, key, ttl = 0 } = this.#call
    if (dedupe === undefined) return new OutgoingCall(terms, this.#deps).promise
    return shareRun(terms, { key: dedupe === true ? key : dedupe, ttl }, this.#deps)
  }

  /** Gives an event to one process, without a reply. Resolves when a process was given it. */
  async notify<E extends EventOf<A>>(event: E, ...args: ArgsOf<A, E>): Promise<void> {
    await new OutgoingCall(this.#terms('notify', 1, event, args), this.#deps).promise
  }

  /**
   * Calls an event at every process that serves the service. Yields one answer from each, as they arrive, and ends when each
   * has answered, was lost, or has not answered within the timeout. It ends empty if no process serves the service. Leaving
   * the loop, or `return`, even before the first read, aborts the signals of the handlers.
   * @throws at the call: TypeError, ClosedError, AbortedError, CodecError, TooLargeError, UnavailableError; from the iteration:
   * UnavailableError, OverloadedError, ClosedError; TimeoutError, AbortedError while the processes are not known yet.
   */
  broadcast<E extends EventOf<A>>(
    event: E,
    ...args: ArgsOf<A, E>
  ): AsyncIterableIterator<BroadcastAnswer<ResultOf<A, E>>> {
    const terms = this.#terms('broadcast', 1, event, args)
    const answers = new ReplyIterator(new Broadcast(terms, this.#deps))
    return answers as AsyncIterableIterator<BroadcastAnswer<ResultOf<A, E>>>
  }

  /**
   * Calls an event whose handler returns an AsyncIterable, and yields its values. The call begins with the first read. The
   * handler is asked for more only as it is read. Leaving the loop aborts the handler's signal; so does `return`, which does not
   * wait for a pending read, and ends it. `timeout` limits the wait for each chunk.
   */
  stream<E extends EventOf<A>>(event: E, ...args: ArgsOf<A, E>): AsyncGenerator<ChunkOf<A, E>, void> {
    const open = () => new StreamCall(this.#terms('stream', 1, event, args), this.#deps)
    return new ReplyIterator(open) as AsyncGenerator<ChunkOf<A, E>, void>
  }

  /** Returns a function that calls an event. */
  bind<E extends EventOf<A>>(event: E): (...args: ArgsOf<A, E>) => Promise<ResultOf<A, E>> {
    checkWellFormedName('event', event)
    return (...args) => this.emit(event, ...args)
  }

  /** Resolves when a process serves the service. @throws TimeoutError, or the last error of Redis, after the timeout; ClosedError. */
  ready(): Promise<void> {
    return this.#deps.ready(this.service, this.#call.within ?? this.#timeout)
  }

  get #timeout(): number {
    return this.#call.timeout ?? this.#options.timeout ?? this.#deps.options.timeout
  }

  #terms(mode: CallMode, tries: number, event: string, args: readonly unknown[]): CallTerms {
    this.#deps.assertOpen()
    checkWellFormedName('event', event)
    const { signal, within = Number.POSITIVE_INFINITY, onProgress, dedupe } = this.#call
    if (dedupe !== undefined && mode !== 'reply')
      throw new TypeError(`Expected no \`dedupe\` with \`${mode}\`: only \`emit\` and \`pemit\` share a run`)
    if (signal?.aborted)
      throw new AbortedError('The caller has aborted the call', {
        key: event,
        cause: signal.reason,
        ran: 'no',
      })
    const { store } = this.#deps
    const refused = mode === 'notify' ? undefined : store.subscriptionError
    if (refused) throw withRan(refused, { key: event, ran: 'no' })
    const { wait = 0, choose = 'least-busy' } = this.#options
    return {
      service: this.service,
      event,
      args: encodeLimited(this.#deps.options, args, 'The arguments have', { key: event, ran: 'no' }),
      mode,
      timeout: this.#timeout,
      tries,
      within,
      wait,
      choose,
      signal,
      trace: this.#trace(),
      onProgress,
      context: onProgress && new AsyncContext(),
    }
  }

  #trace(): string | undefined {
    const { trace } = this.#deps.options
    const context: unknown = trace && callHook(undefined, 'trace', trace)
    return typeof context === 'string' ? context.slice(0, MAX_TRACE_LENGTH).toWellFormed() : undefined
  }
}
