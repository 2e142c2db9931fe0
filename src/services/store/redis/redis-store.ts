import { UnavailableError } from '../../../errors.ts'
import { FORMAT, ID_LENGTH, isAddress, newId } from '../../../kernel/keys.ts'
import { ReplyCallbacks, type Request } from '../../../kernel/redis/call.ts'
import type { Connection } from '../../../kernel/redis/connection.ts'
import { refusedError } from '../../../kernel/redis/diagnosis.ts'
import { RepeatedRequest, ReplySlots } from '../../../kernel/redis/once.ts'
import { TurnBatcher } from '../../../kernel/redis/turn-batcher.ts'
import { nextTurn } from '../../../kernel/time.ts'
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
} from '../store.ts'
import { DispatchItem, MAX_SERVICES, ReportItem, UnregisterItem } from './batches.ts'
import { type ServicesScripts, servicesScripts } from './scripts/index.ts'
import { type Argument, ServiceCalls } from './service-calls.ts'
import {
  encodeAnnouncement,
  encodeBundles,
  encodeMessage,
  encodeNumbered,
  encodeTargets,
  parseAnnouncement,
  parseDispatchReply,
  parseHealth,
} from './wire.ts'

/** For tests. */
export interface RedisServicesStoreOptions {
  scripts?: ServicesScripts
}

/** The records of services on Redis: each transition is one script, on keys of one slot. */
export class RedisServicesStore implements ServicesStore {
  readonly address: string
  readonly #connection: Connection
  readonly #prefix: string
  readonly #scripts: ServicesScripts
  readonly #calls: ServiceCalls
  readonly #slots = new ReplySlots()
  /** Services of one script at most. */
  readonly #maxServices: number
  /** Where messages to this process arrive in the inbox. Its kept replies have this name too. */
  readonly #nonce = newId()
  readonly #dispatches: TurnBatcher<DispatchItem>
  readonly #reports: TurnBatcher<ReportItem>
  readonly #unregistrations: TurnBatcher<UnregisterItem>
  /** The last dispatch, report or message. */
  #lastSent: Promise<unknown> = Promise.resolve()
  /** Undefined until {@link open}. */
  #unlisten: (() => void) | undefined

