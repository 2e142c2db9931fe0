import { ClosedError } from '../../errors.ts'
import { lossMargin, RENEW_AFTER } from '../../kernel/time.ts'
import type { BusContext } from '../context.ts'
import type { Detached, Lost, Taken } from '../store/store.ts'
import type { Attachment } from './attachment.ts'
import type { LostMessages } from './lost-messages.ts'
import type { MessageSource } from './message-source.ts'

/** Pause after which an instance that did not answer is told again, ms. */
const RETRY_MS = 100

/** A call of `ack` that waits for its effect. */
interface Acknowledgement {
  readonly resolve: () => void
  readonly reject: (error: Error) => void
}

export interface ConsumerEvents {
  /** Something is to be sent. */
  onNews(): void
  /** The lease is over: what it held is lost. */
  onLeaseLost(): void
}

export interface ConsumerTerms {
  readonly lease: number
  readonly reliable: boolean
  readonly exclusive: boolean
  readonly last: number
  readonly prefetch: number
}

/**
 * Takes messages from a queue, and holds them under a lease: until they are acknowledged, or, if the consumer is not reliable,
 * until they are handed over.
 */
export class Consumer implements MessageSource {
  readonly #queue: string
  readonly #context: BusContext
  readonly #attachment: Attachment
  readonly #terms: ConsumerTerms
  readonly #events: ConsumerEvents
  /** Ids of the messages that it holds and has not acknowledged, in the order in which they arrived; whether each was handed over. */
  readonly #held = new Map<number, boolean>()
  /** Ids of messages that are to be removed. */
  readonly #acked = new Set<number>()
  #acknowledgements: Acknowledgement[] = []
  readonly #lost: LostMessages
  #leaseEndsAt = 0
  /** How often everything was lost. */
  #losses = 0
  #stopRenewing = () => {}

  constructor(
    queue: string,
    context: BusContext,
    attachment: Attachment,
    terms: ConsumerTerms,
    events: ConsumerEvents,
    lost: LostMessages,
  ) {
    this.#queue = queue
    this.#context = context
    this.#attachment = attachment
    this.#terms = terms
    this.#events = events
    this.#lost = lost
  }

  get room(): number {
    return this.#terms.prefetch - this.#held.size
  }

  get hasNews(): boolean {
    return this.#acked.size > 0 || this.#acknowledgements.length > 0
  }

  get isSettled(): boolean {
    return !this.#terms.reliable || this.#held.size === 0
  }

  get isValid(): boolean {
    return this.#context.clock.now() < this.#leaseEndsAt && this.#attachment.isLeaseValid
  }

  async join(): Promise<Detached | undefined> {
    const { member, address } = this.#attachment.place
    const { prefetch: _, ...request } = { ...this.#terms, address }
    for (;;) {
      const sentAt = this.#context.clock.now()
      const reply = await member.instance.queues.consume(this.#queue, request, this.#context.within)
      if (typeof reply === 'object') return reply
      this.#extend(sentAt)
      if (reply) break
    }
    this.#stopRenewing()
    this.#stopRenewing = this.#attachment.renewEvery(this.#terms.lease * RENEW_AFTER, (reply, sentAt) => {
      if (reply === 'consuming') this.#extend(sentAt)
      else if (reply === 'attached') this.#events.onLeaseLost()
    })
    return undefined
  }

