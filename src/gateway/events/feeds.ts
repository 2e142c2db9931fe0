import { assertTransition, type Transitions } from '../../kernel/collections.ts'
import type { Clock, Timer } from '../../kernel/time.ts'
import { Feed } from './feed.ts'

/** Publishes events to a feed until the function is called that it resolves with. */
export type FeedSource = (feed: Feed) => Promise<() => void>

/** Charges a user of a feed for it, and returns what ends that. May throw. */
export type Charge = () => () => void

/** How long a feed goes on without a client, ms: one that reconnects in time misses nothing. */
const IDLE_MS = 30_000

/** Feeds that go on without a client, at most: a client may look at one job after the other. */
export const MAX_IDLE_FEEDS = 1_000

/**
 * A feed by name. A name whose feed has ended, or is stopped, gets another feed. Its users are charged for it while they use it;
 * the last one also as long as it is idle.
 *
 * | state   | `open`            | its last user releases it    | the source fails to start | the timer fires; too many are idle | `close` |
 * | ------- | ----------------- | ---------------------------- | ------------------------- | ---------------------------------- | ------- |
 * | used    | used, by one more | idle; stopped if it has ended | stopped                  |                                    | stopped |
 * | idle    | used              |                              |                           | stopped                            | stopped |
 * | stopped |                   | ignored                      | ignored                   |                                    |         |
 */
type FeedState =
  | { readonly kind: 'used'; readonly users: number }
  | { readonly kind: 'idle'; readonly timer: Timer; discharge(): void }
  | { readonly kind: 'stopped' }

const FEED_TRANSITIONS: Transitions<FeedState['kind']> = {
  used: ['used', 'idle', 'stopped'],
  idle: ['used', 'stopped'],
  stopped: [],
}

class OpenFeed {
  readonly feed = new Feed()
  /** Resolves when events arrive, with what stops them. */
  readonly started: Promise<() => void>
  #state: FeedState = { kind: 'used', users: 0 }

  constructor(source: FeedSource) {
    this.started = source(this.feed)
  }

  get state(): FeedState {
    return this.#state
  }

  enter(state: FeedState): void {
    const former = this.#state
    assertTransition('feed', FEED_TRANSITIONS, former.kind, state.kind)
    if (former.kind === 'idle') {
      former.timer.cancel()
      former.discharge()
    }
    this.#state = state
  }
}

/** The feeds of a gateway by name. All clients of one share it. */
export class Feeds {
  readonly #clock: Clock
  readonly #feeds = new Map<string, OpenFeed>()
  /** Those without a client, by name. Those that were left longest ago come first. */
  readonly #idle = new Map<OpenFeed, string>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** Number of feeds that are open. */
  get size(): number {
    return this.#feeds.size
  }

  /**
   * The feed of this name; `source` begins to publish to it if it is not open. Call `release` once when it is not used any more.
   * @throws what the source rejects with, or the charge throws
   */
  async open(
    name: string,
    source: FeedSource,
    charge: Charge = () => () => {},
  ): Promise<{ feed: Feed; release(): void }> {
    const discharge = charge()
    const found = this.#feeds.get(name)
    const opened = found && !found.feed.isOver ? found : this.#start(name, source)
    const { state } = opened
    this.#idle.delete(opened)
    opened.enter({ kind: 'used', users: state.kind === 'used' ? state.users + 1 : 1 })
    try {
      await opened.started
    } catch (error) {
      this.#stop(name, opened)
      discharge()
      throw error
    }
    return { feed: opened.feed, release: () => this.#release(name, opened, discharge) }
  }

  #start(name: string, source: FeedSource): OpenFeed {
    const opened = new OpenFeed(source)
    this.#feeds.set(name, opened)
    return opened
  }

  #release(name: string, opened: OpenFeed, discharge: () => void): void {
    const { state } = opened
    if (state.kind === 'used' && state.users === 1 && !opened.feed.isOver) {
      const timer = this.#clock.after(IDLE_MS, () => this.#stop(name, opened), true)
      opened.enter({ kind: 'idle', timer, discharge })
      this.#idle.set(opened, name)
      const [oldest] = this.#idle
      if (oldest && this.#idle.size > MAX_IDLE_FEEDS) this.#stop(oldest[1], oldest[0])
      return
    }
    discharge()
    if (state.kind !== 'used') return
    if (state.users > 1) opened.enter({ kind: 'used', users: state.users - 1 })
    else this.#stop(name, opened)
  }

  #stop(name: string, opened: OpenFeed): void {
    if (opened.state.kind === 'stopped') return
    opened.enter({ kind: 'stopped' })
    this.#idle.delete(opened)
    // Its name may have another feed already.
    if (this.#feeds.get(name) === opened) this.#feeds.delete(name)
    void opened.started.then(
      (stop) => stop(),
      () => {},
    )
  }

  close(): void {
    for (const [name, opened] of this.#feeds) this.#stop(name, opened)
  }
}
