import type { Clock, Timer } from '../../kernel/time.ts'
import { Feed } from './feed.ts'

/** Publishes events to a feed until the function is called that it resolves with. */
export type FeedSource = (feed: Feed) => Promise<() => void>

/** How long a feed goes on without a client, ms: one that reconnects in time misses nothing. */
const IDLE_MS = 30_000

interface OpenFeed {
  readonly feed: Feed
  /** Resolves when events arrive. */
  readonly started: Promise<() => void>
  users: number
  /** Runs while there are no users. */
  timer: Timer | undefined
  isStopped: boolean
}

/** The feeds of a gateway by name. All clients of one share it. */
export class Feeds {
  readonly #clock: Clock
  readonly #feeds = new Map<string, OpenFeed>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** Number of feeds that are open. */
  get size(): number {
    return this.#feeds.size
  }

  /**
   * The feed of this name; `source` begins to publish to it if it is not open. Call `release` once when it is not used any more.
   * @throws what the source rejects with
   */
  async open(name: string, source: FeedSource): Promise<{ feed: Feed; release(): void }> {
    const found = this.#feeds.get(name)
    const opened = found && !found.feed.isOver ? found : this.#start(name, source)
    opened.users++
    opened.timer?.cancel()
    const release = () => this.#release(name, opened)
    try {
      await opened.started
    } catch (error) {
      this.#remove(name, opened)
      throw error
    }
    return { feed: opened.feed, release }
  }

  #start(name: string, source: FeedSource): OpenFeed {
    const feed = new Feed()
    const opened = { feed, started: source(feed), users: 0, timer: undefined, isStopped: false }
    this.#feeds.set(name, opened)
    return opened
  }

  #release(name: string, opened: OpenFeed): void {
    if (--opened.users > 0 || opened.isStopped) return
    if (opened.feed.isOver) return this.#stop(name, opened)
    opened.timer = this.#clock.after(IDLE_MS, () => this.#stop(name, opened), true)
  }

  #remove(name: string, opened: OpenFeed): void {
    if (this.#feeds.get(name) === opened) this.#feeds.delete(name)
  }

  #stop(name: string, opened: OpenFeed): void {
    opened.timer?.cancel()
    this.#remove(name, opened)
    if (opened.isStopped) return
    opened.isStopped = true
    void opened.started.then(
      (stop) => stop(),
      () => {},
    )
  }

  close(): void {
    for (const [name, opened] of this.#feeds) this.#stop(name, opened)
  }
}
