import { assertTransition, type Transitions } from '../../kernel/collections.ts'
import type { Clock, Timer } from '../../kernel/time.ts'

/** The capacity is announced this often, ms: a store that lost its data does not know the worker any more. */
const ANNOUNCE_INTERVAL = 5 * 60_000

/** Shortest time between two announcements that the store asked for, ms. */
const MIN_ANNOUNCE_PAUSE = 20

/** A failed announcement is repeated after one to two times this delay, ms. */
const RETRY_AFTER = 200

/** Number of failed announcements in a row after which `onFailing` is called. */
const FAILURES_BEFORE_WARNING = 3

/** Dependencies of an announcer. */
export interface AnnouncerDeps {
  clock: Clock
  /** Tells the store how many jobs the worker can take now. Rejects if the store does not accept it. */
  announce(): Promise<void>
  /** Several announcements in a row have failed: the store refused them, or the subscription is missing. */
  onFailing(error: unknown): void
}

/**
 * | state      | timer fires | request() | reply, or failure | stop()  |
 * | ---------- | ----------- | --------- | ----------------- | ------- |
 * | announcing |             | requested | waiting           | stopped |
 * | waiting    | announcing  | requested | ignored           | stopped |
 * | requested  | announcing  |           | ignored           | stopped |
 * | stopped    |             |           | ignored           |         |
 *
 * The timer of waiting is shorter after a failure. The reply to an earlier announcement is ignored in every state.
 */
type AnnouncerState =
  | { readonly kind: 'waiting' | 'requested'; readonly timer: Timer }
  | { readonly kind: 'announcing' | 'stopped' }

const ANNOUNCER_TRANSITIONS: Transitions<AnnouncerState['kind']> = {
  waiting: ['announcing', 'requested', 'stopped'],
  requested: ['announcing', 'stopped'],
  announcing: ['waiting', 'requested', 'stopped'],
  stopped: [],
}

/** Announces the capacity of a worker to the store: at once, periodically, and whenever the store asks for it. */
export class CapacityAnnouncer {
  readonly #deps: AnnouncerDeps
  #state: AnnouncerState = { kind: 'announcing' }
  /** Time of the latest announcement by the clock, ms. */
  #announcedAt = Number.NEGATIVE_INFINITY
  /** Number of failed announcements in a row. */
  #failures = 0

  constructor(deps: AnnouncerDeps) {
    this.#deps = deps
    void this.#announce(this.#state)
  }

  #enter(state: AnnouncerState): void {
    const former = this.#state
    assertTransition('capacity announcer', ANNOUNCER_TRANSITIONS, former.kind, state.kind)
    if ('timer' in former) former.timer.cancel()
    this.#state = state
  }

  #enterAfter(kind: 'waiting' | 'requested', ms: number): void {
    this.#enter({ kind, timer: this.#deps.clock.after(ms, this.#onTimer, true) })
  }

  readonly #onTimer = (): void => {
    const announcing: AnnouncerState = { kind: 'announcing' }
    this.#enter(announcing)
    void this.#announce(announcing)
  }

  /** `announcing`: the state that this announcement was started in. */
  async #announce(announcing: AnnouncerState): Promise<void> {
    this.#announcedAt = this.#deps.clock.now()
    let nextIn = ANNOUNCE_INTERVAL * (0.9 + Math.random() / 5)
    try {
      await this.#deps.announce()
      this.#failures = 0
    } catch (error) {
      if (++this.#failures === FAILURES_BEFORE_WARNING) this.#deps.onFailing(error)
      nextIn = RETRY_AFTER * (1 + Math.random())
    }
    if (this.#state === announcing) this.#enterAfter('waiting', nextIn)
  }

  /** The store may not know the capacity any more: announces it soon. */
  request(): void {
    if (this.#state.kind === 'requested' || this.#state.kind === 'stopped') return
    // Random delay: the store may have asked all workers at once, and repeatedly.
    const pause = Math.max(0, this.#announcedAt + MIN_ANNOUNCE_PAUSE - this.#deps.clock.now())
    this.#enterAfter('requested', pause + Math.random() * 10)
  }

  stop(): void {
    if (this.#state.kind !== 'stopped') this.#enter({ kind: 'stopped' })
  }
}
