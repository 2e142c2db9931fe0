import {
  ClosedError,
  NotAttachedError,
  OverloadedError,
  QueueFullError,
  UnavailableError,
} from '../../errors.ts'
import { Fifo } from '../../kernel/collections.ts'
import { emit } from '../../kernel/telemetry.ts'
import { atEndOfTurn, type Timer } from '../../kernel/time.ts'
import { refProcess, unrefProcess } from '../../kernel/waiter.ts'
import type { BusContext } from '../context.ts'
import { MAX_BATCH, MAX_BATCH_BYTES, type Outgoing } from '../store/store.ts'
import type { Attachment } from './attachment.ts'

/** Messages of one queue object that may wait to be sent. */
const MAX_PENDING = 10_000

/** How often a full queue is tried again, ms, besides when room is announced. */
const ROOM_POLL_MS = 1_000

/** A push that is not over. A class instead of a literal: see kernel/collections.ts. */
class Push {
  readonly message: Outgoing
  /** Until when it waits for room, by the clock; undefined: it does not. */
  readonly waitsUntil: number | undefined
  readonly resolve: (id: number) => void
  readonly reject: (error: Error) => void

  constructor(
    message: Outgoing,
    waitsUntil: number | undefined,
    resolve: (id: number) => void,
    reject: (error: Error) => void,
  ) {
    this.message = message
    this.waitsUntil = waitsUntil
    this.resolve = resolve
    this.reject = reject
  }
}

/**
 * Pushes messages to one queue, in order: one batch is under way, and the next one collects meanwhile. Before the queue is
 * attached, messages wait.
 */
export class Pusher {
  readonly #queue: string
  readonly #context: BusContext
  readonly #attachment: Attachment
  readonly #pending = new Fifo<Push>()
  /** Pushes of the last batch for which there was no room, and that wait for it, in order: before the pending ones. */
  #blocked: Push[] = []
  /** Number of the last batch. */
  #number = 0
  #isSending = false
  /** Whether there was no room for the last batch. */
  #isFull = false
  /** Whether room was announced since the last batch was sent. */
  #mayHaveRoom = false
  #roomTimer: Timer | undefined
  #roomTimerAt = Number.POSITIVE_INFINITY
  readonly #drained: (() => void)[] = []
  /** Messages that were pushed. */
  pushed = 0

  constructor(queue: string, context: BusContext, attachment: Attachment) {
    this.#queue = queue
    this.#context = context
    this.#attachment = attachment
  }

  /** Number of pushes that are not sent. */
  get waiting(): number {
    return this.#pending.size + this.#blocked.length
  }

