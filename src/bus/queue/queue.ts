import pDefer from 'p-defer'
import { AlreadyAttachedError, ClosedError, NotAttachedError } from '../../errors.ts'
import { decodeWith } from '../../kernel/codec/codec.ts'
import { encodeLimited } from '../../kernel/codec/limit.ts'
import { ContextEmitter } from '../../kernel/hooks.ts'
import { emit } from '../../kernel/telemetry.ts'
import type { BusContext, Member } from '../context.ts'
import type { Incoming, QueueInfo } from '../store/store.ts'
import { Attachment, type AttachTerms } from './attachment.ts'
import { Consuming } from './consuming.ts'
import type { QueueEvents, QueueMessage } from './events.ts'
import { Metadata } from './metadata.ts'
import {
  type AttachOptions,
  type ConsumeOptions,
  checkMessageId,
  checkPushOptions,
  type PushOptions,
  resolveAttachOptions,
  resolveConsumeOptions,
} from './options.ts'
import { Pusher } from './pusher.ts'
import { QueueIterator } from './queue-iterator.ts'
import { EventReceiver, IterationReceiver } from './receivers.ts'

/**
 * A queue of messages, the same in all processes that use its name. It is made when the first process attaches to it, and
 * removed, with its messages, `ttl` ms after the last one has left or died.
 *
 * @example
 * const queue = bus.queue<string>('greetings')
 * queue.on('message', (text) => console.log(text))
 * await queue.attach()
 * await queue.consume()
 * await queue.push('hello')
 */
export class Queue<M = unknown> extends ContextEmitter<QueueEvents<M>> {
  readonly name: string
  readonly #context: BusContext
  readonly #attachment: Attachment
  readonly #pusher: Pusher
  readonly #consuming: Consuming
  readonly #metadata: Metadata
  #consumed = 0
  /** Fulfilled when the last `attach` is settled; undefined if it is. */
  #attaching: Promise<void> | undefined
  #detaching: Promise<void> | undefined
  /** Undefined while a disconnect of the bus has nothing to do here: to detach, or to end what waits for `attach`. */
  #stopListening: (() => void) | undefined

