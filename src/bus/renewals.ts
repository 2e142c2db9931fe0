import type { Clock, Timer } from '../kernel/time.ts'

/** A part of an interval: what is due within it is renewed together with what is due now. */
const TOGETHER = 1 / 4

/** Something that must be renewed again and again. */
interface Entry<Item, Reply> {
  readonly item: Item
  readonly interval: number
  readonly onReply: (reply: Reply | Error, sentAt: number) => void
  readonly onSend: () => void
  dueAt: number
}

/**
 * Renews leases on one instance: what is due at about the same time goes into one call, so that any number of idle queues
 * costs as much as one.
 */
export class Renewals<Item, Reply> {
  readonly #clock: Clock
  readonly #renew: (items: readonly Item[]) => Promise<readonly (Reply | Error)[]>
  readonly #entries = new Set<Entry<Item, Reply>>()
  #timer: Timer | undefined
  #timerAt = Number.POSITIVE_INFINITY

  /** `renew` resolves with the reply, or the error, of each item, in order. */
  constructor(clock: Clock, renew: (items: readonly Item[]) => Promise<readonly (Reply | Error)[]>) {
    this.#clock = clock
    this.#renew = renew
  }

  /**
   * Renews an item every `interval` ms, the first time after one. `sentAt`: when the renewal was sent, by the clock. `onSend` is
   * called before each renewal. The returned function ends that.
   */
  add(
    item: Item,
    interval: number,
    onReply: (reply: Reply | Error, sentAt: number) => void,
    onSend: () => void = () => {},
  ): () => void {
    const entry = { item, interval, onReply, onSend, dueAt: this.#clock.now() + interval }
    this.#entries.add(entry)
    this.#wakeAt(entry.dueAt)
    return () => {
      if (this.#entries.delete(entry) && this.#entries.size === 0) this.#disarm()
    }
  }

  /** Renews everything now: the instance was away. */
  renewNow(): void {
    for (const entry of this.#entries) entry.dueAt = this.#clock.now()
    if (this.#entries.size > 0) this.#wakeAt(this.#clock.now())
  }

  #disarm(): void {
    this.#timer?.cancel()
    this.#timer = undefined
    this.#timerAt = Number.POSITIVE_INFINITY
  }

  #wakeAt(at: number): void {
    if (at >= this.#timerAt || at === Number.POSITIVE_INFINITY) return
    this.#disarm()
    this.#timerAt = at
    this.#timer = this.#clock.after(at - this.#clock.now(), () => this.#onTimer(), true)
  }

  #onTimer(): void {
    this.#disarm()
    const now = this.#clock.now()
    const due = [...this.#entries].filter(({ dueAt, interval }) => dueAt - interval * TOGETHER <= now)
    for (const entry of due) {
      entry.dueAt = now + entry.interval
      entry.onSend()
    }
    let next = Number.POSITIVE_INFINITY
    for (const { dueAt } of this.#entries) next = Math.min(next, dueAt)
    this.#wakeAt(next)
    void this.#renewAll(due, now)
  }

  /** Never rejects. An entry that fails is renewed again at its next time. */
  async #renewAll(due: readonly Entry<Item, Reply>[], sentAt: number): Promise<void> {
    const replies = await this.#renew(due.map(({ item }) => item)).catch((error: Error) =>
      due.map(() => error),
    )
    for (const [index, entry] of due.entries()) {
      const reply = replies[index]
      if (reply !== undefined && this.#entries.has(entry)) entry.onReply(reply, sentAt)
    }
  }
}
