import pDefer, { type DeferredPromise } from 'p-defer'
import { Fifo, TransientSet } from '../../kernel/collections.ts'
import { emit } from '../../kernel/telemetry.ts'
import type { Deadlines } from '../../kernel/time.ts'
import {
  type CallMode,
  type DealtCall,
  forgottenMessage,
  type Refusal,
  refusalMessage,
  runningMessage,
} from '../messages.ts'
import type { ServicesContext } from '../options.ts'
import type { Addressed, Load, Message } from '../store/store.ts'
import type { CallHistory } from './call-history.ts'
import { IncomingCall, type IncomingCallHost, type RegisteredHandler } from './incoming-call.ts'

/** Statistics of one event of a service in this process. */
export interface EventStats {
  /** Calls whose handler has ended. */
  calls: number
  /** Calls whose handler has failed. */
  errors: number
  /** Message of the last failure. */
  lastError: string | undefined
  /** Duration of all calls together, ms. */
  ms: number
}

export interface HostOptions {
  readonly capacity: number
  readonly backlog: number
  readonly version: string
}

/** For so long after its registration, ms, a service waits for the handler of an event that is called. */
const HANDLER_GRACE = 1_000
/** Longest text that the statistics keep of an error. */
const MAX_LAST_ERROR = 1_024
/** Calls that wait for their handlers at most. */
const MAX_EARLY = 1_000

/** Calls that can be lost with one subscription, at most. */
const MAX_LOST = 1_000_000

/** What a host needs of the process. */
export interface HostDeps extends ServicesContext {
  readonly deadlines: Deadlines
  readonly history: CallHistory
  /** Calls that this process has received when it served the service before. All are over. */
  readonly receivedBefore: number
  /** Whether the lease of this process holds, and it takes calls. */
  accepts(service: string): Refusal | undefined
}

/**
 * Runs the calls of one service in this process: up to `capacity` at once, then a backlog. It counts the calls that it has
 * received and those that are over; each report carries both.
 */
export class ServiceHost {
  readonly service: string
  readonly options: HostOptions
  readonly stats: Map<string, EventStats> = new Map()
  readonly #deps: HostDeps
  readonly #handlers = new Map<string, RegisteredHandler>()
  readonly #callHost: IncomingCallHost
  readonly #running = new TransientSet<IncomingCall>()
  #backlog = new Fifo<IncomingCall>()
  /** Calls in the backlog and `#early` that are to be run. */
  #waiting = 0
  /** Calls that wait for their handlers, shortly after the registration. Some may be over. */
  #early: IncomingCall[] = []
  #handlersDueAt = Number.POSITIVE_INFINITY
  #received: number
  #finished: number
  /** What Redis did not take, by the id of the call: a reply, a refusal or a chunk. */
  readonly #unsent = new Map<string, Addressed>()
  /** Reports that Redis has not answered. */
  #reporting = 0
  /** What `reported` waits for. */
  #reported: DeferredPromise<void> | undefined
  /** What `idle` waits for. */
  #idle: DeferredPromise<void> | undefined

