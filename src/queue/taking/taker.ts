import { AbortedError, ClosedError, UnavailableError } from '../../errors.ts'
import { assertTransition, type Transitions } from '../../kernel/collections.ts'
import type { Clock, Deadlines } from '../../kernel/time.ts'
import { BaseWaiter } from '../../kernel/waiter.ts'

/** Limits of a call of `take`. Durations in ms. */
export interface TakerOptions {
  readonly command: string
  readonly lease: number
  readonly wait: number
  /** Has not aborted yet. */
  readonly signal: AbortSignal | undefined
}

/** Dependencies of a taker, and its events. All takers of a queue share them. */
export interface TakerDeps {
  readonly clock: Clock
  readonly deadlines: Deadlines
  /** How long a taker outlives its wait until its slot is withdrawn, ms. */
  readonly within: number
  /** Its wait has passed: its slot must be withdrawn. */
  onLeaving(taker: Taker): void
  /** Its slot was not withdrawn within `within` ms. Ends it, unless a delivery is being accepted for it: that ends it then. */
  onOverdue(taker: Taker): void
  /** It has ended: with a job or without. */
  onLeft(taker: Taker): void
}

/**
 * One call of `take`.
 *
 * | state | a job | no job | its wait passes | abort, close |
 * | --- | --- | --- | --- | --- |
 * | asking the store for a job that is ready | ended | waiting; ended, if its wait has passed | | ended |
 * | waiting for a delivery, with a slot | ended | | leaving | ended |
 * | leaving: its slot is being withdrawn, for `within` ms | ended | ended | | ended |
 * | ended | goes back | | | |
 */
type TakerState = 'asking' | 'waiting' | 'leaving' | 'ended'

const TAKER_TRANSITIONS: Transitions<TakerState> = {
  asking: ['waiting', 'ended'],
  waiting: ['leaving', 'ended'],
  leaving: ['ended'],
  ended: [],
}

export class Taker extends BaseWaiter {
  readonly command: string
  /** The lease of the job that it takes, ms. */
  readonly lease: number
  /** How many announcements were sent before it was leaving: the next one withdraws its slot. Written by its WaitingTakers. */
  leftAt = 0
  readonly #wait: number
  readonly #deps: TakerDeps
  #state: TakerState = 'asking'

  constructor({ command, lease, wait, signal }: TakerOptions, deps: TakerDeps) {
    // Without a wait, it lasts as long as the store may take to answer.
    const timeout = wait === 0 ? Number.POSITIVE_INFINITY : wait
    super({ key: command, timeout, signal }, deps.clock, deps.deadlines, false)
    this.command = command
    this.lease = lease
    this.#wait = wait
    this.#deps = deps
  }

  get state(): TakerState {
    return this.#state
  }

  /** Whether it may wait for a job. */
  get hasTime(): boolean {
    return this.#wait > 0 && this.#deps.clock.now() < this.deadline
  }

  #enter(state: TakerState): void {
    assertTransition('taker', TAKER_TRANSITIONS, this.#state, state)
    this.#state = state
  }

  /** It has a slot from now on. */
  wait(): void {
    this.#enter('waiting')
  }

  expire(): void {
    const { deadlines, within, onLeaving, onOverdue } = this.#deps
    if (this.#state === 'leaving') return onOverdue(this)
    // It ends with the reply that it waits for.
    if (this.#state !== 'waiting') return
    this.#enter('leaving')
    deadlines.add(this, within)
    onLeaving(this)
  }

  /** No job is ready for it. */
  endWithoutJob(): void {
    this.resolve(undefined, 'none')
  }

  /** The store has not said in time whether a job is ready. */
  failUnanswered(cause: unknown): void {
    const message = 'It is not known whether a job is ready: the store does not answer'
    this.reject(new UnavailableError(message, { key: this.command, cause }))
  }

  close(): void {
    this.reject(new ClosedError('The queue was closed', { key: this.command }))
  }

  protected onAborted(cause: unknown): void {
    this.reject(new AbortedError('The signal aborted while the taker waited', { key: this.command, cause }))
  }

  protected onEnded(): void {
    const { deadlines, within, onLeft } = this.#deps
    this.#enter('ended')
    deadlines.delete(this, within)
    onLeft(this)
  }
}
