import { OverloadedError } from '../../errors.ts'
import type { FeedEvent } from '../../queue/index.ts'
import { Shares } from '../clients/shares.ts'
import type { Caller } from '../env.ts'
import type { AccessToken } from '../options.ts'
import type { Queues } from '../queues.ts'

/** Most queues that are watched at once: each stays open, and announces its watcher to all processes every 5 s. */
const MAX_WATCHED = 500

/** How long a watcher waits for Redis, ms. */
const READY_WITHIN = 2_000

export interface QueueWatcher {
  onEvent(event: FeedEvent): void
  /** Events may have been lost. */
  onGap(): void
}

interface Watched {
  readonly watchers: Set<QueueWatcher>
  /** Resolves with what stops it when events arrive. */
  readonly started: Promise<() => void>
}

/**
 * Watches queues: however many watchers a queue has in this gateway, it is watched once. It counts in the share of each holder of
 * tokens that watches it.
 */
export class QueueWatches {
  readonly #queues: Queues
  readonly #shares: Shares
  readonly #watched = new Map<string, Watched>()

  constructor(queues: Queues, tokens: readonly AccessToken[] | undefined) {
    this.#queues = queues
    this.#shares = new Shares(MAX_WATCHED, 'too many watches', tokens)
  }

  /** Number of queues that are watched. */
  get size(): number {
    return this.#watched.size
  }

  /**
   * Counts the queue in the share of `caller` until the returned function is called, once or more often.
   * @throws Problem 429 if the caller watches too many.
   */
  charge(name: string, caller: Caller | undefined): () => void {
    this.#shares.assertRoom(caller, name)
    return this.#shares.take(caller, name)
  }

  /**
   * Calls the watcher until the returned function is called, once. `caller`: charged for as long.
   * @throws OverloadedError if too many queues are watched, Problem 429 if the caller watches too many; UnavailableError,
   * ClosedError.
   */
  async watch(name: string, watcher: QueueWatcher, caller?: Caller | undefined): Promise<() => void> {
    const discharge = this.charge(name, caller)
    try {
      const leave = await this.#join(name, watcher)
      return () => {
        leave()
        discharge()
      }
    } catch (error) {
      discharge()
      throw error
    }
  }

  async #join(name: string, watcher: QueueWatcher): Promise<() => void> {
    const watched = this.#watched.get(name) ?? this.#start(name)
    watched.watchers.add(watcher)
    const leave = () => {
      watched.watchers.delete(watcher)
      if (watched.watchers.size > 0 || this.#watched.get(name) !== watched) return
      this.#watched.delete(name)
      void watched.started.then(
        (stop) => stop(),
        () => {},
      )
    }
    try {
      await watched.started
      return leave
    } catch (error) {
      leave()
      throw error
    }
  }

  #start(name: string): Watched {
    if (this.#watched.size >= MAX_WATCHED) throw new OverloadedError('Too many queues are watched')
    const watchers = new Set<QueueWatcher>()
    const watched = { watchers, started: this.#watch(name, watchers) }
    this.#watched.set(name, watched)
    return watched
  }

  async #watch(name: string, watchers: ReadonlySet<QueueWatcher>): Promise<() => void> {
    const { queue, release } = this.#queues.hold(name)
    try {
      // Before that, events would be lost.
      await queue.ready({ timeout: READY_WITHIN })
      const stop = await queue.watch(
        (event) => {
          for (const watcher of watchers) watcher.onEvent(event)
        },
        {
          onGap: () => {
            for (const watcher of watchers) watcher.onGap()
          },
        },
      )
      return () => {
        stop()
        release()
      }
    } catch (error) {
      release()
      throw error
    }
  }
}
