import { AlreadyAttachedError, ClosedError, LeaseLostError } from '../../errors.ts'
import type { MessageInfo, QueueEvents } from '../queue/events.ts'
import type { AttachOptions, ConsumeOptions, PushOptions } from '../queue/options.ts'
import { Emitter } from './emitter.ts'
import { isCount, isNumberOrNull, isObjectOrNull, isTextOrNull, type Push } from './gateway-message.ts'
import type { Link, LinkSubscription } from './link.ts'
import { after } from './timers.ts'
import { finite, jsonOf, ms, RETRY_MS } from './wire.ts'

/** Options of a consumption behind a gateway. That fetches as fast as the client reads. */
export type RemoteConsumeOptions = Omit<ConsumeOptions, 'throttle'>

/** Ids of lost messages that are remembered at most. */
const MAX_LOST = 10_000

/** What waits for `attach`. */
interface Waiting {
  readonly run: () => void
  readonly reject: (error: Error) => void
}

/**
 * A queue of a bus behind a gateway: see Queue. The gateway is attached for it while they are connected. After an outage it
 * attaches, and consumes, again: reliable messages that were not acknowledged are delivered again.
 */
export class RemoteQueue<M = unknown> extends Emitter<QueueEvents<M>> {
  readonly name: string
  readonly #link: Link
  readonly #subscription: LinkSubscription
  #state: 'detached' | 'attaching' | 'attached' = 'detached'
  #attachOptions: AttachOptions = {}
  /** Undefined: it does not consume. */
  #consuming: { readonly options: RemoteConsumeOptions; left: number } | undefined
  #waiting: Waiting[] = []
  /** Ids of reliable messages that were received and not acknowledged; and those that are delivered again. */
  readonly #held = new Set<number>()
  readonly #lost = new Set<number>()
  #pushed = 0
  #consumed = 0

