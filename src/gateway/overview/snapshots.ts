import type { Clock, Timer } from '../../kernel/time.ts'
import type { Overview } from './overview.ts'

/** Time from the beginning of one overview to the next while anybody watches, ms. */
const EVERY = 1_000

/** An overview of this age is given to those who ask, ms. */
const REUSED_FOR = 100

/**
 * The overviews of a gateway: each is read once, however many ask and watch. While nobody does, nothing is read.
 */
export class Snapshots {
  readonly #read: () => Promise<Overview>
  readonly #clock: Clock
  readonly #watchers = new Set<(overview: Overview) => void>()
  #reading: Promise<Overview> | undefined
  #last: { overview: Overview; at: number } | undefined
  #timer: Timer | undefined

  /** `read` must not reject. */
  constructor(read: () => Promise<Overview>, clock: Clock) {
    this.#read = read
    this.#clock = clock
  }

  /** The present overview. */
  async current(): Promise<Overview> {
    const last = this.#last
    if (last && this.#clock.now() - last.at < REUSED_FOR) return last.overview
    this.#reading ??= this.#readOnce()
    return this.#reading
  }

  async #readOnce(): Promise<Overview> {
    try {
      const overview = await this.#read()
      this.#last = { overview, at: this.#clock.now() }
      return overview
    } finally {
      this.#reading = undefined
    }
  }

  /** Calls `watcher` with each overview, one in a second, until the returned function is called. */
  watch(watcher: (overview: Overview) => void): () => void {
    this.#watchers.add(watcher)
    if (this.#watchers.size === 1 && !this.#timer) void this.#tick()
    else void this.current().then((overview) => this.#watchers.has(watcher) && watcher(overview))
    return () => {
      this.#watchers.delete(watcher)
      if (this.#watchers.size > 0) return
      this.#timer?.cancel()
      this.#timer = undefined
    }
  }

  async #tick(): Promise<void> {
    const startedAt = this.#clock.now()
    // Set at once: a watcher that comes meanwhile begins no second row of overviews.
    const timer = this.#clock.after(EVERY, () => {}, true)
    this.#timer = timer
    const overview = await this.current()
    for (const watcher of this.#watchers) watcher(overview)
    if (this.#timer !== timer) return
    timer.cancel()
    const left = Math.max(0, startedAt + EVERY - this.#clock.now())
    this.#timer = this.#clock.after(left, () => void this.#tick(), true)
  }
}
