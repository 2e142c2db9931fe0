import { TransientSet } from '../collections/churn.ts'
import type { Clock, Timer } from './clock.ts'

/** An operation with a deadline. */
export interface Pending {
  /** Time of the clock, ms. Written by {@link Deadlines.add}. */
  deadline: number
  /** Called once the deadline has passed. */
  expire(): void
}

/** Durations above this are rounded up to steps of {@link LANE_STEP_MS}, so that any number of them share few timers. */
const EXACT_UP_TO_MS = 1000
const LANE_STEP_MS = 25

/** A timer that fires this much too late shows that the event loop was blocked. */
const EVENT_LOOP_STALL_MS = 20

/** Operations of about the same duration. They expire in the order in which they were added, so one timer serves all. */
class Lane {
  readonly #clock: Clock
  /** Called when the lane is empty. */
  readonly #onEnd: () => void
  readonly #pending = new TransientSet<Pending>()
  #timer: Timer | undefined

  constructor(clock: Clock, onEnd: () => void) {
    this.#clock = clock
    this.#onEnd = onEnd
  }

  add(pending: Pending, timeout: number): void {
    this.#pending.add(pending)
    this.#timer ??= this.#clock.after(timeout, this.#check, true)
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
    // After a blocked event loop, replies may lie unread in the socket. They are read before the next timer fires.
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
      // Even if `expire` throws: the other operations keep their deadlines.
      const [next] = this.#pending
      if (next) this.#timer = this.#clock.after(next.deadline - now, this.#check, true)
      else this.#end()
    }
  }
}

/** Deadlines of operations that mostly end in time. All operations of one duration share a timer. */
export class Deadlines {
  readonly #clock: Clock
  readonly #lanes = new Map<number, Lane>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** Calls `pending.expire` after `timeout` ms unless it is deleted before; up to 25 ms later for long timeouts. */
  add(pending: Pending, timeout: number): void {
    pending.deadline = this.#clock.now() + timeout
    const duration = laneOf(timeout)
    const known = this.#lanes.get(duration)
    if (known) return known.add(pending, timeout)
    const lane: Lane = new Lane(this.#clock, () => {
      if (this.#lanes.get(duration) === lane) this.#lanes.delete(duration)
    })
    this.#lanes.set(duration, lane)
    lane.add(pending, timeout)
  }

  /** Removes an operation that has ended in time. `timeout` must be the one that it was added with. */
  delete(pending: Pending, timeout: number): void {
    this.#lanes.get(laneOf(timeout))?.delete(pending)
  }
}

/** The duration that names the lane of a timeout, ms. */
function laneOf(timeout: number): number {
  return timeout <= EXACT_UP_TO_MS ? timeout : Math.ceil(timeout / LANE_STEP_MS) * LANE_STEP_MS
}
