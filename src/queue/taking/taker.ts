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

/** Dependencies of a taker, and its events. All takers of a command share them. */
export interface TakerDeps {
  readonly clock: Clock
  readonly deadlines: Deadlines
  /** How long a taker outlives its wait until it is known whether a job is ready for it, ms. */
  readonly within: number
  /** Its wait has passed, or it has outlived it for `within` ms. Ends the taker if no job is on its way to it. */
  onDue(taker: Taker): void
  /** It has ended: with a job or without. */
  onLeft(taker: Taker): void
}

/**
 * One call of `take` that waits for a job.
 *
 * | state | its time passes | a job, an error, or none is ready |
 * | --- | --- | --- |
 * | waiting, for `wait` ms | due | ended, but not because none is ready |
 * | due, for `within` ms: it ends as soon as the store has said that no job is ready for it | overdue | ended |
 * | overdue | | ended |
 * | ended | | |
 *
 * With `wait: 0` it is due from the beginning.
 */
type TakerState = 'waiting' | 'due' | 'overdue' | 'ended'

const TAKER_TRANSITIONS: Transitions<TakerState> = {
  waiting: ['due', 'ended'],
  due: ['overdue', 'ended'],
  overdue: ['ended'],
  ended: [],
}

export class Taker extends BaseWaiter {
  readonly command: string
  /** The lease of the job that it takes, ms. */
  readonly lease: number
  /** The announcements that were sent after so many count it. Written by its TakingWorker. */
  joinedAt = 0
  /** Whether the store has accepted an announcement that counts it. Written by its TakingWorker. */
  announced = false
  readonly #deps: TakerDeps
  #state: TakerState

  constructor({ command, lease, wait, signal }: TakerOptions, deps: TakerDeps) {
    super(
      { key: command, timeout: wait === 0 ? deps.within : wait, signal },
      deps.clock,
      deps.deadlines,
      false,
    )
    this.command = command
    this.lease = lease
    this.#deps = deps
    this.#state = wait === 0 ? 'due' : 'waiting'
  }

  get state(): TakerState {
    return this.#state
  }

  #enter(state: TakerState): void {
    assertTransition('taker', TAKER_TRANSITIONS, this.#state, state)
    this.#state = state
  }

  expire(): void {
    const { deadlines, within, onDue } = this.#deps
    if (this.#state === 'waiting') {
      this.#enter('due')
      deadlines.add(this, within)
    } else if (this.#state === 'due') this.#enter('overdue')
    onDue(this)
  }

  /** No job is ready for it. */
  endWithoutJob(): void {
    this.resolve(undefined, 'none')
  }

  /** The store has not said in time whether a job is ready. */
  failUnannounced(cause: unknown): void {
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
