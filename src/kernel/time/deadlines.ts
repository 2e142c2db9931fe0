import { TransientSet } from '../collections/churn.ts'
import type { Clock, Timer } from './clock.ts'

/** Something that must end in time. */
export interface Pending {
  /** Of the clock, ms. Set by {@link Deadlines.add}. */
  deadline: number
  /** Called when it has not ended in time. */
  expire(): void
}

/** Durations above this (ms) are grouped in steps of {@link LANE_STEP_MS}, so that deadlines of any length share few timers. */
const EXACT_UP_TO_MS = 1000
const LANE_STEP_MS = 25

/** A timer that fires so much too late (ms) tells that the event loop stood still. */
const EVENT_LOOP_STALL_MS = 20

/** Pending things of about the same duration: what was added first ends first, and one timer watches over all. */
class Lane {
  readonly #clock: Clock
  /** Called when nothing is pending any more. */
  readonly #onEnd: () => void
  readonly #pending = new TransientSet<Pending>()
  #timer: Timer | undefined

  constructor(clock: Clock, onEnd: () => void) {
    this.#clock = clock
    this.#onEnd = onEnd
  }

  add(pending: Pending, within: number): void {
    this.#pending.add(pending)
    this.#timer ??= this.#clock.after(within, this.#check, true)
  }

  delete(pending: Pending): void {
    if (this.#pending.delete(pending) && this.#pending.size === 0) this.#end()
  }

  #end(): void {
    this.#timer?.cancel()
    this.#timer = undefined
    this.#onEnd()
  }

  readonly #check = (): void => {
    const now = this.#clock.now()
    const [first] = this.#pending
    // If the event loop stood still, answers may lie in the socket, unread: they are read before the next timer fires.
    const late = first !== undefined && now - first.deadline > EVENT_LOOP_STALL_MS
    if (late) this.#timer = this.#clock.after(0, () => this.#expire(now), true)
    else this.#expire(now)
  }

  #expire(now: number): void {
    try {
      for (const pending of this.#pending) {
        if (pending.deadline > now) break
        this.#pending.delete(pending)
        pending.expire()
      }
    } finally {
      // Also when one of them throws: the others have deadlines, too.
      const [next] = this.#pending
      if (next) this.#timer = this.#clock.after(next.deadline - now, this.#check, true)
      else this.#end()
    }
  }
}

/** Watches over things that mostly end in time: a timer for each would cost more than they do. */
export class Deadlines {
  readonly #clock: Clock
  readonly #lanes = new Map<number, Lane>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** Calls `pending.expire` after `within` ms, unless it is deleted before; up to 25 ms later where that is long. */
  add(pending: Pending, within: number): void {
    pending.deadline = this.#clock.now() + within
    const duration = laneOf(within)
    const known = this.#lanes.get(duration)
    if (known) return known.add(pending, within)
    const lane: Lane = new Lane(this.#clock, () => {
      if (this.#lanes.get(duration) === lane) this.#lanes.delete(duration)
    })
    this.#lanes.set(duration, lane)
    lane.add(pending, within)
  }

  /** It has ended in time. `within`: as it was added. */
  delete(pending: Pending, within: number): void {
    this.#lanes.get(laneOf(within))?.delete(pending)
  }
}

/** The name of the lane for `within` ms: of long durations, the same for all that differ by less than a step. */
function laneOf(within: number): number {
  return within <= EXACT_UP_TO_MS ? within : Math.ceil(within / LANE_STEP_MS) * LANE_STEP_MS
}