  /** @internal */
  constructor(name: string, link: Link) {
    super()
    this.name = name
    this.#link = link
    this.#subscription = {
      sub: link.newSub(),
      restore: () => this.#restore(),
      onPush: (push) => this.#onPush(push),
      onLost: () => this.#onLost(),
      onClosed: () => this.#onClosed(),
    }
  }

  get #sub(): string {
    return this.#subscription.sub
  }

  /**
   * Attaches, and makes the queue if it does not exist. Then does what was pushed and consumed before. Resolves with whether it
   * existed.
   * @throws AlreadyAttachedError; UnavailableError; ClosedError; SoloflightError if the token lacks a scope; TypeError.
   */
  async attach(options: AttachOptions = {}): Promise<boolean> {
    if (this.#state !== 'detached')
      throw new AlreadyAttachedError('The queue is attached', { key: this.name })
    this.#state = 'attaching'
    this.#attachOptions = options
    this.#link.add(this.#subscription)
    this.emit('attaching')
    let existed: boolean
    try {
      existed = (await this.#sendAttach()) === true
    } catch (error) {
      if (this.#state === 'attaching') this.#forget()
      throw error
    }
    if (this.#state !== 'attaching') throw new ClosedError('The queue was detached', { key: this.name })
    this.#state = 'attached'
    this.emit('attached', existed)
    for (const { run } of this.#waiting.splice(0)) run()
    if (this.#consuming) void this.#sendConsume().catch(() => {})
    return existed
  }

  #sendAttach(): Promise<unknown> {
    const { ttl, maxsize } = this.#attachOptions
    const members = { queue: this.name, ttl: ms(ttl), maxsize: finite(maxsize) }
    return this.#link.call('attach', this.name, members, { sub: this.#sub })
  }

  /** A new socket: what follows is sent behind it, and done in this order. */
  #restore(): void {
    if (this.#state !== 'attached') return
    this.#sendAttach().catch(() => this.#restoreLater())
    if (this.#consuming && this.#consuming.left <= 0) this.#onConsuming(false)
    if (this.#consuming) this.#sendConsume().catch(() => {})
  }

  #restoreLater(): void {
    after(RETRY_MS, () => this.#link.isOnline && this.#restore())
  }

  #sendConsume(): Promise<unknown> {
    const { options, left } = this.#consuming ?? { options: {}, left: 0 }
    const { lease, ...rest } = options
    const members = { ...rest, sub: this.#sub, lease: ms(lease), max: finite(left) }
    return this.#link.call('consume', this.name, members)
  }

  #onPush(push: Push): void {
    if (this.#state !== 'attached' && this.#state !== 'attaching') return
    if (push.kind === 'message') return this.#onMessage(push.message as M, push.info)
    if (push.kind !== 'event') return
    const { event, on } = push
    if (event === 'consuming') this.#onConsuming(on)
    else if (event === 'closed' || event === 'detached') this.#onEnded(event)
  }

  #onMessage(message: M, { id, redelivered, key, fence }: MessageInfo & { id: number }): void {
    if (!this.#consuming) return
    this.#consumed++
    this.#consuming.left--
    this.#lost.delete(id)
    if (this.#consuming.options.reliable) this.#held.add(id)
    // A reader goes on behind it after an outage.
    if (this.#consuming.options.remove === false) {
      const { options, left } = this.#consuming
      this.#consuming = { options: { ...options, index: id }, left }
    }
    this.emit('message', message, id, { redelivered, key, fence })
  }

  /** What was not acknowledged goes back, and is delivered again. */
  #onLost(): void {
    for (const id of this.#held) this.#lost.add(id)
    this.#held.clear()
    for (const id of this.#lost) {
      if (this.#lost.size <= MAX_LOST) break
      this.#lost.delete(id)
    }
  }

  #onConsuming(on: boolean): void {
    if (!on) this.#consuming = undefined
    this.emit('consuming', on)
  }

  #onEnded(event: 'closed' | 'detached'): void {
    this.#forget()
    this.#consuming = undefined
    this.emit(event)
  }

  #forget(): void {
    this.#state = 'detached'
    if (this.#waiting.length === 0) this.#link.delete(this.#sub)
    if (this.#link.isOnline) this.#link.call('end', this.name, { sub: this.#sub }).catch(() => {})
  }

  /** Stops consuming, and leaves the queue. Never rejects. */
  async detach(): Promise<void> {
    if (this.#state !== 'attached') return
    this.emit('detaching')
    if (this.#link.isOnline) await this.#link.call('end', this.name, { sub: this.#sub }).catch(() => {})
    // It may have been closed meanwhile.
    if (this.#state !== 'attached') return
    this.#state = 'detached'
    this.#link.delete(this.#sub)
    this.#consuming = undefined
    this.emit('detached')
  }

  /** Closes the queue for all, and removes its messages. Needs the scope `admin`. @throws UnavailableError, ClosedError. */
  async close(): Promise<void> {
    await this.#link.call('close', this.name, { sub: this.#sub })
  }

  isAttached(): boolean {
    return this.#state === 'attached'
  }

  isConsuming(): boolean {
    return this.#consuming !== undefined
  }

  /**
   * Pushes a message. Resolves with its id. Before `attach` it waits.
   * @throws QueueFullError; UnavailableError: if `sent`, it may have been pushed; TooLargeError; CodecError; ClosedError.
   */
  async push(message: M, { key, wait }: PushOptions = {}): Promise<number> {
    const members = { sub: this.#sub, message: jsonOf(message), key, wait: ms(wait) }
    const id = await this.#whenAttached(() =>
      this.#link.call('push', this.name, members, { mayWait: (wait ?? 0) > 0, isAnswer: isCount }),
    )
    this.#pushed++
    return Number(id)
  }

  #whenAttached<T>(run: () => Promise<T>): Promise<T> {
    if (this.#state === 'attached') return run()
    this.#link.add(this.#subscription)
    return new Promise((resolve, reject) => {
      this.#waiting.push({ run: () => run().then(resolve, reject), reject })
    })
  }

  /** Consumes: messages come as events. Before `attach` it waits. @throws AlreadyAttachedError, UnavailableError, ClosedError, TypeError. */
  async consume(options: RemoteConsumeOptions = {}): Promise<void> {
    if (this.#consuming) throw new AlreadyAttachedError('The queue is consumed', { key: this.name })
    const { max = Number.POSITIVE_INFINITY } = options
    this.#consuming = { options, left: max < 0 ? Number.POSITIVE_INFINITY : max }
    if (this.#state !== 'attached') return
    try {
      await this.#sendConsume()
    } catch (error) {
      this.#consuming = undefined
      throw error
    }
  }

  /** Stops consuming. No message follows. */
  async stop(): Promise<void> {
    if (!this.#consuming) return
    if (this.#state === 'attached' && this.#link.isOnline)
      await this.#link.call('stop', this.name, { sub: this.#sub })
    this.#onLost()
    // The gateway has said so, unless it is away.
    if (this.#consuming) this.#onConsuming(false)
  }

  /** Acknowledges the messages up to this id. @throws LeaseLostError, UnavailableError: perhaps it is delivered again. */
  async ack(id: number): Promise<void> {
    const isLost = this.#lost.has(id)
    await this.#link.call('ack', this.name, { sub: this.#sub, upTo: id })
    for (const held of this.#held) if (held <= id) this.#held.delete(held)
    if (isLost) throw new LeaseLostError('The message was lost with the connection', { key: this.name })
  }

  #inspect(of: string, isAnswer: (ok: unknown) => boolean): Promise<unknown> {
    return this.#link.call('inspect', this.name, { queue: this.name, of }, { isAnswer })
  }

  /** Whether the queue exists. Needs the scope `read`, as the next four. */
  async exists(): Promise<boolean> {
    return (await this.find()) !== null
  }

  /** How many messages wait; 0 if there is no queue. */
  async count(): Promise<number> {
    return Number(await this.#inspect('count', isCount))
  }

  /** After how many ms the queue expires if no process is attached; null if there is none. */
  ttl(): Promise<number | null> {
    return this.#inspect('ttl', isNumberOrNull) as Promise<number | null>
  }

  /** How many messages may wait, 0 for any number; null if there is no queue. */
  maxsize(): Promise<number | null> {
    return this.#inspect('maxsize', isNumberOrNull) as Promise<number | null>
  }

  /** The name of the instance that it is on; null if there is no queue. */
  find(): Promise<string | null> {
    return this.#inspect('find', isTextOrNull) as Promise<string | null>
  }

  /** Removes all messages. Resolves with their number. Needs the scope `admin`. */
  async flush(): Promise<number> {
    return Number(await this.#link.call('flush', this.name, { queue: this.name }, { isAnswer: isCount }))
  }

  /** Reads metadata: all of the queue, or one. Needs the scope `read`. */
  metadata(): Promise<Record<string, unknown>>
  metadata(name: string): Promise<unknown>
  /** Writes metadata: one, or several. Resolves with whether there is a queue to write to. Needs the scope `submit`. */
  metadata(name: string, value: unknown): Promise<boolean>
  metadata(values: Readonly<Record<string, unknown>>): Promise<boolean>
  async metadata(...args: [(string | Readonly<Record<string, unknown>>)?, unknown?]): Promise<unknown> {
    const [first, value] = args
    const values =
      typeof first === 'object' ? first : args.length > 1 ? { [String(first)]: value } : undefined
    if (values) return this.#link.call('set-metadata', this.name, { queue: this.name, values })
    const form = first === undefined ? { isAnswer: isObjectOrNull } : {}
    const found = await this.#link.call('metadata', this.name, { queue: this.name, name: first }, form)
    return found === null && first !== undefined ? undefined : found
  }

  /** Messages that this object has pushed. */
  pushed(): number {
    return this.#pushed
  }

  /** Messages that this object has received. */
  consumed(): number {
    return this.#consumed
  }

  #onClosed(): void {
    const wasAttached = this.#state === 'attached'
    this.#state = 'detached'
    this.#consuming = undefined
    const error = new ClosedError('The bus was disconnected', { key: this.name })
    for (const { reject } of this.#waiting.splice(0)) reject(error)
    if (wasAttached) this.emit('detached')
  }
}
