import { DuplicateHandlerError } from '../../errors.ts'
import { type Clock, Deadlines, renewalRetryPause, type Timer } from '../../kernel/time.ts'
import { refProcess, unrefProcess } from '../../kernel/waiter.ts'
import {
  forgottenMessage,
  lastMessage,
  markMessage,
  numberOf,
  parseCall,
  parseMark,
  parseQuery,
  queryMessage,
  type Refusal,
  refusalMessage,
  runningMessage,
  serviceOf,
} from '../messages.ts'
import type { ServicesContext } from '../options.ts'
import type { Message, Registration } from '../store/store.ts'
import type { SubscriptionWait } from '../subscription-wait.ts'
import { CallHistory, TICK_MS } from './call-history.ts'
import { describe, Registrations } from './registrations.ts'
import { type HostOptions, ServiceHost } from './service-host.ts'

/** How long the last message about a service is waited for, ms: calls may be under way. */
const LAST_MESSAGE_TIMEOUT = 500

/** Questions whose answers are repeated when Redis takes them again, at most. */
const MAX_UNANSWERED = 1_000

/** For how long this process tries to send what Redis did not take, when it serves nothing any more, ms. */
const RESEND_MS = 15_000

/** Services whose calls are counted beyond their end, at most: the latest. */
const MAX_SERVED_BEFORE = 10_000

/** Serves services in this process: registers them, receives their calls, and answers questions about these. */
export class ServingProcess {
  readonly #context: ServicesContext
  readonly #clock: Clock
  readonly #deadlines: Deadlines
  readonly #hosts = new Map<string, ServiceHost>()
  /** Hosts that serve no more, but have something to send. */
  readonly #unregistered = new Set<ServiceHost>()
  /** How many calls of services that it has served before it has received. */
  readonly #receivedBefore = new Map<string, number>()
  /** Services that take no more calls, until they are unregistered. Resolves when the last calls have been refused. */
  readonly #closing = new Map<string, Promise<void>>()
  readonly #history = new CallHistory()
  readonly #registrations: Registrations
  readonly #subscription: SubscriptionWait
  /** Resolved by the last message about a service. */
  readonly #lastMessages = new Map<string, () => void>()
  /** Questions whose answer Redis did not take, with the time at which they arrived, by the clock, ms. */
  #unanswered = new Map<Message, number>()
  #ticks: Timer | undefined
  #resendTimer: Timer | undefined
  #closed = false
  /** Messages to this process may have been lost, and Redis has not taken yet what it says about that. */
  #resuming = false

