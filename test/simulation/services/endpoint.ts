import { UnavailableError } from '../../../src/errors.ts'
import { newId } from '../../../src/kernel/keys.ts'
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
} from '../../../src/services/store/store.ts'
import { Link } from '../link.ts'
import type { SimProcess } from '../process.ts'
import { Subscription } from '../subscription.ts'
import type { Disturbance } from './history.ts'
import type { ServicesPort } from './port.ts'
import type { ServicesPeer } from './server.ts'
import type { ServicesWorld } from './world.ts'

/** The command connection. Its failures are disturbances. */
class NotedLink extends Link {
  readonly #note: (ms: number) => void

  constructor(sim: SimProcess, world: ServicesWorld) {
    super(sim, world, (line) => world.history.say(line))
    this.#note = (ms) => world.history.disturb(sim.id, world.scheduler.now, world.scheduler.now + ms)
  }

  override cut(downFor: number, resend: boolean): void {
    this.#note(downFor)
    super.cut(downFor, resend)
  }

  override call<T>(...args: Parameters<typeof Link.prototype.call<T>>): Promise<T> {
    const reply = super.call<T>(...args)
    reply.catch((error) => {
      if (error instanceof UnavailableError) this.#note(0)
    })
    return reply
  }
}

/** The subscription. It is disturbed from its loss until the process hears again. */
class NotedSubscription extends Subscription {
  readonly #note: () => void

  constructor(
    sim: SimProcess,
    world: ServicesWorld,
    listeners: ReadonlySet<{ up(): void; down(): void }>,
    note: () => void,
  ) {
    super(sim, world, listeners)
    this.#note = note
  }

  override lose(silently: boolean, noticedAfter: number, downFor: number): void {
    this.#note()
    super.lose(silently, noticedAfter, downFor)
  }
}

/** The store as one process sees it: over a connection for commands and a subscription. Both can fail. */
export class ServicesEndpoint implements ServicesStore, ServicesPeer {
  readonly address: string = newId() + newId()
  readonly countsReceivers = true
  readonly subscriptionError = undefined
  readonly link: Link
  readonly subscription: Subscription
  readonly #sim: SimProcess
  readonly #world: ServicesWorld
  readonly #port: ServicesPort
  readonly #listeners = new Set<{ up(): void; down(): void }>()
  #listener: StoreListener | undefined
  #requests = 0
  #deaf: Disturbance | undefined
  #lastSent: Promise<unknown> = Promise.resolve()

  constructor(sim: SimProcess, world: ServicesWorld, portOf: (address: string) => ServicesPort) {
    this.#sim = sim
    this.#world = world
    this.#port = portOf(this.address)
    this.link = new NotedLink(sim, world)
    this.subscription = new NotedSubscription(sim, world, this.#listeners, () => this.#deafen())
  }

  get process(): number {
    return this.#sim.id
  }

  get subscribed(): boolean {
    return this.subscription.subscribed
  }

  #deafen(): void {
    this.#deaf ??= this.#world.history.disturb(
      this.process,
      this.#world.scheduler.now,
      Number.POSITIVE_INFINITY,
    )
  }

  open(listener: StoreListener): void {
    const { server, scheduler, random, plan, history } = this.#world
    this.#listener = listener
    this.#listeners.add({
      up: () => {
        if (this.#deaf) this.#deaf.until = scheduler.now
        this.#deaf = undefined
        history.say(() => `p${this.process} hears`)
        listener.onUp()
      },
      down: () => {},
    })
    server.join(this.address, this)
    this.#deafen()
    this.subscription.connect(random.exponential(plan.latency))
  }

  receive(message: Message): boolean {
    const { history } = this.#world
    const received = this.subscription.send(() => {
      history.say(() => `p${this.process} receives ${message.kind} ${brief(message)}`)
      this.#listener?.onMessage(message)
    }, false)
    if (received && message.kind === 'c') this.#world.noteDeal(this.process, message)
    return received
  }

  hear(announcement: Announcement): void {
    this.subscription.send(() => this.#listener?.onAnnouncement(announcement), false)
  }

  #call<T>(name: string, run: () => T, within: number, late?: (reply: T) => void): Promise<T> {
    return this.link.call(`p${this.process} ${name}`, async () => run(), within, late)
  }

  #request(): string {
    return `${this.process} ${++this.#requests}`
  }

  dispatch(dispatch: Dispatch, within: number, handler: DispatchHandler): void {
    const { message, service } = dispatch
    const request = this.#request()
    this.#world.noteSent(message)
    const answered: DispatchHandler['onReply'] = (reply) => handler.onReply(reply)
    this.#call(
      `dispatch ${service} ${brief(message)}`,
      () => this.#port.dispatch(dispatch, request),
      within,
      answered,
    ).then(answered, (error) => handler.onError(error))
  }

  dispatchAll(service: string, message: Message, within: number): Promise<Dealt[]> {
    const request = this.#request()
    this.#world.noteSent(message)
    return this.#call(
      `dispatchAll ${service}`,
      () => this.#port.dispatchAll(service, message, request),
      within,
    )
  }

  report(service: string, load: Load, replies: readonly Addressed[], within: number): Promise<void> {
    const name = `report ${load.received} ${load.finished}`
    return this.#noted(this.#call(name, () => this.#port.report(service, load, replies), within))
  }

  /** The last report or message is waited for when the store is closed. */
  #noted<T>(sent: Promise<T>): Promise<T> {
    this.#lastSent = sent
    return sent
  }

  async register(
    registrations: readonly Registration[],
    within: number,
  ): Promise<readonly (Error | undefined)[]> {
    const registered = this.#call('register', () => this.#port.register(registrations), within)
    const error = await registered.then(
      () => undefined,
      (reason: Error) => reason,
    )
    return registrations.map(() => error)
  }

  unregister(service: string, message: Message, within: number): Promise<void> {
    return this.#call('unregister', () => this.#port.unregister(service, message), within)
  }

  mark(service: string, message: Message, within: number): Promise<void> {
    return this.#call('mark', () => this.#port.mark(service, message), within)
  }

  check(service: string, process: string, within: number): Promise<Health> {
    return this.#call('check', () => this.#port.check(service, process), within)
  }

  count(service: string, within: number): Promise<number> {
    return this.#call('count', () => this.#port.count(service), within)
  }

  prune(service: string, probe: Message, within: number): Promise<string[]> {
    return this.#call('prune', () => this.#port.prune(service, probe), within)
  }

  send(to: string, message: Message, within: number): Promise<boolean> {
    return this.#noted(this.#call(`send ${message.kind}`, () => this.#port.send(to, message), within))
  }

  announce(announcement: Announcement, within: number): Promise<void> {
    return this.#noted(
      this.#call(`announce ${announcement.kind}`, () => this.#port.announce(announcement), within),
    )
  }

  readSetting(service: string, name: string, within: number): Promise<Buffer | undefined> {
    return this.#call('readSetting', () => this.#port.readSetting(service, name), within)
  }

  writeSetting(service: string, name: string, bytes: Buffer | undefined, within: number): Promise<boolean> {
    return this.#call('writeSetting', () => this.#port.writeSetting(service, name, bytes), within)
  }

  async close(): Promise<void> {
    this.#listener = undefined
    this.#listeners.clear()
    await this.#lastSent.catch(() => {})
    this.#world.server.leave(this.address)
    this.link.close()
    this.subscription.close()
  }
}

function brief({ fields }: Message): string {
  return fields.map((field) => (field.length > 20 ? field.slice(0, 4) : field)).join(' ')
}