  constructor(connection: Connection, prefix: string, options: RedisServicesStoreOptions = {}) {
    const { scripts = servicesScripts } = options
    this.address = connection.inbox.id + this.#nonce
    this.#connection = connection
    this.#prefix = prefix
    this.#scripts = scripts
    this.#calls = new ServiceCalls(connection, prefix)
    this.#dispatches = new TurnBatcher((service, items, within) => this.#dispatch(service, items, within))
    this.#reports = new TurnBatcher((service, items, within) => this.#report(service, items, within))
    // On a cluster, the keys of one script must be in one slot.
    this.#maxServices = connection.cluster ? 1 : MAX_SERVICES
    this.#unregistrations = new TurnBatcher(
      (_, items, within) => void this.#unregister(items, within),
      this.#maxServices,
    )
  }

  get countsReceivers(): boolean {
    return !this.#connection.cluster
  }

  get subscribed(): boolean {
    return this.#connection.subscribed
  }

  get subscriptionError(): UnavailableError | undefined {
    const { subscribed, lastError, inboxPrefix, broadcastChannel } = this.#connection
    if (subscribed || !lastError?.message.startsWith('NOPERM')) return undefined
    const channels = `${inboxPrefix}* and ${broadcastChannel}`
    return new UnavailableError(`Redis forbids SUBSCRIBE to ${channels}: ${lastError.message}`, {
      cause: lastError,
      sent: false,
    })
  }

  open(listener: StoreListener): void {
    this.#connection.inbox.listen(this.#nonce, { hint: (hint) => listener.onMessage(hint) })
    this.#unlisten = this.#connection.listen({
      up: () => listener.onUp(),
      down: () => {},
      broadcast: (message) => {
        const announcement = parseAnnouncement(this.#prefix, message)
        if (announcement) listener.onAnnouncement(announcement)
      },
    })
    this.#connection.open()
  }

  /** Leaves the connection open: others may use it. */
  async close(): Promise<void> {
    this.#connection.inbox.ignore(this.#nonce)
    this.#unlisten?.()
    // Dispatches are sent at the end of the turn. The reply to one may cause a message: nobody wants its result any more.
    await new Promise((resolve) => nextTurn(resolve))
    let last: Promise<unknown> | undefined
    while (last !== this.#lastSent) {
      last = this.#lastSent
      await last.catch(() => {})
    }
  }

  dispatch(dispatch: Dispatch, within: number, handler: DispatchHandler): void {
    this.#dispatches.add(dispatch.service, new DispatchItem(dispatch, handler), within)
  }

  #dispatch(service: string, items: readonly DispatchItem[], within: number): void {
    const args: Argument[] = []
    for (const { dispatch } of items) args.push(encodeTargets(dispatch), ...encodeNumbered(dispatch.message))
    const { request, onReplied } = this.#once('dispatch', service, args)
    const onReply = (reply: unknown) => {
      onReplied()
      const lines = String(reply).split('\n')
      for (const [index, { handler }] of items.entries()) {
        const parsed = parseDispatchReply(lines[index])
        if (typeof parsed === 'string') handler.onError(refusedError(parsed))
        else handler.onReply(parsed)
      }
    }
    const onError = (error: Error) => {
      for (const { handler } of items) handler.onError(error)
    }
    this.#lastSent = new Promise((resolve) => {
      const settled =
        <T>(settle: (outcome: T) => void) =>
        (outcome: T) => {
          settle(outcome)
          resolve(undefined)
        }
      const callbacks = new ReplyCallbacks(settled(onReply), settled(onError), onReplied)
      this.#connection.send(request, within, callbacks)
    })
  }

  /** A request that has the effect of one if it is sent twice. `onReplied` is called with its reply. */
  #once(
    script: 'dispatch' | 'dispatchAll',
    service: string,
    args: readonly Argument[],
  ): { request: Request; onReplied: () => void } {
    const { slot, number } = this.#slots.take()
    const names = this.#calls.keys(service)
    const keys = [...names.all, names.reply(this.#nonce, slot)]
    const head = [...this.#calls.head(), names.name]
    const make = (repetition: string) =>
      this.#scripts[script].with(keys, [...head, `${number}${repetition}`, ...args])
    const request = new RepeatedRequest(keys[0], this.#connection.clock, make)
    return { request, onReplied: () => this.#slots.release(slot) }
  }

  dispatchAll(service: string, message: Message, within: number): Promise<Dealt[]> {
    const sent = this.#dispatchAll(service, message, within)
    this.#lastSent = sent
    return sent
  }

  async #dispatchAll(service: string, message: Message, within: number): Promise<Dealt[]> {
    const { request, onReplied } = this.#once('dispatchAll', service, encodeNumbered(message))
    const reply = await new Promise((resolve, reject) =>
      this.#connection.send(request, within, new ReplyCallbacks(resolve, reject, onReplied)),
    )
    onReplied()
    const dealt: Dealt[] = []
    for (const line of String(reply).split('\n')) {
      const parsed = parseDispatchReply(line)
      if (typeof parsed === 'object' && parsed.kind === 'dealt') dealt.push(parsed)
    }
    return dealt
  }

  report(service: string, load: Load, replies: readonly Addressed[], within: number): Promise<void> {
    const sent = new Promise<void>((resolve, reject) =>
      this.#reports.add(service, new ReportItem(load, replies, resolve, reject), within),
    )
    this.#lastSent = sent
    return sent
  }

  #report(service: string, items: readonly ReportItem[], within: number): void {
    let received = 0
    let finished = 0
    const messages: Addressed[] = []
    for (const { load, replies } of items) {
      received = Math.max(received, load.received)
      finished = Math.max(finished, load.finished)
      messages.push(...replies)
    }
    const args: Argument[] = [this.address, String(received), String(finished)]
    for (const [inbox, bundle] of encodeBundles(messages)) args.push(inbox, bundle)
    this.#calls.call(this.#scripts.report, service, args, within).then(
      () => {
        for (const { resolve } of items) resolve()
      },
      (error) => {
        for (const { reject } of items) reject(error)
      },
    )
  }

  async register(
    registrations: readonly Registration[],
    within: number,
  ): Promise<readonly (Error | undefined)[]> {
    const batches: Promise<(Error | undefined)[]>[] = []
    for (let from = 0; from < registrations.length; from += this.#maxServices)
      batches.push(this.#register(registrations.slice(from, from + this.#maxServices), within))
    return (await Promise.all(batches)).flat()
  }

  #register(registrations: readonly Registration[], within: number): Promise<(Error | undefined)[]> {
    const args = ({ limit, lease, info, load }: Registration) => [
      ...[Number.isFinite(limit) ? String(limit) : '-1', String(lease), info],
      ...[String(load.received), String(load.finished)],
    ]
    return this.#calls.callForEach(this.#scripts.register, this.address, registrations, args, within)
  }

  /** A process that closes unregisters its services in one turn: they share scripts. */
  unregister(service: string, message: Message, within: number): Promise<void> {
    return new Promise((resolve, reject) =>
      this.#unregistrations.add(
        '',
        new UnregisterItem(service, encodeMessage(message), resolve, reject),
        within,
      ),
    )
  }

  async #unregister(items: readonly UnregisterItem[], within: number): Promise<void> {
    const args = ({ message }: UnregisterItem) => [message]
    const errors = await this.#calls.callForEach(this.#scripts.unregister, this.address, items, args, within)
    for (const [index, { resolve, reject }] of items.entries()) {
      const error = errors[index]
      if (error) reject(error)
      else resolve()
    }
  }

  async mark(service: string, message: Message, within: number): Promise<void> {
    const args = [this.address, ...encodeNumbered(message)]
    await this.#calls.call(this.#scripts.mark, service, args, within)
  }

  async check(service: string, process: string, within: number): Promise<Health> {
    return parseHealth(await this.#calls.call(this.#scripts.check, service, [process], within))
  }

  async count(service: string, within: number): Promise<number> {
    return Number(await this.#calls.call(this.#scripts.count, service, [], within)) || 0
  }

  async prune(service: string, probe: Message, within: number): Promise<string[]> {
    const reply = await this.#calls.call(this.#scripts.prune, service, [encodeMessage(probe)], within)
    return Array.isArray(reply) ? reply.map(String) : []
  }

  async send(to: string, message: Message, within: number): Promise<boolean> {
    if (!isAddress(to)) return false
    const { inboxPrefix, cluster } = this.#connection
    const text = Buffer.concat([Buffer.from(FORMAT + to.slice(ID_LENGTH)), encodeMessage(message)])
    const receivers = await this.#publish(inboxPrefix + to.slice(0, ID_LENGTH), text, within)
    return cluster || Number(receivers) > 0
  }

  async announce(announcement: Announcement, within: number): Promise<void> {
    const text = encodeAnnouncement(this.#prefix, announcement)
    await this.#publish(this.#connection.broadcastChannel, text, within)
  }

  #publish(channel: string, message: string | Buffer, within: number): Promise<unknown> {
    const sent = this.#connection.call(
      { send: (sender) => sender.send('publish', [channel, message]) },
      within,
    )
    this.#lastSent = sent
    return sent
  }

  async readSetting(service: string, name: string, within: number): Promise<Buffer | undefined> {
    const { all } = this.#calls.keys(service)
    const request = this.#scripts.readSetting.with(all, [JSON.stringify(name)])
    const reply = await this.#connection.call(request, within)
    return Buffer.isBuffer(reply) ? reply : undefined
  }

  async writeSetting(
    service: string,
    name: string,
    bytes: Buffer | undefined,
    within: number,
  ): Promise<boolean> {
    const args = [JSON.stringify(name), ...(bytes ? [bytes] : [])]
    return Number(await this.#calls.call(this.#scripts.writeSetting, service, args, within)) === 1
  }
}