  constructor(service: string, options: HostOptions, deps: HostDeps) {
    this.service = service
    this.options = options
    this.#deps = deps
    this.#received = deps.receivedBefore
    this.#finished = deps.receivedBefore
    this.#callHost = {
      ...deps,
      onOver: (call, outcome) => this.#onOver(call, outcome),
      onUnwanted: (call) => this.#refuseWaiting(call, 'late'),
      send: (call, message) => this.#send(call, message),
    }
  }

  /** Handlers can be added from now on. */
  onRegistered(): void {
    const { clock } = this.#deps
    this.#handlersDueAt = clock.now() + HANDLER_GRACE
    clock.after(HANDLER_GRACE, () => this.#refuseEarly('event'), true)
  }

  /** Calls that it takes at once, its backlog included. */
  get limit(): number {
    return this.options.capacity + this.options.backlog
  }

  get load(): Load {
    return { received: this.#received, finished: this.#finished }
  }

  /** Calls that run or wait here. */
  get busy(): number {
    return this.#running.size + this.#waiting
  }

  /** Returns false if there is a handler for the event. */
  addHandler(event: string, handler: RegisteredHandler): boolean {
    if (this.#handlers.has(event)) return false
    this.#handlers.set(event, handler)
    const early = this.#early.filter((call) => call.event === event)
    this.#early = this.#early.filter((call) => call.event !== event)
    for (const call of early) if (!call.over) this.#startOrQueue(call)
    return true
  }

  removeHandler(event: string): void {
    this.#handlers.delete(event)
  }

  onCall(dealt: DealtCall): void {
    this.#received++
    const known = this.#deps.history.get(dealt.id)
    if (known) {
      this.#finished++
      return this.#report(this.#answersOf(known))
    }
    if (this.#deps.history.isDisowned(dealt)) return this.#refuse(dealt, 'lost')
    const refusal = this.#refusalOf(dealt)
    if (refusal !== undefined) return this.#refuse(dealt, refusal)
    const call = new IncomingCall(dealt, this.#callHost)
    this.#deps.history.add(call)
    this.#waiting++
    if (this.#handlers.has(call.event)) this.#startOrQueue(call)
    else this.#waitForHandler(call)
  }

  #refusalOf({ event, mode }: DealtCall): Refusal | undefined {
    const refusal = this.#deps.accepts(this.service)
    if (refusal !== undefined) return refusal
    if (!this.#handlers.has(event) && !this.#awaitsHandlers) return 'event'
    return this.#hasRoom(mode) ? undefined : 'full'
  }

  /** A broadcast is for each process, full or not. */
  #hasRoom(mode: CallMode): boolean {
    return mode === 'broadcast' || this.busy < this.limit
  }

  /** Handlers are added after the service was registered: a call may come before. */
  get #awaitsHandlers(): boolean {
    return this.#deps.clock.now() < this.#handlersDueAt && this.#early.length < MAX_EARLY
  }

  #waitForHandler(call: IncomingCall): void {
    this.#early.push(call)
  }

  #refuseEarly(reason: Refusal): void {
    const early = this.#early
    this.#early = []
    for (const call of early) if (!call.over) this.#refuseWaiting(call, reason)
  }

  #startOrQueue(call: IncomingCall): void {
    if (call.mode === 'broadcast' || this.#running.size < this.options.capacity) this.#start(call)
    else this.#backlog.push(call)
  }

  #start(call: IncomingCall): void {
    const handler = this.#handlers.get(call.event)
    if (!handler) return this.#refuseWaiting(call, 'event')
    this.#waiting--
    this.#running.add(call)
    call.start(handler)
  }

  /** The handler is not called. Its caller may try another process. */
  #refuse(call: Pick<DealtCall, 'id' | 'from' | 'turn' | 'mode'>, reason: Refusal): void {
    this.#finished++
    const message = refusalMessage(call, this.#deps.store.address, reason)
    this.#report(call.mode === 'notify' ? [] : [{ to: call.from, message }])
  }

  /** Removes a call from the backlog, or from those that wait for their handlers. */
  #refuseWaiting(call: IncomingCall, reason: Refusal): void {
    this.#deps.history.delete(call.id)
    call.remove()
    this.#refuse(call, reason)
  }

  #onOver(call: IncomingCall, { error, ms }: { error: string | undefined; ms: number | undefined }): void {
    if (!this.#running.delete(call)) {
      this.#waiting--
      return
    }
    this.#finished++
    this.#count(call.event, error, ms ?? 0)
    if (ms !== undefined)
      emit('serve', {
        service: this.service,
        handler: call.event,
        id: call.id,
        ms,
        failed: error !== undefined,
      })
    this.#deps.history.keepReply(call)
    const { reply } = call
    this.#report(reply ? [{ to: call.from, message: reply }] : [])
    this.#startNext()
    if (this.busy === 0) this.#idle?.resolve()
  }

  #startNext(): void {
    while (this.#running.size < this.options.capacity) {
      const next = this.#backlog.shift()
      if (!next) return
      // Those that were removed meanwhile are over.
      if (!next.over) this.#start(next)
    }
  }

  #count(event: string, error: string | undefined, ms: number): void {
    const stats = this.stats.get(event) ?? { calls: 0, errors: 0, lastError: undefined, ms: 0 }
    this.stats.set(event, stats)
    stats.calls++
    stats.ms += ms
    if (error === undefined) return
    stats.errors++
    stats.lastError = error.slice(0, MAX_LAST_ERROR)
  }

  /** What is to be said to a caller that asks for a call. */
  #answersOf(call: IncomingCall): Addressed[] {
    const { address } = this.#deps.store
    if (call.mode === 'notify') return []
    if (!call.over) return [{ to: call.from, message: runningMessage(address, [call.id]) }]
    return [{ to: call.from, message: call.reply ?? forgottenMessage(call.id, address) }]
  }

  /** Sends replies and the load. Whoever misses a reply asks for it. */
  #report(replies: readonly Addressed[]): void {
    const { store, storeTimeout } = this.#deps
    this.#reporting++
    store
      .report(this.service, this.load, replies, storeTimeout)
      .catch(() => {
        for (const reply of replies) this.#unsent.set(reply.message.fields[0] ?? '', reply)
      })
      .then(() => {
        this.#reporting--
        if (this.#reporting > 0) return
        this.#reported?.resolve()
        this.#reported = undefined
      })
  }

  /** Redis answers again: sends what it did not take. */
  resend(): void {
    const replies = [...this.#unsent].flatMap(([id, unsent]) => {
      const call = this.#deps.history.get(id)
      call?.resume()
      return call ? this.#answersOf(call) : [unsent]
    })
    this.#unsent.clear()
    // Each by itself: the store sends them together only up to a size.
    for (const reply of replies) this.#report([reply])
  }

  /** Whether Redis has taken everything. */
  get hasSentAll(): boolean {
    return this.#unsent.size === 0 && this.#reporting === 0
  }

  /** Of the calls that were dealt to this process, so many have arrived or were lost with the subscription. */
  onMark(dealt: number): void {
    const lost = dealt - this.#received
    // Anybody can forge a mark. One that is beyond all doubt too high would spoil the load for good.
    if (lost <= 0 || lost > MAX_LOST) return
    this.#received += lost
    this.#finished += lost
    this.#report([])
  }

  #send(call: IncomingCall, message: Message): void {
    const { store, storeTimeout } = this.#deps
    store.send(call.from, message, storeTimeout).then(
      (heard) => {
        if (!heard) call.onUnheard()
      },
      () => {
        if (call.mode === 'stream') this.#unsent.set(call.id, { to: call.from, message })
      },
    )
  }

  /** Hands the calls of the backlog back: another process can run them. */
  handBack(): void {
    for (let call = this.#backlog.shift(); call; call = this.#backlog.shift())
      if (!call.over) this.#refuseWaiting(call, 'closing')
    this.#refuseEarly('closing')
  }

  /** Resolves when no call runs or waits. */
  idle(): Promise<void> {
    if (this.busy === 0) return Promise.resolve()
    this.#idle ??= pDefer<void>()
    return this.#idle.promise
  }

  /** Resolves when Redis has answered all reports, or they have failed. */
  reported(): Promise<void> {
    if (this.#reporting === 0) return Promise.resolve()
    this.#reported ??= pDefer<void>()
    return this.#reported.promise
  }

  /** Ends the calls that still run, and tells their callers. */
  giveUp(): void {
    for (const call of [...this.#running]) call.giveUp()
  }
}
