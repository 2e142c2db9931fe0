import { AlreadyAttachedError, ClosedError, NotAttachedError, OverloadedError } from '../../../errors.ts'
import { assertTransition, type Transitions } from '../../../kernel/collections.ts'
import type { QueueMessage } from '../../queue/events.ts'
import {
  type AttachOptions,
  type ConsumeOptions,
  checkMessageId,
  checkPushOptions,
  type PushOptions,
  resolveAttachOptions,
} from '../../queue/options.ts'
import { isCount, type Push } from '../gateway-message.ts'
import type { Link } from '../link.ts'
import { RemoteSubscription } from '../subscription.ts'
import { finite, jsonOf, ms } from '../wire.ts'
import { InspectedQueue } from './inspected-queue.ts'
import { RemoteConsuming } from './remote-consuming.ts'

/** What waits for `attach`. */
interface Waiting {
  readonly run: () => void
  readonly reject: (error: Error) => void
}

/** Pushes that wait for `attach`, at most. */
const MAX_WAITING = 10_000

/**
 * | event                                            | detached  | attaching | attached  | detaching |
 * | ------------------------------------------------ | --------- | --------- | --------- | --------- |
 * | `attach`                                         | attaching |           |           | waits     |
 * | the gateway is attached                          |           | attached  |           |           |
 * | it is not, or does not answer                    |           | detached  |           |           |
 * | `detach`                                         |           | waits     | detaching |           |
 * | the gateway knows, or is away                    |           |           |           | detached  |
 * | the queue was closed, or the bus is disconnected |           | detached  | detached  | detached  |
 */
type State = 'detached' | 'attaching' | 'attached' | 'detaching'

const TRANSITIONS: Transitions<State> = {
  detached: ['attaching'],
  attaching: ['attached', 'detached'],
  attached: ['detaching', 'detached'],
  detaching: ['detached'],
}

/**
 * A queue of a bus behind a gateway: see Queue. The gateway is attached for it while they are connected. After an outage it
 * attaches, and consumes, again: reliable messages that were not acknowledged are delivered again.
 */
export class RemoteQueue<M = unknown> extends InspectedQueue<M> {
  readonly #link: Link
  /** Of the next or present attachment. */
  #subscription: RemoteSubscription
  #state: State = 'detached'
  /** Fulfilled when the last `attach`, or `detach`, is settled. */
  #settled: Promise<unknown> = Promise.resolve()
  #attachOptions: AttachOptions = {}
  readonly #consuming: RemoteConsuming<M>
  #waiting: Waiting[] = []
  #pushed = 0

