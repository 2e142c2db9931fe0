import type { Clock, Timer } from '../../kernel/time.ts'
import type { FeedEvent } from '../../queue/index.ts'
import type { Queues } from '../queues.ts'
import type { Feed } from './feed.ts'
import type { FeedSource } from './feeds.ts'
import type { QueueWatcher, QueueWatches } from './queue-watches.ts'

/** The events that clients are told. What else came would be forged: an event `error` or `end`, say. */
const EVENTS: readonly string[] = [
  'submitted',
  'active',
  'completed',
  'retrying',
  'failed',
  'stalled',
  'lost',
]

/** Most queues that the feed of all queues watches: those that were used last. */
const MAX_QUEUES = 100

/** How often the feed of all queues looks for others, ms. */
const LOOK_INTERVAL = 5_000

function publisher(queue: string, feed: Feed): QueueWatcher {
  return {
    onEvent: ({ event, ...details }: FeedEvent) => {
      if (EVENTS.includes(event)) feed.publish({ event, data: JSON.stringify({ ...details, queue }) })
    },
    onGap: () => feed.publish({ event: 'gap', data: JSON.stringify({ queue, missed: null }) }),
  }
}

/** The events of one queue. */
export function queueFeed(watches: QueueWatches, queue: string): FeedSource {
  return (feed) => watches.watch(queue, publisher(queue, feed))
}

/**
 * The events of the queues that were used last. One that is used for the first time is watched some seconds later. The event
 * `queues` says how many are watched, and how many there are.
 */
export function allQueuesFeed(watches: QueueWatches, queues: Queues, clock: Clock): FeedSource {
  return async (feed) => {
    const all = new AllQueues(watches, queues, clock, feed)
    try {
      await all.start()
    } catch (error) {
      all.stop()
      throw error
    }
    return () => all.stop()
  }
}

class AllQueues {
  readonly #watches: QueueWatches
  readonly #queues: Queues
  readonly #clock: Clock
  readonly #feed: Feed
  /** Stops the watch of each queue. */
  readonly #stops = new Map<string, () => void>()
  #lastSent = ''
  #timer: Timer | undefined
  #isOver = false

  constructor(watches: QueueWatches, queues: Queues, clock: Clock, feed: Feed) {
    this.#watches = watches
    this.#queues = queues
    this.#clock = clock
    this.#feed = feed
  }

  async start(): Promise<void> {
    await this.#look()
    this.#lookLater()
  }

  #lookLater(): void {
    if (this.#isOver) return
    this.#timer = this.#clock.after(
      LOOK_INTERVAL,
      // What fails now is tried again.
      () => void this.#look().then(this.#again, this.#again),
      true,
    )
  }

  readonly #again = (): void => this.#lookLater()

  async #look(): Promise<void> {
    const { names, count } = await this.#queues.listed(MAX_QUEUES)
    for (const [name, stop] of this.#stops) {
      if (names.includes(name)) continue
      this.#stops.delete(name)
      stop()
    }
    await Promise.all(names.filter((name) => !this.#stops.has(name)).map((name) => this.#watch(name)))
    const text = JSON.stringify({ watched: this.#stops.size, known: count })
    if (text !== this.#lastSent) this.#feed.publish({ event: 'queues', data: text })
    this.#lastSent = text
  }

  async #watch(name: string): Promise<void> {
    const stop = await this.#watches.watch(name, publisher(name, this.#feed))
    if (this.#isOver) stop()
    else this.#stops.set(name, stop)
  }

  stop(): void {
    this.#isOver = true
    this.#timer?.cancel()
    for (const stop of this.#stops.values()) stop()
    this.#stops.clear()
  }
}
