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
 * | state      | timer fires | request() | announceNow() | reply      | failure | stop()  |
 * | ---------- | ----------- | --------- | ------------- | ---------- | ------- | ------- |
 * | announcing |             | requested | outdated      | waiting    | waiting | stopped |
 * | outdated   |             |           |               | announcing | waiting | stopped |
 * | waiting    | announcing  | requested | announcing    | ignored    | ignored | stopped |
 * | requested  | announcing  |           | announcing    | ignored    | ignored | stopped |
 * | stopped    |             |           |               | ignored    | ignored |         |
 *
 * The timer of waiting is shorter after a failure. The reply to an earlier announcement is ignored in every state.
 */
type AnnouncerState =
  | { readonly kind: 'waiting' | 'requested'; readonly timer: Timer }
  /** 'outdated': an announcement is under way, and the capacity has changed since. */
  | { readonly kind: 'announcing' | 'outdated' | 'stopped' }

const ANNOUNCER_TRANSITIONS: Transitions<AnnouncerState['kind']> = {
  waiting: ['announcing', 'requested', 'stopped'],
  requested: ['announcing', 'stopped'],
  announcing: ['outdated', 'waiting', 'requested', 'stopped'],
  outdated: ['announcing', 'waiting', 'stopped'],
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
  /** Number of announcements so far: the reply to the latest alone counts. */
  #announcements = 0

  constructor(deps: AnnouncerDeps) {
    this.#deps = deps
    void this.#announce()
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
    this.#enter({ kind: 'announcing' })
    void this.#announce()
  }

  async #announce(): Promise<void> {
    const announcement = ++this.#announcements
    this.#announcedAt = this.#deps.clock.now()
    let nextIn = ANNOUNCE_INTERVAL * (0.9 + Math.random() / 5)
    try {
      await this.#deps.announce()
      this.#failures = 0
    } catch (error) {
      if (++this.#failures === FAILURES_BEFORE_WARNING) this.#deps.onFailing(error)
      nextIn = RETRY_AFTER * (1 + Math.random())
    }
    if (announcement !== this.#announcements) return
    const { kind } = this.#state
    if (kind === 'outdated' && this.#failures === 0) this.#onTimer()
    else if (kind === 'announcing' || kind === 'outdated') this.#enterAfter('waiting', nextIn)
  }

  /** The store may not know the capacity any more: announces it soon. */
  request(): void {
    const { kind } = this.#state
    if (kind === 'requested' || kind === 'outdated' || kind === 'stopped') return
    // Random delay: the store may have asked all workers at once, and repeatedly.
    const pause = Math.max(0, this.#announcedAt + MIN_ANNOUNCE_PAUSE - this.#deps.clock.now())
    this.#enterAfter('requested', pause + Math.random() * 10)
  }

  /** The capacity has changed: announces it now, or after the reply that is awaited. */
  announceNow(): void {
    if (this.#state.kind === 'announcing') this.#enter({ kind: 'outdated' })
    else if ('timer' in this.#state) this.#onTimer()
  }

  stop(): void {
    if (this.#state.kind !== 'stopped') this.#enter({ kind: 'stopped' })
  }
}
