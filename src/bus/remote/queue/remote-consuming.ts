import { AlreadyAttachedError, UnavailableError } from '../../../errors.ts'
import type { MessageInfo, QueueMessage } from '../../queue/events.ts'
import { LostMessages } from '../../queue/lost-messages.ts'
import { type ConsumeOptions, resolveConsumeOptions } from '../../queue/options.ts'
import type { Link } from '../link.ts'
import { tellUntilAnswered } from '../throttle.ts'
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
  /** Ids of reliable messages that it has received, and not acknowledged. */
  readonly #held = new Set<number>()
  readonly #lost: LostMessages
  /** Undefined: it does not consume. */
  #consumption: RemoteConsumption<M> | undefined
  #consumed = 0

  constructor(deps: ConsumingDeps<M>) {
    this.#deps = deps
    this.#lost = new LostMessages(deps.queue)
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
    const consumption: RemoteConsumption<M> = new RemoteConsumption(options, () =>
      this.#sendReady(consumption),
    )
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
    const sendReady = () => this.#sendReady(consumption)
    const iterator = new RemoteIterator<QueueMessage<M>>({
      onWanted: sendReady,
      stop: async () => {
        // Another consumption may have begun.
        if (this.#consumption === consumption) await this.stop()
      },
    })
    const consumption = new RemoteConsumption<M>(options, sendReady, iterator)
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

  /** The gateway may send the next message, or fetch. */
  #sendReady(consumption: RemoteConsumption<M>): void {
    const { link, isAttached } = this.#deps
    const isCurrent = () => this.#consumption === consumption && isAttached() && link.isOnline
    const isWanted = () => isCurrent() && consumption.wantsMore
    tellUntilAnswered(isWanted, () => this.#call('ready'))
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
    this.#lost.delete(id)
    if (consumption.isReliable) this.#held.add(id)
    const info = { redelivered, key, fence }
    consumption.onMessage(message, id, info)
    if (!consumption.iterator) this.#deps.onMessage(message, id, info)
  }

  /** The gateway asks whether it may fetch. */
  onThrottle(): void {
    this.#consumption?.onThrottle()
  }

  /** The gateway has begun, or has ended. */
  onConsuming(on: boolean): void {
    if (!on) this.#end()
    this.#deps.onChange(on)
  }

  /** The socket has ended. */
  onLost(): void {
    this.#loseHeld()
    this.#consumption?.onLost()
  }

  /** The attachment is over. `error`: because it was lost. */
  abandon(error?: Error): void {
    this.#loseHeld()
    this.#end(error)
  }

  /** What it holds goes back, and is delivered again. */
  #loseHeld(): void {
    for (const id of this.#held) this.#lost.add(id)
    this.#held.clear()
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
    this.#loseHeld()
    // The gateway has said so, unless it is away.
    if (this.#consumption === consumption) this.onConsuming(false)
  }

  /** @throws LeaseLostError, UnavailableError */
  async ack(id: number): Promise<void> {
    const isLost = this.#lost.has(id)
    if (this.#deps.isAttached()) {
      await this.#call('ack', { upTo: id })
      for (const held of this.#held) if (held <= id) this.#held.delete(held)
    }
    if (isLost) throw this.#lost.error()
  }
}
