import { ClosedError, type Ran } from '../errors.ts'
import type { CensusMember } from '../kernel/census.ts'
import { listenTo, TransientSet } from '../kernel/collections.ts'
import { ContextEmitter } from '../kernel/hooks.ts'
import { checkWellFormedName } from '../kernel/names.ts'
import { checkTimeout } from '../kernel/options.ts'
import { connectionFor } from '../kernel/redis/connection.ts'
import { emit } from '../kernel/telemetry.ts'
import { Deadlines } from '../kernel/time.ts'
import { Locker } from '../locker/index.ts'
import { Arrivals } from './arrivals.ts'
import type { OpenCall } from './calling/call-terms.ts'
import { Calls } from './calling/calls.ts'
import { contribute, listProcesses, type ProcessInfo } from './census.ts'
import type { AnyApi, Api } from './contract.ts'
import { DirectMessages } from './direct-messages.ts'
import { PROBE } from './messages.ts'
import {
  checkRequireOptions,
  type RegisterOptions,
  type RequireOptions,
  resolveRegisterOptions,
  resolveServicesOptions,
  type ServicesContext,
  type ServicesOptions,
} from './options.ts'
import { Remote, type RemoteDeps } from './remote.ts'
import { Service } from './service.ts'
import { parseInfo, type ServingInfo } from './serving/registrations.ts'
import { ServingProcess } from './serving/serving-process.ts'
import type { SettingsDeps } from './settings.ts'
import { MemoryServices } from './store/memory-store.ts'
import { RedisServicesStore } from './store/redis/redis-store.ts'
import type { Announcement, Message } from './store/store.ts'
import { SubscriptionWait } from './subscription-wait.ts'

/** Statistics of a Services object. */
export interface ServicesStats {
  /** Calls that wait for an answer. */
  calling: number
  /** Calls that run or wait here. */
  serving: number
  /** Answers that came after the end of the call. */
  late: number
  /** Whether the subscription to messages is established. */
  subscribed: boolean
}

/** Events of a Services object. `up` and `down` are best effort. */
export interface ServicesEvents {
  /** A process serves a service from now on. */
  up: [ServingInfo]
  /**
   * A process no longer serves a service: it was closed, has died, or is paused. If it has only lost its subscription, it
   * registers again, and `up` follows.
   */
  down: [ServingInfo]
  /** Another Services object has sent a message. */
  message: [from: string, message: unknown]
}

/** How long `close` waits for running calls by default, ms. */
const DEFAULT_GRACE = 5_000

/**
 * Services by name: processes register services and call those of others. There is no master. Each call goes to the least
 * busy process that has room. Without the option `redis`, services work within this process.
 *
 * @example
 * const services = new Services({ redis: 'redis://localhost:6379' })
 * const sums = await services.register<Sums>('sums', { capacity: 50 })
 * sums.on('add', (a, b) => a + b)
 * await services.require<Sums>('sums').emit('add', 2, 3) // 5
 */
export class Services extends ContextEmitter<ServicesEvents> implements AsyncDisposable {
  readonly #link: ReturnType<typeof connectionFor>
  readonly #context: ServicesContext
  readonly #prefix: string
  readonly #calls: Calls
  readonly #serving: ServingProcess
  readonly #deps: RemoteDeps
  readonly #arrivals: Arrivals
  /** What to call when a setting has changed. */
  readonly #settingListeners = new Map<string, Set<() => void>>()
  /** Calls that are not over. */
  readonly #open = new TransientSet<OpenCall>()
  readonly #messages: DirectMessages
  readonly #subscription: SubscriptionWait
  readonly #memory: MemoryServices | undefined
  readonly #census: CensusMember
  readonly #stopContributing: () => void
  #locker: Locker | undefined
  #closing: Promise<void> | undefined
  /** Handlers run no more, or their grace is over. */
  #graceOver = false

