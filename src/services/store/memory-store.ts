import { LocalCensus } from '../../kernel/census.ts'
import { InMemoryHub, sweeper } from '../../kernel/in-memory-store.ts'
import { newId } from '../../kernel/keys.ts'
import { type Clock, microtask, systemClock } from '../../kernel/time.ts'
import { MemoryStore } from '../../locker/index.ts'
import { type RecordContext, ServiceRecord } from './service-record.ts'
import type {
  Addressed,
  Announcement,
  Dealt,
  Dispatch,
  DispatchHandler,
  Health,
  Load,
  Message,
  Registration,
  ServicesStore,
  StoreListener,
} from './store.ts'

/** Options of a {@link MemoryServices}. */
export interface MemoryServicesOptions {
  /** The clock. For tests. @default the clock of the process */
  clock?: Clock | undefined
  /** Delivers a message. For tests that delay or lose messages. @default in a microtask */
  deliver?: ((message: () => void) => void) | undefined
}

/**
 * The records of services in the memory of this process, with the same transitions as on Redis. Used by Services without
 * Redis, and by tests in which several Services objects behave like several processes.
 */
export class MemoryServices {
  readonly clock: Clock
  readonly #hub: InMemoryHub<StoreListener>
  readonly #records = new Map<string, ServiceRecord>()
  readonly #sweepLater: () => void
  /** What the Services objects here answer to each other. @internal */
  readonly census: LocalCensus = new LocalCensus()
  #lockStore: MemoryStore | undefined

  constructor({ clock = systemClock, deliver = microtask }: MemoryServicesOptions = {}) {
    this.clock = clock
    this.#hub = new InMemoryHub(deliver)
    this.#sweepLater = sweeper(clock, () => this.#sweep())
  }

  /** The locks by which identical calls share one run. @internal */
  get lockStore(): MemoryStore {
    this.#lockStore ??= new MemoryStore({ clock: this.clock })
    return this.#lockStore
  }

  /** Connects one Services object. @internal */
  connect(): ServicesStore {
    return new MemoryClient(this, this.#hub)
  }

  /** Runs a transition of the record of a service. @internal */
  apply<T>(service: string, transition: (record: ServiceRecord, context: RecordContext) => T): T {
    const record = this.#records.get(service) ?? new ServiceRecord(service)
    const result = transition(record, this.#context())
    if (record.isEmpty) this.#records.delete(service)
    else this.#records.set(service, record)
    this.#sweepLater()
    return result
  }

  #context(): RecordContext {
    return {
      now: this.clock.now(),
      send: (to, messages) => {
        const sent = messages.map((message) => this.send(to, message))
        return !sent.includes(false)
      },
      announce: (announcement) => this.announce(announcement),
    }
  }

  /** @internal */
  send(to: string, message: Message): boolean {
    return this.#hub.send(to, (listener) => listener.onMessage(message))
  }

  /** @internal */
  announce(announcement: Announcement): void {
    this.#hub.broadcast((listener) => listener.onAnnouncement(announcement))
  }

  /** Removes processes whose leases are over. Settings live as long as this object. */
  #sweep(): boolean {
    for (const service of [...this.#records.keys()])
      this.apply(service, (record, context) => record.check('', context))
    return [...this.#records.values()].some((record) => record.processes.size > 0)
  }
}

/** One Services object. Every transition takes effect at once; its reply follows in a microtask. */
class MemoryClient implements ServicesStore {
  readonly countsReceivers = true
  readonly subscriptionError = undefined
  readonly #services: MemoryServices
  readonly #hub: InMemoryHub<StoreListener>
  /** Undefined until {@link open}. */
  #inbox: string | undefined
  readonly #nonce = newId()

  constructor(services: MemoryServices, hub: InMemoryHub<StoreListener>) {
    this.#services = services
    this.#hub = hub
  }

  get address(): string {
    return (this.#inbox ?? '') + this.#nonce
  }

  get subscribed(): boolean {
    return true
  }

  open(listener: StoreListener): void {
    this.#inbox = this.#hub.connect(listener)
  }

  async close(): Promise<void> {
    if (this.#inbox !== undefined) this.#hub.disconnect(this.#inbox)
  }

  dispatch(dispatch: Dispatch, _within: number, handler: DispatchHandler): void {
    const [reply] = this.#services.apply(dispatch.service, (record, context) =>
      record.dispatch([dispatch], context),
    )
    microtask(() => reply && handler.onReply(reply))
  }

  async dispatchAll(service: string, message: Message): Promise<Dealt[]> {
    const dealt = this.#services.apply(service, (record, context) => record.dispatchAll(message, context))
    return dealt.map((each) => ({ kind: 'dealt', ...each }))
  }

  async report(service: string, load: Load, replies: readonly Addressed[]): Promise<void> {
    this.#services.apply(service, (record, context) => record.report(this.address, load, replies, context))
  }

  async register(registrations: readonly Registration[]): Promise<undefined[]> {
    for (const registration of registrations) {
      this.#services.apply(registration.service, (record, context) =>
        record.register(this.address, registration, context),
      )
    }
    return registrations.map(() => undefined)
  }

  async unregister(service: string, message: Message): Promise<void> {
    this.#services.apply(service, (record, context) => record.unregister(this.address, message, context))
  }

  async mark(service: string, message: Message): Promise<void> {
    this.#services.apply(service, (record, context) => record.mark(this.address, message, context))
  }

  async check(service: string, process: string): Promise<Health> {
    return this.#services.apply(service, (record, context) => record.check(process, context))
  }

  async count(service: string): Promise<number> {
    return this.#services.apply(service, (record, context) => record.count(context))
  }

  async prune(service: string, probe: Message): Promise<string[]> {
    return this.#services.apply(service, (record, context) => record.prune(probe, context))
  }

  async send(to: string, message: Message): Promise<boolean> {
    return this.#services.send(to, message)
  }

  async announce(announcement: Announcement): Promise<void> {
    this.#services.announce(announcement)
  }

  async readSetting(service: string, name: string): Promise<Buffer | undefined> {
    return this.#services.apply(service, (record) => record.settings.get(name))
  }

  async writeSetting(service: string, name: string, bytes: Buffer | undefined): Promise<boolean> {
    return this.#services.apply(service, (record, context) => record.writeSetting(name, bytes, context))
  }
}
