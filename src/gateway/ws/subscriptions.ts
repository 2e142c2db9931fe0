import { reportHookError } from '../../kernel/hooks.ts'
import { Problem, problemOf } from '../problem.ts'
import { type Pool, Share } from './limits.ts'

/** The id of a message: its reply has the same one, and what it subscribes to is named by it. */
export type MessageId = string | number

/** What a client has subscribed to. */
export interface Subscription {
  /** Of what it is about, for the audit event of an action on it. */
  readonly name?: string
  /** Ends it. May reject: it has ended here then, and its leases end by themselves. */
  end(): Promise<void> | void
}

interface Kept {
  readonly subscription: Subscription
  bytes: number
}

/** Subscriptions of one socket: workers, feeds, topics, queues. */
const MAX_SUBSCRIPTIONS = 1_000

/** What a subscription keeps beside what its client has named, bytes. */
const KEPT_BY_EACH = 1024

/** The subscriptions of one socket: bounds their number, and what they keep. */
export class Subscriptions {
  readonly #byId = new Map<MessageId, Kept>()
  readonly #share: Share

  constructor(pool: Pool) {
    this.#share = new Share(pool)
  }

  get all(): Subscription[] {
    return [...this.#byId.values()].map(({ subscription }) => subscription)
  }

  get(id: MessageId): Subscription | undefined {
    return this.#byId.get(id)?.subscription
  }

  /** @throws Problem if the id names one already, or there are too many, or they keep too much. */
  add(id: MessageId, subscription: Subscription, more: number): void {
    if (this.#byId.has(id)) throw new Problem(409, 'subscribed already')
    if (this.#byId.size >= MAX_SUBSCRIPTIONS) throw new Problem(429, 'too many subscriptions')
    const bytes = KEPT_BY_EACH + more
    this.#assertRoom(bytes)
    this.#byId.set(id, { subscription, bytes })
    this.#share.add(bytes)
  }

  /** One keeps so much now. If that is too much, it ends. @throws Problem then */
  async resize(id: MessageId, bytes: number): Promise<void> {
    const kept = this.#byId.get(id)
    if (!kept) return
    const more = KEPT_BY_EACH + bytes - kept.bytes
    try {
      this.#assertRoom(more)
    } catch (error) {
      await this.end(id)
      throw error
    }
    kept.bytes += more
    this.#share.add(more)
  }

  #assertRoom(bytes: number): void {
    const excess = this.#share.excess(bytes)
    const detail = 'They keep too much'
    if (excess === 'each') throw new Problem(429, 'too many subscriptions', { detail })
    if (excess === 'all') throw new Problem(503, 'overloaded', { detail })
  }

  /** Ends one. Resolves with whether there was one of this id. */
  async end(id: MessageId): Promise<boolean> {
    const found = this.#byId.get(id)
    if (!found) return false
    this.#byId.delete(id)
    this.#share.add(-found.bytes)
    await found.subscription.end()
    return true
  }

  /** Ends all. Never rejects. */
  async endAll(): Promise<void> {
    await Promise.all([...this.#byId.keys()].map((id) => this.#endSafely(id)))
  }

  async #endSafely(id: MessageId): Promise<void> {
    try {
      await this.end(id)
    } catch (error) {
      // Without the store, what it holds ends by its lease.
      if (!problemOf(error)) reportHookError('gateway', error)
    }
  }
}
