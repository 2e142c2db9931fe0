import { AlreadyAttachedError, LeaseLostError, UnavailableError } from '../../../errors.ts'
import type { MessageInfo, QueueMessage } from '../../queue/events.ts'
import { type ConsumeOptions, resolveConsumeOptions } from '../../queue/options.ts'
import type { Link } from '../link.ts'
import { after } from '../timers.ts'
import { RETRY_MS } from '../wire.ts'
import { LostMessages } from './lost-messages.ts'
import { RemoteConsumption } from './remote-consumption.ts'
import { RemoteIterator } from './remote-iterator.ts'

/** What the consumption needs of its queue object. */
interface ConsumingDeps<M> {
  readonly queue: string
  readonly link: Link
  /** Of the present attachment, which the gateway is told. */
  sub(): string
  isAttached(): boolean
  /** A consumption waits for `attach`: its queue must learn of the end of the bus. */
  onBegun(): void
  onChange(on: boolean): void
  onMessage(value: M, id: number, info: MessageInfo): void
}

/** The consumption of one queue object behind a gateway: one at a time. */
export class RemoteConsuming<M> {
  readonly #deps: ConsumingDeps<M>
  readonly #messages = new LostMessages()
  /** Undefined: it does not consume. */
  #consumption: RemoteConsumption<M> | undefined
  #consumed = 0

  constructor(deps: ConsumingDeps<M>) {
    this.#deps = deps
  }

  /** Whether it consumes, or will when the queue is attached. */
  get isActive(): boolean {
    return this.#consumption !== undefined
  }

  /** Messages that were received. */
  get consumed(): number {
    return this.#consumed
  }

  #call(type: string, members: object = {}): Promise<unknown> {
    const { link, queue, sub } = this.#deps
    return link.call(type, queue, { ...members, sub: sub() })
  }

  /** @throws TypeError; as {@link RemoteQueue.consume}. */
  async consume(options: ConsumeOptions): Promise<void> {
    resolveConsumeOptions(options, false)
    const consumption = new RemoteConsumption<M>(options)
    this.#begin(consumption)
    if (!this.#deps.isAttached()) return
    try {
      await this.#start(consumption)
    } catch (error) {
      if (this.#consumption === consumption) {
        this.#consumption = undefined
        // The gateway may have begun.
        if (this.#deps.link.isOnline) this.#call('stop').catch(() => {})
      }
      throw error
    }
  }

  /** @throws TypeError; as {@link RemoteQueue.messages}. */
  iterate(options: ConsumeOptions): RemoteIterator<QueueMessage<M>> {
    resolveConsumeOptions(options, true)
    const iterator: RemoteIterator<QueueMessage<M>> = new RemoteIterator<QueueMessage<M>>({
      ask: () => this.#sendReady(consumption),
      stop: async () => {
        // Another consumption may have begun.
        if (this.#consumption === consumption) await this.stop()
      },
    })
    const consumption = new RemoteConsumption<M>(options, iterator)
    this.#begin(consumption)
    if (this.#deps.isAttached()) this.#start(consumption).catch(() => {})
    return iterator
  }

  /** @throws AlreadyAttachedError, ClosedError, UnavailableError if the token was refused. */
  #begin(consumption: RemoteConsumption<M>): void {
    const { link, queue, onBegun } = this.#deps
    link.open()
    if (this.#consumption) throw new AlreadyAttachedError('The queue is consumed', { key: queue })
    this.#consumption = consumption
    onBegun()
  }

  /** Ends it if the gateway refuses it. While that is away, or silent, it waits to be restored. */
  async #start(consumption: RemoteConsumption<M>): Promise<void> {
    try {
      await this.#send(consumption)
    } catch (error) {
      if (this.#consumption === consumption && !(error instanceof UnavailableError)) {
        this.#consumption = undefined
        consumption.end(error as Error)
      }
      throw error
    }
  }

  async #send(consumption: RemoteConsumption<M>): Promise<void> {
    const begun = this.#call('consume', consumption.members)
    this.#sendReady(consumption)
    await begun
  }

  /** Sent again until the gateway has answered: it is idempotent. */
  #sendReady(consumption: RemoteConsumption<M>): void {
    const { link, isAttached } = this.#deps
    const isCurrent = this.#consumption === consumption && isAttached() && link.isOnline
    if (!isCurrent || !consumption.wantsMore) return
    this.#call('ready').catch(() => after(RETRY_MS, () => this.#sendReady(consumption)))
  }

  /** The queue is attached: begins what was wanted before. */
  onAttached(): void {
    if (this.#consumption) this.#start(this.#consumption).catch(() => {})
  }

  /** The queue is being attached anew, on another socket. */
  restore(): void {
    if (this.#consumption?.isOver) this.onConsuming(false)
    if (this.#consumption) this.#send(this.#consumption).catch(() => {})
  }

  onMessage(message: M, { id, redelivered, key, fence }: MessageInfo & { id: number }): void {
    const consumption = this.#consumption
    if (!consumption) return
    this.#consumed++
    this.#messages.received(id, consumption.isReliable)
    const info = { redelivered, key, fence }
    consumption.onMessage(message, id, info)
    if (!consumption.iterator) this.#deps.onMessage(message, id, info)
  }

  /** The gateway asks whether it may fetch. */
  onThrottle(): void {
    const consumption = this.#consumption
    consumption?.onThrottle(() => this.#sendReady(consumption))
  }

  /** The gateway has begun, or has ended. */
  onConsuming(on: boolean): void {
    if (!on) this.#end()
    this.#deps.onChange(on)
  }

  /** The socket has ended. What was not acknowledged goes back, and is delivered again. */
  onLost(): void {
    this.#messages.lose()
    this.#consumption?.onLost()
  }

  /** The attachment is over. `error`: because it was lost. */
  abandon(error?: Error): void {
    this.#messages.lose()
    this.#end(error)
  }

  #end(error?: Error): void {
    const consumption = this.#consumption
    this.#consumption = undefined
    consumption?.end(error)
  }

  async stop(): Promise<void> {
    const consumption = this.#consumption
    if (!consumption) return
    if (this.#deps.isAttached() && this.#deps.link.isOnline) await this.#call('stop')
    this.#messages.lose()
    // The gateway has said so, unless it is away.
    if (this.#consumption === consumption) this.onConsuming(false)
  }

  /** @throws LeaseLostError, UnavailableError */
  async ack(id: number): Promise<void> {
    const isLost = this.#messages.isLost(id)
    if (this.#deps.isAttached()) {
      await this.#call('ack', { upTo: id })
      this.#messages.acknowledged(id)
    }
    if (!isLost) return
    throw new LeaseLostError('The message was lost with the connection', { key: this.#deps.queue })
  }
}
