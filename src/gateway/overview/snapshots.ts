import type { Clock, Timer } from '../../kernel/time.ts'
import { Frame } from '../http/event-frame.ts'
import type { Overview } from './overview.ts'

/** Time from the beginning of one overview to the next while anybody watches, ms. */
const EVERY = 1_000

/** An overview of this age is given to those who ask, ms. */
const REUSED_FOR = 100

/**
 * The overviews of a gateway: each is read and encoded once, however many ask and watch. While nobody does, nothing is read.
 */
export class Snapshots {
  readonly #read: () => Promise<Overview>
  readonly #clock: Clock
  readonly #watchers = new Set<(frame: Frame) => void>()
  #reading: Promise<string> | undefined
  #last: { readonly text: string; readonly at: number } | undefined
  /** Runs while anybody watches and no overview is read for the watchers. */
  #timer: Timer | undefined
  #isTicking = false

  /** `read` must not reject. */
  constructor(read: () => Promise<Overview>, clock: Clock) {
    this.#read = read
    this.#clock = clock
  }

  /** The present overview, as JSON. */
  async current(): Promise<string> {
    const last = this.#last
    if (last && this.#clock.now() - last.at < REUSED_FOR) return last.text
    this.#reading ??= this.#readOnce()
    return this.#reading
  }

  async #readOnce(): Promise<string> {
    try {
      const text = JSON.stringify(await this.#read())
      this.#last = { text, at: this.#clock.now() }
      return text
    } finally {
      this.#reading = undefined
    }
  }

  /** Calls `watcher` with the present overview, and with one in each second, until the returned function is called. */
  watch(watcher: (frame: Frame) => void): () => void {
    this.#watchers.add(watcher)
    if (this.#timer || this.#isTicking) void this.#tellFirst(watcher)
    else void this.#tick()
    return () => {
      this.#watchers.delete(watcher)
      if (this.#watchers.size > 0) return
      this.#timer?.cancel()
      this.#timer = undefined
    }
  }

  /** A watcher that comes between two overviews has one at once. */
  async #tellFirst(watcher: (frame: Frame) => void): Promise<void> {
    const frame = Frame.of({ data: await this.current() })
    if (this.#watchers.has(watcher)) watcher(frame)
  }

  async #tick(): Promise<void> {
    this.#timer = undefined
    this.#isTicking = true
    const startedAt = this.#clock.now()
    const frame = Frame.of({ data: await this.current() })
    this.#isTicking = false
    for (const watcher of this.#watchers) watcher(frame)
    if (this.#watchers.size === 0) return
    const left = Math.max(0, startedAt + EVERY - this.#clock.now())
    this.#timer = this.#clock.after(left, () => void this.#tick(), true)
  }
}