  /** @internal */
  constructor(name: string, link: Link) {
    super(name, link)
    this.#link = link
    this.#subscription = this.#newSubscription()
    this.#consuming = new RemoteConsuming<M>({
      ...{ queue: name, link },
      sub: () => this.#subscription.sub,
      isAttached: () => this.isAttached(),
      onBegun: () => link.add(this.#subscription),
      onChange: (on) => this.emit('consuming', on),
      onMessage: (value, id, info) => this.emit('message', value, id, info),
    })
  }

  #newSubscription(): RemoteSubscription {
    return new RemoteSubscription(this.name, this.#link, {
      isEstablished: () => this.#state === 'attached',
      send: () => this.#sendAttach(),
      onRestoring: () => this.#consuming.restore(),
      onPush: (push) => this.#onPush(push),
      onLost: () => this.#consuming.onLost(),
      onClosed: () => this.#onClosed(),
    })
  }

  #moveTo(state: State): void {
    assertTransition('remote queue', TRANSITIONS, this.#state, state)
    this.#state = state
  }

  /**
   * Attaches, and makes the queue if it does not exist. Then runs earlier calls of `push` and `consume`. Resolves with whether it
   * existed.
   * @throws AlreadyAttachedError; UnavailableError; ClosedError; SoloflightError if the token lacks a scope; TypeError.
   */
  async attach(options: AttachOptions = {}): Promise<boolean> {
    resolveAttachOptions(options)
    while (this.#state === 'detaching') await this.#settled
    if (this.#state !== 'detached')
      throw new AlreadyAttachedError('The queue is attached', { key: this.name })
    const attaching = this.#attach(options)
    this.#settled = attaching.catch(() => {})
    return attaching
  }

  async #attach(options: AttachOptions): Promise<boolean> {
    this.#moveTo('attaching')
    this.#attachOptions = options
    const subscription = this.#subscription
    // Another `attach` has another one.
    const isCurrent = () => this.#subscription === subscription
    this.#link.add(subscription)
    this.emit('attaching')
    let existed: boolean
    try {
      existed = (await this.#sendAttach()) === true
    } catch (error) {
      if (isCurrent()) this.#leave()
      throw error
    }
    if (!isCurrent()) throw new ClosedError('The queue was detached', { key: this.name })
    this.#moveTo('attached')
    this.emit('attached', existed)
    for (const { run } of this.#waiting.splice(0)) run()
    this.#consuming.onAttached()
    return existed
  }

  #sendAttach(): Promise<unknown> {
    const { ttl, maxsize } = this.#attachOptions
    const members = { queue: this.name, ttl: ms(ttl), maxsize: finite(maxsize) }
    return this.#link.call('attach', this.name, members, { sub: this.#subscription.sub })
  }

  #onPush(push: Push): void {
    if (this.#state === 'detached') return
    if (push.kind === 'message') return this.#consuming.onMessage(push.message as M, push.info)
    if (push.kind !== 'event') return
    const { event, on } = push
    if (event === 'consuming') this.#consuming.onConsuming(on)
    else if (event === 'throttle') this.#consuming.onThrottle()
    else if (event === 'closed') this.#onEnded(event)
    // By its own `detach` it is told by that.
    else if (event === 'detached' && this.#state !== 'detaching') this.#onEnded(event)
  }

  #onEnded(event: 'closed' | 'detached'): void {
    const isLost = event === 'detached'
    const error = new NotAttachedError('The gateway stood still past its lease', { key: this.name })
    this.#consuming.abandon(isLost ? error : undefined)
    this.#leave()
    this.emit(event)
  }

  /** It is not attached any more. The gateway may be. */
  #leave(): void {
    const subscription = this.#subscription
    this.#forget()
    void subscription.end()
  }

  #forget(): void {
    if (this.#state !== 'detached') this.#moveTo('detached')
    this.#subscription.forget()
    this.#subscription = this.#newSubscription()
    // It learns of the end of the bus.
    if (this.#waiting.length > 0 || this.#consuming.isActive) this.#link.add(this.#subscription)
  }

  /**
   * Stops consuming, and leaves the queue; waits for an unfinished `attach`. Later calls wait for the next `attach`. Never
   * rejects.
   */
  async detach(): Promise<void> {
    while (this.#state === 'attaching') await this.#settled
    if (this.#state === 'attached') this.#settled = this.#detach()
    await this.#settled
  }

  async #detach(): Promise<void> {
    this.#moveTo('detaching')
    this.emit('detaching')
    await this.#subscription.end()
    // It may have been closed meanwhile.
    if (this.#state !== 'detaching') return
    if (this.#consuming.isActive) this.#consuming.onConsuming(false)
    this.#consuming.abandon()
    this.#forget()
    this.emit('detached')
  }

  /**
   * Closes the queue for all processes, and removes its messages. Needs the scope `admin`. @throws NotAttachedError,
   * UnavailableError, ClosedError.
   */
  async close(): Promise<void> {
    if (this.#state !== 'attached')
      throw new NotAttachedError('The queue is not attached', { key: this.name })
    await this.#link.call('close', this.name, { sub: this.#subscription.sub })
  }

  isAttached(): boolean {
    return this.#state === 'attached'
  }

  isConsuming(): boolean {
    return this.#consuming.isActive
  }

  /**
   * Pushes a message. Resolves with its id. Before `attach` it waits.
   * @throws QueueFullError; UnavailableError: if `sent`, it may have been pushed; TooLargeError; CodecError; OverloadedError;
   * ClosedError; TypeError.
   */
  async push(message: M, options: PushOptions = {}): Promise<number> {
    checkPushOptions(options)
    const { key, wait = 0 } = options
    const members = { message: jsonOf(message), key, wait: ms(wait) }
    const id = await this.#whenAttached(() =>
      this.#link.call(...(['push', this.name, { ...members, sub: this.#subscription.sub }] as const), {
        mayWait: wait > 0,
        isAnswer: isCount,
      }),
    )
    this.#pushed++
    return Number(id)
  }

  #whenAttached<T>(run: () => Promise<T>): Promise<T> {
    if (this.#state === 'attached') return run()
    this.#link.open()
    if (this.#waiting.length >= MAX_WAITING)
      throw new OverloadedError(`${MAX_WAITING} messages wait for \`attach\``, { key: this.name })
    this.#link.add(this.#subscription)
    return new Promise((resolve, reject) => {
      this.#waiting.push({ run: () => run().then(resolve, reject), reject })
    })
  }

  /**
   * Consumes: messages come as events. Before `attach` it waits. `throttle` is called here, for each fetch of the gateway.
   * @throws AlreadyAttachedError, UnavailableError, ClosedError, TypeError.
   */
  async consume(options: ConsumeOptions = {}): Promise<void> {
    await this.#consuming.consume(options)
  }

  /**
   * Consumes as an iteration: see Queue. Each message takes a round trip to the gateway.
   * @throws AlreadyAttachedError, ClosedError, TypeError. The iteration rejects if the gateway refuses it.
   */
  messages(options: ConsumeOptions = {}): AsyncIterableIterator<QueueMessage<M>> {
    return this.#consuming.iterate(options)
  }

  [Symbol.asyncIterator](): AsyncIterableIterator<QueueMessage<M>> {
    return this.messages()
  }

  /** Stops consuming. No message follows. */
  async stop(): Promise<void> {
    await this.#consuming.stop()
  }

  /** Acknowledges the messages up to this id. @throws LeaseLostError, UnavailableError: it may be delivered again. */
  async ack(id: number): Promise<void> {
    checkMessageId('id', id)
    await this.#consuming.ack(id)
  }

  /** Messages that this object has pushed. */
  pushed(): number {
    return this.#pushed
  }

  /** Messages that this object has received. */
  consumed(): number {
    return this.#consuming.consumed
  }

  #onClosed(): void {
    const wasAttached = this.#state === 'attached'
    this.#consuming.abandon()
    const error = new ClosedError('The bus was disconnected', { key: this.name })
    for (const { reject } of this.#waiting.splice(0)) reject(error)
    this.#forget()
    if (wasAttached) this.emit('detached')
  }
}