  constructor(context: ServicesContext, subscription: SubscriptionWait) {
    this.#context = context
    this.#subscription = subscription
    this.#clock = context.clock
    this.#deadlines = new Deadlines(context.clock)
    this.#registrations = new Registrations(context, {
      onRenewed: () => {
        this.#resend()
        if (this.#resuming) void this.#resume()
      },
      onBehind: (service) => void this.#sendMarks([service]).catch(() => {}),
    })
  }

  /** Redis answers again, or may: sends what it did not take. */
  #resend(): void {
    for (const host of this.#unregistered) if (host.hasSentAll) this.#unregistered.delete(host)
    for (const host of [...this.#hosts.values(), ...this.#unregistered]) host.resend()
    this.#answerAgain()
  }

  /** Without a registration there are no renewals after which it is sent: tries for as long as replies are kept. */
  #resendLater(until: number = this.#clock.now() + RESEND_MS): void {
    if (this.#resendTimer || this.#closed || this.#registrations.services.length > 0) return
    this.#resendTimer = this.#clock.after(
      renewalRetryPause(this.#context.options.lease),
      () => {
        this.#resendTimer = undefined
        this.#resend()
        const hosts = [...this.#hosts.values(), ...this.#unregistered]
        const hasSentAll = this.#unanswered.size === 0 && hosts.every((host) => host.hasSentAll)
        if (!hasSentAll && this.#clock.now() < until) this.#resendLater(until)
      },
      true,
    )
  }

  get hosts(): readonly ServiceHost[] {
    return [...this.#hosts.values()]
  }

  /** Calls that run or wait here. */
  get busy(): number {
    let busy = 0
    for (const host of this.#hosts.values()) busy += host.busy
    return busy
  }

  leaseLeft(service: string): number {
    return this.#registrations.leaseLeft(service)
  }

  /** @throws DuplicateHandlerError if this process serves it already; UnavailableError, also if it may not hear or publish. */
  async register(service: string, options: HostOptions): Promise<ServiceHost> {
    if (this.#hosts.has(service))
      throw new DuplicateHandlerError('This Services object has registered the service', { key: service })
    const host = new ServiceHost(service, options, {
      ...this.#context,
      deadlines: this.#deadlines,
      history: this.#history,
      receivedBefore: this.#receivedBefore.get(service) ?? 0,
      accepts: (name) => this.#refusalOf(name),
    })
    this.#hosts.set(service, host)
    refProcess(this.#clock)
    try {
      await this.#registrations.add(service, () => this.#registrationOf(host))
    } catch (error) {
      this.#forget(host)
      throw error
    }
    await this.#subscription.subscribed()
    const { subscriptionError } = this.#context.store
    if (subscriptionError) {
      await this.unregister(service, 0)
      throw subscriptionError
    }
    host.onRegistered()
    // Redis may not have noticed that it had left: the calls that came meanwhile are over.
    if (this.#receivedBefore.has(service)) this.#sendMarks([service]).catch(() => this.#resumeLater())
    return host
  }

  #registrationOf({ service, limit, load, options }: ServiceHost): Registration {
    const { lease } = this.#context.options
    const info = describe(this.#context.store.address, service, options.version)
    return { service, limit, lease, info, load }
  }

  #forget(host: ServiceHost): void {
    const { service } = host
    if (this.#hosts.get(service) !== host) return
    this.#hosts.delete(service)
    if (!host.hasSentAll) this.#unregistered.add(host)
    this.#receivedBefore.delete(service)
    this.#receivedBefore.set(service, host.load.received)
    const [oldest] = this.#receivedBefore.keys()
    if (oldest !== undefined && this.#receivedBefore.size > MAX_SERVED_BEFORE)
      this.#receivedBefore.delete(oldest)
    this.#closing.delete(service)
    this.#registrations.remove(service)
    if (!host.hasSentAll || this.#unanswered.size > 0) this.#resendLater()
    unrefProcess(this.#clock)
  }

  #refusalOf(service: string): Refusal | undefined {
    if (this.#closing.has(service)) return 'closing'
    return this.#registrations.leaseLeft(service) > 0 ? undefined : 'lease'
  }

  /**
   * Takes no more calls, hands the backlog back, waits up to `grace` ms for the calls that run, and tells the callers of the
   * rest that they are lost. Called twice, the shorter grace counts. Never rejects.
   */
  async unregister(service: string, grace: number): Promise<void> {
    const host = this.#hosts.get(service)
    if (!host) return
    const closing = this.#closing.get(service) ?? this.#stopAccepting(host)
    this.#closing.set(service, closing)
    await closing
    let timer: Timer | undefined
    const graceOver = new Promise<void>((resolve) => {
      if (grace !== Number.POSITIVE_INFINITY) timer = this.#clock.after(grace, resolve)
    })
    await Promise.race([host.idle(), graceOver])
    timer?.cancel()
    host.giveUp()
    // The connection may be closed next.
    await host.reported()
    this.#forget(host)
  }

  async #stopAccepting(host: ServiceHost): Promise<void> {
    this.#registrations.remove(host.service)
    await this.#leave(host.service)
    host.handBack()
  }

  /** Strikes itself off. Resolves when the calls that were dealt to it before have arrived, and are refused. */
  async #leave(service: string): Promise<void> {
    const { store, storeTimeout } = this.#context
    let timer: Timer | undefined
    const last = new Promise<void>((resolve) => {
      this.#lastMessages.set(service, resolve)
      timer = this.#clock.after(LAST_MESSAGE_TIMEOUT, resolve, true)
    })
    const isUnregistered = await store.unregister(service, lastMessage(service), storeTimeout).then(
      () => store.subscribed,
      () => false,
    )
    if (isUnregistered) await last
    timer?.cancel()
    this.#lastMessages.delete(service)
  }

  /** Returns whether the message was one for a process that serves. */
  onMessage(message: Message): boolean {
    const { kind, fields } = message
    if (kind === 'c') this.#onCall(message)
    else if (kind === 'a') this.#history.get(fields[0] ?? '')?.abort()
    else if (kind === 'k') this.#history.get(fields[0] ?? '')?.onCredit(numberOf(fields[1]) ?? 0)
    else if (kind === 'q') this.#onQuery(message)
    else if (kind === 's') this.#onMark(message)
    else if (kind === 'w') this.#lastMessages.get(serviceOf(message) ?? '')?.()
    else return false
    return true
  }

  #onCall(message: Message): void {
    const call = parseCall(message)
    if (!call) return
    this.#startTicks()
    const host = this.#hosts.get(call.service)
    if (host) return host.onCall(call)
    if (call.mode === 'notify') return
    const { store, storeTimeout } = this.#context
    const refusal = refusalMessage(call, store.address, 'closing')
    const now = this.#clock.now()
    store
      .send(call.from, refusal, storeTimeout)
      .catch(() => this.#answerLater(queryMessage(call.from, 0, [call]), now))
  }

  #onMark(message: Message): void {
    const mark = parseMark(message)
    if (!mark) return
    this.#registrations.onMark(mark.service, mark.lapses)
    this.#hosts.get(mark.service)?.onMark(mark.dealt)
  }

  async #sendMarks(services: readonly string[]): Promise<void> {
    const { store, storeTimeout } = this.#context
    const mark = (service: string) => markMessage(service, this.#registrations.lapsesOf(service))
    await Promise.all(services.map((service) => store.mark(service, mark(service), storeTimeout)))
  }

  /** Answers a question after the next renewal: Redis did not take the answer. */
  #answerLater(query: Message, arrivedAt: number): void {
    if (this.#unanswered.size < MAX_UNANSWERED) this.#unanswered.set(query, arrivedAt)
    this.#resendLater()
  }

  #answerAgain(): void {
    const unanswered = this.#unanswered
    this.#unanswered = new Map()
    for (const [message, at] of unanswered) this.#onQuery(message, at)
  }

  /** A caller may have missed replies, or this process calls. */
  #onQuery(message: Message, arrivedAt: number = this.#clock.now()): void {
    const query = parseQuery(message)
    if (!query) return
    this.#startTicks()
    const { address } = this.#context.store
    const running: string[] = []
    const answers: Message[] = []
    for (const queried of query.calls) {
      const { id } = queried
      const call = this.#history.get(id)
      call?.resume()
      if (!call) {
        const isNew = this.#history.surelyNew(query.age + this.#clock.now() - arrivedAt)
        if (isNew) this.#history.disown(queried)
        answers.push(isNew ? refusalMessage(queried, address, 'lost') : forgottenMessage(id, address))
      } else if (!call.over) running.push(id)
      else answers.push(call.reply ?? forgottenMessage(id, address))
    }
    // Always answers: the caller asks whether this process lives.
    answers.unshift(runningMessage(address, running))
    const { store, storeTimeout } = this.#context
    for (const answer of answers) {
      store.send(query.from, answer, storeTimeout).catch(() => this.#answerLater(message, arrivedAt))
    }
  }

  /** Messages to this process may have been lost: corrects the load, and lets the callers ask. */
  onUp(): void {
    if (this.#hosts.size === 0) return
    void this.#resume()
    void this.#registrations.renew()
  }

  /** If Redis does not take it, it is repeated after the next renewal. */
  async #resume(): Promise<void> {
    const { store, storeTimeout } = this.#context
    this.#resuming = false
    try {
      await this.#sendMarks(this.#registrations.services)
      await store.announce({ kind: 'resumed', process: store.address }, storeTimeout)
    } catch {
      this.#resumeLater()
    }
  }

  #resumeLater(): void {
    this.#resuming = true
  }

  /** Time passes for the history only while the event loop runs. */
  #startTicks(): void {
    if (this.#ticks) return
    this.#ticks = this.#clock.after(
      TICK_MS,
      () => {
        this.#ticks = undefined
        if (this.#history.advance()) this.#startTicks()
      },
      true,
    )
  }

  /** Unregisters all services. Never rejects. */
  async close(grace: number): Promise<void> {
    await Promise.all([...this.#hosts.keys()].map((service) => this.unregister(service, grace)))
    this.#closed = true
    this.#resendTimer?.cancel()
    this.#ticks?.cancel()
  }
}