  /** Does not wait for a connection. @throws TypeError if an option is invalid. */
  constructor(given: ServicesOptions = {}) {
    super()
    const options = resolveServicesOptions(given)
    const link = connectionFor(given, 'Services')
    this.#link = link
    this.#memory = link ? undefined : (given.store ?? new MemoryServices({ clock: given.clock }))
    this.#prefix = options.prefix
    const store = link
      ? new RedisServicesStore(link.connection, options.prefix)
      : (this.#memory as MemoryServices).connect()
    const clock = link?.connection.clock ?? (this.#memory as MemoryServices).clock
    this.#context = { store, clock, options, storeTimeout: options.unavailableAfter }
    this.#calls = new Calls(this.#context)
    this.#subscription = new SubscriptionWait(this.#context)
    this.#messages = new DirectMessages(this.#context, this.#subscription, (from, message) =>
      this.emit('message', from, message),
    )
    this.#serving = new ServingProcess(this.#context, this.#subscription)
    this.#arrivals = new Arrivals(this.#context, () => this.#assertOpen())
    const settings: SettingsDeps = {
      ...this.#context,
      assertOpen: () => this.#assertOpen(),
      onSetting: (service, setting, changed) =>
        listenTo(this.#settingListeners, settingKey(service, setting), changed),
    }
    this.#deps = {
      ...this.#context,
      settings,
      calls: this.#calls,
      deadlines: new Deadlines(clock),
      open: this.#open,
      onArrival: (service, arrived) => this.#arrivals.listen(service, arrived),
      assertOpen: () => this.#assertOpen('no'),
      locker: () => this.#requireLocker(),
      ready: (service, timeout) => this.#arrivals.ready(service, timeout),
    }
    store.open({
      onMessage: (message) => this.#onMessage(message),
      onAnnouncement: (announcement) => this.#onAnnouncement(announcement),
      onUp: () => this.#onUp(),
    })
    this.#census = link?.connection ?? (this.#memory as MemoryServices).census
    this.#stopContributing = contribute(this.#census, this.id, options.prefix, this.#serving)
  }

  /** Address of this object: others send messages to it. */
  get id(): string {
    return this.#context.store.address
  }

  /**
   * Registers a service, which this process then serves until {@link unregister} or `close`. It stays alive that long.
   * @throws DuplicateHandlerError if this object has registered it; UnavailableError, also if an ACL forbids to publish or to
   * subscribe; ClosedError; TypeError.
   */
  async register<A extends Api<A> = AnyApi>(
    name: string,
    options: RegisterOptions = {},
  ): Promise<Service<A>> {
    if (this.#closing) throw closedError()
    checkWellFormedName('name', name)
    const host = await this.#serving.register(name, resolveRegisterOptions(options))
    return new Service<A>(host, this.#deps.settings)
  }

  /** Stops serving a service: see `close`. Never rejects, if the options are valid. */
  async unregister(name: string, { grace = DEFAULT_GRACE }: { grace?: number } = {}): Promise<void> {
    checkTimeout('grace', grace)
    await this.#serving.unregister(name, grace)
  }

  /** Returns the service of this name, to be called. Makes no request. @throws TypeError, ClosedError. */
  require<A extends Api<A> = AnyApi>(name: string, options: RequireOptions = {}): Remote<A> {
    this.#assertOpen()
    checkWellFormedName('name', name)
    checkRequireOptions(options)
    return new Remote<A>(name, options, {}, this.#deps)
  }

  /**
   * Sends a message to another Services object, or to this one: its event `message`. Resolves with true when the receiver has
   * confirmed it; with false if none listens, or none confirms it within `unavailableAfter`: it may still be received.
   * @throws UnavailableError, CodecError, TooLargeError, ClosedError, TypeError.
   */
  async send(id: string, message: unknown): Promise<boolean> {
    this.#assertOpen()
    return this.#messages.send(id, message)
  }

  /**
   * Returns the response time of another Services object, ms.
   * @throws TimeoutError if none listens, or after 5 s; UnavailableError, ClosedError, TypeError.
   */
  async ping(id: string): Promise<number> {
    this.#assertOpen()
    return this.#messages.ping(id)
  }

  /**
   * Asks all processes which services they serve, and how busy they are; with `name`, those of one service. Takes up to a second.
   * A paused process does not answer.
   * @throws UnavailableError, OverloadedError, ClosedError, TypeError.
   */
  async list(name?: string): Promise<ProcessInfo[]> {
    this.#assertOpen()
    if (name !== undefined) checkWellFormedName('name', name)
    return listProcesses(this.#census, this.#prefix, name)
  }

  /**
   * Removes processes of the services that this object serves if their leases have ended, or they do not listen. Other calls
   * normally do this. Returns their ids.
   * @throws UnavailableError, OverloadedError, ClosedError.
   */
  async clean(): Promise<string[]> {
    this.#assertOpen()
    const { store, storeTimeout } = this.#context
    const services = this.#serving.hosts.map(({ service }) => service)
    const struck = await Promise.all(services.map((service) => store.prune(service, PROBE, storeTimeout)))
    return [...new Set(struck.flat())]
  }

  /** The present load of this object; `late` counts since it was created. */
  stats(): ServicesStats {
    return {
      calling: this.#open.size,
      serving: this.#serving.busy,
      late: this.#calls.late,
      subscribed: this.#context.store.subscribed,
    }
  }

  #requireLocker(): Locker {
    const { unavailableAfter, codec } = this.#context.options
    this.#locker ??= new Locker({
      prefix: this.#prefix,
      codec,
      unavailableAfter,
      cache: false,
      ...(this.#link ? { redis: this.#link.connection } : { store: this.#memory?.lockStore }),
    })
    return this.#locker
  }

  #onMessage(message: Message): void {
    if (this.#calls.onMessage(message) || this.#serving.onMessage(message)) return
    this.#messages.onMessage(message)
  }

  #onAnnouncement(announcement: Announcement): void {
    const { kind } = announcement
    if (kind === 'resumed') return this.#calls.recover(announcement.process)
    if (kind === 'setting') {
      const key = settingKey(announcement.service, announcement.name)
      for (const changed of this.#settingListeners.get(key) ?? []) changed()
      return
    }
    const { service, process } = announcement
    emit('process', { service, process, up: kind === 'up' })
    if (kind === 'down') this.#calls.onDown(service, process)
    else this.#arrivals.onArrival(service)
    const info = parseInfo(announcement.info)
    if (info) this.emit(kind, info)
  }

  #onUp(): void {
    this.#subscription.onUp()
    this.#calls.recover()
    this.#serving.onUp()
    for (const listeners of [...this.#settingListeners.values()]) for (const changed of listeners) changed()
    this.#arrivals.onUp()
  }

  /** While it closes, handlers that still run may use it. `ran`: of the error of a call. */
  #assertOpen(ran?: Ran): void {
    if (this.#closing && (this.#graceOver || this.#serving.busy === 0)) throw closedError(ran)
  }

  /**
   * Takes no more calls, hands back those of the backlog, waits up to `grace` ms for running calls, and rejects the rest with
   * ProcessLostError. Until then this object can call, as long as a handler runs; then its calls get ClosedError. Never rejects.
   * @throws TypeError if `grace` is not a duration.
   */
  close({ grace = DEFAULT_GRACE }: { grace?: number } = {}): Promise<void> {
    checkTimeout('grace', grace)
    this.#closing ??= this.#close(grace)
    return this.#closing
  }

  async #close(grace: number): Promise<void> {
    await this.#serving.close(grace)
    this.#graceOver = true
    // Other processes take over the runs that they share with this one.
    await this.#locker?.close({ grace: 0 })
    for (const call of [...this.#open]) call.close()
    this.#stopContributing()
    this.#calls.close()
    await this.#context.store.close()
    await this.#link?.release()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }
}

function closedError(ran?: Ran): ClosedError {
  return new ClosedError('The Services object was closed', { ran })
}

function settingKey(service: string, name: string): string {
  return JSON.stringify([service, name])
}
