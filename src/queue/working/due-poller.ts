import type { Clock, Timer } from '../../kernel/event-loop.ts'
import type { DueJob, DueResult, QueueStore, StallPolicy } from '../store/store.ts'

/** Delay of the next poll if nothing of what seemed due was due by the server's clock, ms. Doubles up to the maximum. */
const EARLY_RETRY_MIN = 5
const EARLY_RETRY_MAX = 640

export interface DuePollerDeps {
  store: QueueStore
  clock: Clock
  lease: number
  unavailableAfter: number
  terms: StallPolicy
  /** Called with the result of each batch of due jobs. */
  onTicks(ticks: DueResult[]): void
}

/**
 * Promotes delayed jobs that are due, and requeues jobs whose worker died. Every process with a worker has one poller. It
 * polls when the next job is due that it knows of, and at least every 1.4 leases, since it does not know of all jobs. So
 * the job of a dead worker is found when its lease ends, or at most 1.4 leases after it was delivered.
 */
export class DuePoller {
  readonly #deps: DuePollerDeps
  #timer: Timer | undefined
  /** Time of the next poll, ms of the clock. */
  #pollAt = Number.POSITIVE_INFINITY
  #polling = false
  /** A poll was requested while another was under way. */
  #pollAgain = false
  #earlyRetry = EARLY_RETRY_MIN
  #closed = false

  constructor(options: DuePollerDeps) {
    this.#deps = options
    this.#arm(0)
  }

  /** Schedules a poll in `ms`, unless one is scheduled earlier. */
  dueIn(ms: number): void {
    this.#arm(ms)
  }

  #arm(ms: number): void {
    const { clock } = this.#deps
    // One ms later: a timer may fire early by the server's clock.
    const at = clock.now() + Math.max(ms, 0) + 1
    if (this.#closed || at >= this.#pollAt) return
    this.#timer?.cancel()
    this.#pollAt = at
    this.#timer = clock.after(at - clock.now(), () => void this.#poll(), true)
  }

  async #poll(): Promise<void> {
    this.#pollAt = Number.POSITIVE_INFINITY
    this.#pollAgain = this.#polling
    if (this.#polling || this.#closed) return
    this.#polling = true
    let next = this.#deps.lease * (1.3 + Math.random() / 10)
    try {
      next = Math.min(next, await this.#processDue())
    } catch {
      next = Math.min(next, this.#deps.unavailableAfter)
    }
    this.#polling = false
    this.#arm(this.#pollAgain ? 0 : next)
    this.#pollAgain = false
  }

  /** Processes everything that is due. Returns the time until the next job is due, ms. */
  async #processDue(): Promise<number> {
    const { store, unavailableAfter, terms, onTicks: ticked } = this.#deps
    const limits = { within: unavailableAfter }
    for (;;) {
      const { jobs, nextIn: next } = await store.findDue(limits)
      if (jobs.length === 0 || this.#closed) return next ?? Number.POSITIVE_INFINITY
      const ticks = await store.processDue(jobs satisfies DueJob[], terms, limits)
      ticked(ticks)
      // By the server's clock, none of these jobs was due yet.
      if (ticks.every(({ status }) => status === 'none')) return this.#nextEarlyRetry()
      this.#earlyRetry = EARLY_RETRY_MIN
    }
  }

  #nextEarlyRetry(): number {
    const ms = this.#earlyRetry
    this.#earlyRetry = Math.min(ms * 2, EARLY_RETRY_MAX)
    return ms
  }

  close(): void {
    this.#closed = true
    this.#timer?.cancel()
  }
}
