import { assertTransition, type Transitions } from '../../kernel/collections.ts'
import type { Clock, Timer } from '../../kernel/time.ts'
import { Frame } from '../http/event-frame.ts'
import type { Overview } from './overview.ts'

/** Time from the beginning of one overview to the next while anybody watches, ms. */
const INTERVAL = 1_000

/** An overview that is at most this old, ms, is given to those who ask. */
const MAX_AGE = 100

/**
 * The overviews for those who watch.
 *
 * | state   | a watcher comes                | the last watcher leaves | the overview was read        | the timer fires |
 * | ------- | ------------------------------ | ----------------------- | ---------------------------- | --------------- |
 * | idle    | reading                        |                         |                              |                 |
 * | reading | is sent this overview too      |                         | waiting; without a watcher: idle |             |
 * | waiting | is sent the present overview   | idle                    |                              | reading         |
 */
type WatchState =
  | { readonly kind: 'idle' | 'reading' }
  /** The timer begins the next overview. */
  | { readonly kind: 'waiting'; readonly timer: Timer }

const WATCH_TRANSITIONS: Transitions<WatchState['kind']> = {
  idle: ['reading'],
  reading: ['waiting', 'idle'],
  waiting: ['reading', 'idle'],
}

/**
 * The overviews of a gateway: each is read and encoded once, however many ask and watch. While nobody does, nothing is read.
 */
export class Snapshots {
  readonly #read: () => Promise<Overview>
  readonly #clock: Clock
  readonly #watchers = new Set<(frame: Frame) => void>()
  #state: WatchState = { kind: 'idle' }
  /** The overview that is being read, for whoever wants one. */
  #pending: Promise<string> | undefined
  #last: { readonly text: string; readonly at: number } | undefined

  /** `read` must not reject. */
  constructor(read: () => Promise<Overview>, clock: Clock) {
    this.#read = read
    this.#clock = clock
  }

  /** The present overview, as JSON. */
  async current(): Promise<string> {
    const last = this.#last
    if (last && this.#clock.now() - last.at < MAX_AGE) return last.text
    this.#pending ??= this.#readOnce()
    return this.#pending
  }

  async #readOnce(): Promise<string> {
    try {
      const text = JSON.stringify(await this.#read())
      this.#last = { text, at: this.#clock.now() }
      return text
    } finally {
      this.#pending = undefined
    }
  }

  #enter(state: WatchState): void {
    const former = this.#state
    assertTransition('overviews', WATCH_TRANSITIONS, former.kind, state.kind)
    if (former.kind === 'waiting') former.timer.cancel()
    this.#state = state
  }

  /** Calls `watcher` with the present overview, and with one in each second, until the returned function is called. */
  watch(watcher: (frame: Frame) => void): () => void {
    this.#watchers.add(watcher)
    if (this.#state.kind === 'idle') void this.#sendNext()
    else if (this.#state.kind === 'waiting') void this.#sendPresent(watcher)
    return () => {
      this.#watchers.delete(watcher)
      if (this.#watchers.size === 0 && this.#state.kind === 'waiting') this.#enter({ kind: 'idle' })
    }
  }

  /** To a watcher that comes between two overviews. */
  async #sendPresent(watcher: (frame: Frame) => void): Promise<void> {
    const frame = Frame.of({ data: await this.current() })
    if (this.#watchers.has(watcher)) watcher(frame)
  }

  async #sendNext(): Promise<void> {
    this.#enter({ kind: 'reading' })
    const startedAt = this.#clock.now()
    const frame = Frame.of({ data: await this.current() })
    for (const watcher of this.#watchers) watcher(frame)
    if (this.#watchers.size === 0) return this.#enter({ kind: 'idle' })
    const left = Math.max(0, startedAt + INTERVAL - this.#clock.now())
    this.#enter({ kind: 'waiting', timer: this.#clock.after(left, () => void this.#sendNext(), true) })
  }
}