  /** The lease counts from when the request was sent. */
  #extend(sentAt: number): void {
    const { lease } = this.#terms
    this.#leaseEndsAt = Math.max(this.#leaseEndsAt, sentAt + lease - lossMargin(lease))
  }

  async fetch(want: number): Promise<Taken | Lost | Detached> {
    const { member, address } = this.#attachment.place
    const acked = [...this.#acked]
    const waiting = this.#acknowledgements
    this.#acknowledgements = []
    const request = { address, acked, have: this.#held.size, want }
    const losses = this.#losses
    try {
      const reply = await member.instance.queues.take(this.#queue, request, this.#context.within)
      // What it was given is lost as well, and ids may mean other messages now.
      if (losses !== this.#losses) {
        for (const { reject } of waiting) reject(this.#lost.error())
        return { kind: 'lost' }
      }
      if (reply.kind !== 'taken') {
        for (const { reject } of waiting) reject(this.#lost.error())
        return reply
      }
      for (const id of acked) this.#acked.delete(id)
      for (const { resolve } of waiting) resolve()
      // After a lost reply, some are given again that are here.
      const messages = reply.messages.filter(({ id }) => !this.#held.has(id) && !this.#acked.has(id))
      // It holds others besides, which do not fit into one reply: it becomes a consumer again, and takes them anew.
      if (messages.length < reply.messages.length && messages.length === 0) return { kind: 'lost' }
      for (const { id } of messages) this.#held.set(id, false)
      return { ...reply, messages }
    } catch (error) {
      // They are sent again with the next fetch.
      for (const { reject } of waiting) reject(error as Error)
      throw error
    }
  }

  onHanded(id: number): void {
    if (this.#terms.reliable) {
      this.#held.set(id, true)
      this.#lost.delete(id)
    } else if (this.#held.delete(id)) this.#acked.add(id)
  }

  /**
   * Acknowledges the messages up to this id that were handed over here.
   * @throws LeaseLostError if this one was lost: it is delivered again. UnavailableError, OverloadedError, ClosedError: perhaps
   * it is; it is acknowledged when the instance answers, unless this process dies before.
   */
  ack(id: number): Promise<void> {
    if (!this.#terms.reliable) return Promise.resolve()
    for (const [held, isHanded] of this.#held) {
      if (!isHanded || held > id) continue
      this.#held.delete(held)
      this.#acked.add(held)
    }
    if (this.#acked.size > 0) this.#events.onNews()
    if (this.#lost.has(id)) return Promise.reject(this.#lost.error())
    if (this.#acked.size === 0) return Promise.resolve()
    return new Promise((resolve, reject) => {
      this.#acknowledgements.push({ resolve, reject })
    })
  }

  /** Acknowledges one message. */
  drop(id: number): void {
    if (!this.#held.delete(id)) return
    this.#acked.add(id)
    this.#events.onNews()
  }

  onLost(): void {
    for (const [id, isHanded] of this.#held) if (isHanded) this.#lost.add(id)
    // It is not known whether the acknowledgement arrived in time.
    if (this.#terms.reliable) for (const id of this.#acked) this.#lost.add(id)
    this.#losses++
    this.#leaseEndsAt = 0
    this.#held.clear()
    this.#acked.clear()
    for (const { reject } of this.#acknowledgements) reject(this.#lost.error())
    this.#acknowledgements = []
    this.#stopRenewing()
  }

  /** Tries until the lease is over: otherwise messages that were not handed over would be lost. */
  async leave(unhanded: readonly number[]): Promise<void> {
    const { member, address } = this.#attachment.place
    const { clock, within } = this.#context
    try {
      for (;;) {
        const acked = [...this.#acked]
        // Acknowledgements that come later are not part of this request.
        const waiting = this.#acknowledgements
        this.#acknowledgements = []
        try {
          await member.instance.queues.leave(this.#queue, { address, acked, unhanded }, within)
          // If the lease was over before, the instance has acknowledged nothing, and does not say so.
          if (this.isValid) for (const id of acked) this.#acked.delete(id)
          for (const { resolve, reject } of waiting) {
            if (this.isValid) resolve()
            else reject(this.#lost.error())
          }
          return
        } catch (error) {
          for (const { reject } of waiting) reject(error as Error)
          if (error instanceof ClosedError || !this.isValid) throw error
          await new Promise<void>((resolve) => clock.after(RETRY_MS, resolve))
        }
      }
    } finally {
      this.onLost()
    }
  }
}