  /** @internal */
  constructor(name: string, context: BusContext) {
    super()
    this.name = name
    this.#context = context
    this.#attachment = new Attachment(name, context, {
      onSignal: (signal) => {
        if (signal === 'room') this.#pusher.onRoom()
        else this.#consuming.resume()
      },
      onUp: () => {
        this.#pusher.onRoom()
        this.#consuming.resume()
      },
      onConsuming: () => this.#consuming.isRunning || this.#attachment.endStray(),
      onRemade: () => this.#consuming.onRemade(),
      onLost: (reasons) => this.#onLost(reasons),
    })
    this.#pusher = new Pusher(name, context, this.#attachment)
    this.#consuming = new Consuming(name, context, this.#attachment, (on) => this.emit('consuming', on))
    this.#metadata = new Metadata(name, context, () => this.#member())
  }

  /**
   * Attaches this process, and makes the queue if it does not exist. Then runs earlier calls of `push` and `consume`. Resolves
   * with whether the queue existed; then its own `ttl` and `maxsize` apply.
   * @throws AlreadyAttachedError; UnavailableError; OverloadedError; ClosedError; TypeError.
   */
  async attach(options: AttachOptions = {}): Promise<boolean> {
    const terms = resolveAttachOptions(options)
    this.#context.assertOpen()
    const attaching = this.#attach(terms)
    const settled = attaching
      .catch(() => {})
      .then(() => {
        if (this.#attaching === settled) this.#attaching = undefined
      })
    this.#attaching = settled
    return attaching
  }

  async #attach(terms: AttachTerms): Promise<boolean> {
    await this.#detaching
    if (this.#attachment.isAttached)
      throw new AlreadyAttachedError('The queue is attached', { key: this.name })
    this.emit('attaching')
    const existed = await this.#attachment.attach(terms)
    this.#listen()
    this.emit('attached', existed)
    this.#pusher.flush()
    this.#consuming.onAttached()
    return existed
  }

  /** Stops consuming, sends pushed messages, and leaves the queue. Later calls wait for the next `attach`. Never rejects. */
  async detach(): Promise<void> {
    if (this.#attaching) await this.#attaching
    if (!this.#attachment.isAttached) return this.#detaching
    this.#detaching ??= this.#detach().finally(() => {
      this.#detaching = undefined
    })
    await this.#detaching
  }

  async #detach(): Promise<void> {
    this.emit('detaching')
    this.#consuming.postpone()
    await this.stop().catch(() => {})
    await this.#pusher.drain()
    if (!this.#attachment.isAttached) return // It was closed meanwhile.
    await this.#attachment.detach()
    this.#listenIfUsed()
    this.emit('detached')
  }

  #listen(): void {
    this.#stopListening ??= this.#context.onDisconnect(() => this.#disconnect())
  }

  #listenIfUsed(): void {
    if (this.#attachment.isAttached || this.#pusher.waiting > 0 || this.#consuming.isActive)
      return this.#listen()
    this.#stopListening?.()
    this.#stopListening = undefined
  }

  async #disconnect(): Promise<void> {
    await this.detach()
    await this.stop().catch(() => {})
    this.#pusher.close()
    this.#listenIfUsed()
  }

  /**
   * Closes the queue for all processes, and removes its messages.
   * @throws NotAttachedError; UnavailableError; OverloadedError; ClosedError if it was closed already.
   */
  async close(): Promise<void> {
    await this.#attachment.removeQueue()
  }

  isAttached(): boolean {
    return this.#attachment.isAttached
  }

  isConsuming(): boolean {
    return this.#consuming.isActive
  }

  #onLost({ expired, closed }: { readonly expired: boolean; readonly closed: boolean }): void {
    const error = new NotAttachedError('This process stood still past its lease', { key: this.name })
    this.#consuming.abandon(expired ? error : undefined)
    if (closed) this.#pusher.rejectAll(new ClosedError('The queue was closed', { key: this.name }))
    this.#listenIfUsed()
    if (expired) this.emit('detached')
    if (closed) this.emit('closed')
  }

  /**
   * Pushes a message. Resolves with its id: ids count up from 1. Messages of one Queue object are pushed in the order of the
   * calls. Before `attach` they wait.
   * @throws QueueFullError; UnavailableError, NotAttachedError: it may have been pushed; CodecError; TooLargeError;
   * OverloadedError; ClosedError; TypeError.
   */
  async push(message: M, options: PushOptions = {}): Promise<number> {
    checkPushOptions(options)
    this.#context.assertOpen()
    const bytes = encodeLimited(this.#context, message, 'The message has', { key: this.name })
    this.#listen()
    return this.#pusher.push({ key: options.key ?? '', kind: 'user', bytes }, options.wait ?? 0)
  }

  /**
   * Consumes: messages come as events. Resolves when the first fetch begins; before `attach`, at once.
   * @throws AlreadyAttachedError if this object consumes; ClosedError; TypeError.
   */
  async consume(options: ConsumeOptions = {}): Promise<void> {
    const resolved = resolveConsumeOptions(options, false)
    this.#context.assertOpen()
    const started = pDefer<void>()
    const deps = {
      receive: (message: Incoming, fence: number) => this.#onMessage(message, fence),
      resume: () => this.#consuming.resume(),
      onStarted: () => started.resolve(),
    }
    const receiver = new EventReceiver(deps, resolved.throttle)
    this.#consuming.begin(resolved, receiver, () => started.resolve())
    this.#listen()
    if (this.#consuming.isRunning) await started.promise
  }

  /**
   * Consumes as an iteration. Leaving the loop stops; fetched messages that were not yielded are returned. With `reliable`,
   * acknowledge the yielded messages. The iteration ends when the queue is closed, detached or stopped.
   * @throws AlreadyAttachedError if this object consumes; ClosedError; TypeError. The iteration rejects with NotAttachedError if
   * this process was paused for longer than its lease.
   */
  messages(options: ConsumeOptions = {}): AsyncIterableIterator<QueueMessage<M>> {
    const resolved = resolveConsumeOptions(options, true)
    this.#context.assertOpen()
    const iterator = new QueueIterator<QueueMessage<M>>({
      onWanted: () => this.#consuming.resume(),
      stop: async () => {
        // Another consumption may have begun.
        if (this.#consuming.isFor(receiver)) await this.stop()
      },
    })
    const receiver = new IterationReceiver(iterator, (...message) => this.#decode(...message))
    this.#consuming.begin(resolved, receiver, (error) => iterator.end(error))
    this.#listen()
    return iterator
  }

  [Symbol.asyncIterator](): AsyncIterableIterator<QueueMessage<M>> {
    return this.messages()
  }

  /**
   * Stops consuming. No `message` follows. The messages that this consumer holds return to the head of the queue, in order.
   * @throws UnavailableError if the instance did not answer until the end of the consumer's lease.
   */
  async stop(): Promise<void> {
    await this.#consuming.stop()
  }

  /**
   * Acknowledges the messages up to this id that this consumer has received. Without `reliable`, does nothing.
   * @throws LeaseLostError if the message was lost: it is delivered again. UnavailableError: it may be.
   */
  async ack(id: number): Promise<void> {
    checkMessageId('id', id)
    await this.#consuming.ack(id)
  }

  #onMessage(message: Incoming, fence: number): void {
    const decoded = this.#decode(message, fence)
    if (!decoded) return
    const { value, id, ...info } = decoded
    this.emit('message', value, id, info)
  }

  /** Undefined if it cannot be decoded: another codec wrote it. Then it is acknowledged, or it would come again for ever. */
  #decode({ id, key, redelivered, bytes }: Incoming, fence: number): QueueMessage<M> | undefined {
    this.#consumed++
    try {
      const value = decodeWith(this.#context.codec, bytes, this.name) as M
      const info = { redelivered, key: key === '' ? undefined : key, fence: fence === 0 ? undefined : fence }
      return { value, id, ...info }
    } catch {
      emit('undecodable', { key: this.name, fence: id })
      this.#consuming.drop(id)
      return undefined
    }
  }

  /** Where the queue is, if it exists. */
  async #member(): Promise<Member | undefined> {
    this.#context.assertOpen()
    if (this.#attachment.isAttached) return this.#attachment.place.member
    return this.#context.places.find('queue', this.name)
  }

  async #inspect(): Promise<QueueInfo | undefined> {
    const member = await this.#member()
    return member?.instance.queues.inspect(this.name, this.#context.within)
  }

  /** Whether the queue exists. @throws UnavailableError, OverloadedError, ClosedError, as the next five. */
  async exists(): Promise<boolean> {
    return (await this.#inspect()) !== undefined
  }

  /** Number of waiting messages; 0 without a queue. */
  async count(): Promise<number> {
    return (await this.#inspect())?.count ?? 0
  }

  /** Time after which the queue expires without an attached process, ms; null without a queue. */
  async ttl(): Promise<number | null> {
    return (await this.#inspect())?.ttlLeft ?? null
  }

  /** Most messages that may wait, 0 for any number; null without a queue. */
  async maxsize(): Promise<number | null> {
    return (await this.#inspect())?.maxsize ?? null
  }

  /** The name of its instance; null without a queue. */
  async find(): Promise<string | null> {
    const member = await this.#member()
    const info = await member?.instance.queues.inspect(this.name, this.#context.within)
    return info ? (member?.instance.name ?? null) : null
  }

  /** Removes all messages, also those that consumers hold. Resolves with their number. */
  async flush(): Promise<number> {
    const member = await this.#member()
    return (await member?.instance.queues.flush(this.name, this.#context.within)) ?? 0
  }

  /** All metadata of the queue: values that are kept with it, and expire with it. Empty if there is no queue. */
  metadata(): Promise<Record<string, unknown>>
  /** The value with this name; undefined if there is none. */
  metadata(name: string): Promise<unknown>
  /**
   * Writes a value, or several. Resolves with whether there is a queue to write to.
   * @throws CodecError; TooLargeError; OverloadedError if there would be more than 1,000.
   */
  metadata(name: string, value: unknown): Promise<boolean>
  metadata(values: Readonly<Record<string, unknown>>): Promise<boolean>
  async metadata(...args: [(string | Readonly<Record<string, unknown>>)?, unknown?]): Promise<unknown> {
    return this.#metadata.call(args)
  }

  /** Messages that this object has pushed. */
  pushed(): number {
    return this.#pusher.pushed
  }

  /** Messages that this object has received. */
  consumed(): number {
    return this.#consumed
  }
}