  /** Resolves with the id of the message. `wait`: for room, ms. */
  push(message: Outgoing, wait: number): Promise<number> {
    return new Promise((resolve, reject) => {
      if (this.waiting >= MAX_PENDING)
        return reject(new OverloadedError(`${MAX_PENDING} messages wait to be pushed`, { key: this.#queue }))
      const waitsUntil = wait > 0 ? this.#context.clock.now() + wait : undefined
      // It would wait behind others for room.
      if (this.#isFull && waitsUntil === undefined) return reject(this.#fullError())
      refProcess(this.#context.clock)
      this.#pending.push(new Push(message, waitsUntil, resolve, reject))
      if (this.#isFull) this.#armRoomTimer(wait)
      else if (this.#pending.size === 1) this.flush()
    })
  }

  /** Sends what waits, once the queue is attached. */
  flush(): void {
    atEndOfTurn(() => void this.#send())
  }

  /** Resolves when everything is pushed that does not wait for room. */
  async drain(): Promise<void> {
    while (this.#attachment.isAttached && (this.#isSending || this.#pending.size > 0)) {
      if (!this.#isSending && this.#blocked.length > 0) return
      await new Promise<void>((resolve) => this.#drained.push(resolve))
    }
  }

  /** There may be room. */
  onRoom(): void {
    this.#mayHaveRoom = true
    if (this.#blocked.length > 0) this.flush()
  }

  /** Rejects all pushes that were not sent. */
  rejectAll(error: Error): void {
    const pushes = [...this.#blocked, ...this.#takePending(Number.POSITIVE_INFINITY)]
    this.#blocked = []
    this.#stopRoomTimer()
    for (const push of pushes) this.#reject(push, error)
  }

  /** Never rejects. */
  async #send(): Promise<void> {
    if (this.#isSending || !this.#attachment.isAttached) return
    this.#isSending = true
    try {
      while (this.#attachment.isAttached && (await this.#sendBatch())) {
        // Whoever was told may push more in this turn.
        await new Promise<void>(atEndOfTurn)
      }
    } finally {
      this.#isSending = false
      for (const resolve of this.#drained.splice(0)) resolve()
    }
  }

  #takePending(limit: number): Push[] {
    const pushes: Push[] = []
    let bytes = 0
    for (let next = this.#pending.first; next && pushes.length < limit; next = this.#pending.first) {
      bytes += next.message.bytes.length
      if (pushes.length > 0 && limit !== Number.POSITIVE_INFINITY && bytes > MAX_BATCH_BYTES) break
      this.#pending.shift()
      pushes.push(next)
    }
    return pushes
  }

  /** Returns whether there may be something more to send now. */
  async #sendBatch(): Promise<boolean> {
    this.#stopRoomTimer()
    this.#isFull = false
    this.#mayHaveRoom = false
    const batch = this.#blocked.length > 0 ? this.#blocked : this.#takePending(MAX_BATCH)
    this.#blocked = []
    if (batch.length === 0) return false
    const { member, address, life } = this.#attachment.place
    const messages = batch.map(({ message }) => message)
    const awaitsRoom = batch.some(({ waitsUntil }) => waitsUntil !== undefined)
    const request = { address, number: ++this.#number, messages, awaitsRoom }
    const since = this.#context.clock.now()
    const tell = (pushed: number, error?: Error) => {
      const ms = this.#context.clock.now() - since
      emit('push', { queue: this.#queue, messages: messages.length, pushed, ms, error })
    }
    try {
      const reply = await member.instance.queues.push(this.#queue, request, this.#context.within)
      if (reply.kind === 'detached') return await this.#onDetached(batch, life, reply.isRepeated)
      tell(reply.count)
      for (const [index, push] of batch.entries()) {
        if (index === reply.count) break
        this.pushed++
        unrefProcess(this.#context.clock)
        push.resolve(reply.first + index)
      }
      return this.#onFull(batch.slice(reply.count))
    } catch (error) {
      tell(0, error as Error)
      for (const push of batch) this.#reject(push, error as Error)
      return true
    }
  }

  /**
   * The instance does not know the attachment. If the queue was lost, the messages are sent to its next life. But if the request was
   * sent twice, the first may have pushed them: they may have been received before the queue was lost, or before the lease was
   * over.
   */
  async #onDetached(batch: readonly Push[], life: string, isRepeated = false): Promise<boolean> {
    // If the queue was closed, they are rejected with the others.
    this.#blocked = [...batch]
    const recovery = await this.#attachment.recover()
    const isLost = recovery === 'again' && this.#attachment.place.life !== life
    if (isLost && !isRepeated) return true
    const rest = this.#blocked
    this.#blocked = []
    const key = this.#queue
    const error =
      recovery === 'lost'
        ? new NotAttachedError('The queue is not attached any more', { key })
        : new UnavailableError(
            `The ${isLost ? 'queue was lost' : 'lease of this process was over'}: the message may have been pushed`,
            { key },
          )
    for (const push of rest) this.#reject(push, error)
    // Others may have come meanwhile.
    return recovery !== 'lost'
  }

  /** There was no room for these. Those that do not wait fail; the others wait, in order. */
  #onFull(rest: readonly Push[]): boolean {
    if (rest.length === 0) return true
    this.#blocked.push(...rest)
    this.#expire()
    this.#isFull = this.#blocked.length > 0
    // There may have been room before the reply arrived.
    return !this.#isFull || this.#mayHaveRoom
  }

  #fullError(): QueueFullError {
    return new QueueFullError('The queue is full', { key: this.#queue })
  }

  /** Rejects what does not wait for room, or not any more. The rest is tried again when there may be room. */
  #expire(): void {
    const now = this.#context.clock.now()
    const all = [...this.#blocked, ...this.#takePending(Number.POSITIVE_INFINITY)]
    const isWaiting = ({ waitsUntil }: Push) => waitsUntil !== undefined && waitsUntil > now
    const blocked = this.#blocked.length
    this.#blocked = all.slice(0, blocked).filter(isWaiting)
    for (const push of all.slice(blocked)) if (isWaiting(push)) this.#pending.push(push)
    for (const push of all) if (!isWaiting(push)) this.#reject(push, this.#fullError())
    for (const { waitsUntil } of all.filter(isWaiting)) this.#armRoomTimer((waitsUntil ?? now) - now)
  }

  /** Tries again after so many ms at the latest. */
  #armRoomTimer(ms: number): void {
    const at = this.#context.clock.now() + Math.min(ROOM_POLL_MS, ms)
    if (at >= this.#roomTimerAt) return
    this.#stopRoomTimer()
    this.#roomTimerAt = at
    this.#roomTimer = this.#context.clock.after(at - this.#context.clock.now(), () => this.#onRoomTimer())
  }

  #onRoomTimer(): void {
    this.#stopRoomTimer()
    if (this.#attachment.isAttached) return this.flush()
    this.#expire()
    this.#isFull = this.#blocked.length > 0
  }

  #stopRoomTimer(): void {
    this.#roomTimer?.cancel()
    this.#roomTimer = undefined
    this.#roomTimerAt = Number.POSITIVE_INFINITY
  }

  #reject(push: Push, error: Error): void {
    unrefProcess(this.#context.clock)
    push.reject(error)
  }

  /** Rejects what waits: the bus is closed. */
  close(): void {
    this.rejectAll(new ClosedError('The bus was disconnected', { key: this.#queue }))
  }
}
