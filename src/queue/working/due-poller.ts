import type { Clock, Timer } from '../../kernel/time/clock.ts'
import type { DueJob, DueResult, QueueStore, StallPolicy } from '../store/store.ts'

/** What seemed due and was not is looked at again after so long, ms; doubles up to the last. */
const EARLY_FIRST = 5
const EARLY_LAST = 640

export interface TimekeeperOptions {
  store: QueueStore
  clock: Clock
  lease: number
  unavailableAfter: number
  terms: StallPolicy
  /** What became of what was due. */
  ticked(ticks: DueResult[]): void
}

/**
 * Looks after what is due: delayed jobs, and jobs whose worker died. Every process with a worker has one: it looks when
 * the first thing is due that it knows of, and every 1.4 leases for what it does not know. Whoever dies, a job is so
 * found within the rest of its lease, or 1.4 leases after it was taken.
 */
export class Timekeeper {
  readonly #options: TimekeeperOptions
  #timer: Timer | undefined
  /** When it looks next. */
  #at = Number.POSITIVE_INFINITY
  #looking = false
  /** Something came due while it looked. */
  #again = false
  #early = EARLY_FIRST
  #closed = false

  constructor(options: TimekeeperOptions) {
    this.#options = options
    this.#arm(0)
  }

  /** Something is due in `ms`. */
  due(ms: number): void {
    this.#arm(ms)
  }

  #arm(ms: number): void {
    const { clock } = this.#options
    // A timer may fire a moment early by the server's clock.
    const at = clock.now() + Math.max(ms, 0) + 1
    if (this.#closed || at >= this.#at) return
    this.#timer?.cancel()
    this.#at = at
    this.#timer = clock.after(at - clock.now(), () => void this.#look(), true)
  }

  async #look(): Promise<void> {
    this.#at = Number.POSITIVE_INFINITY
    this.#again = this.#looking
    if (this.#looking || this.#closed) return
    this.#looking = true
    let next = this.#options.lease * (1.3 + Math.random() / 10)
    try {
      next = Math.min(next, await this.#work())
    } catch {
      next = Math.min(next, this.#options.unavailableAfter)
    }
    this.#looking = false
    this.#arm(this.#again ? 0 : next)
    this.#again = false
  }

  /** Looks after everything that is due. Returns ms until the next. */
  async #work(): Promise<number> {
    const { store, unavailableAfter, terms, ticked } = this.#options
    const limits = { within: unavailableAfter }
    for (;;) {
      const { jobs, nextIn: next } = await store.findDue(limits)
      if (jobs.length === 0 || this.#closed) return next ?? Number.POSITIVE_INFINITY
      const ticks = await store.processDue(jobs satisfies DueJob[], terms, limits)
      ticked(ticks)
      // By the server's clock, nothing of it was due yet.
      if (ticks.every(({ status }) => status === 'none')) return this.#later()
      this.#early = EARLY_FIRST
    }
  }

  #later(): number {
    const ms = this.#early
    this.#early = Math.min(ms * 2, EARLY_LAST)
    return ms
  }

  close(): void {
    this.#closed = true
    this.#timer?.cancel()
  }
}
