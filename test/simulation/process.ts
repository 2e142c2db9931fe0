import type { Clock, Timer } from '../../src/kernel/time.ts'
import type { Scheduler } from './scheduler.ts'

/** A time span in which a process stood still. */
interface Pause {
  from: number
  until: number
}

/**
 * The time of a process. While it stands still, its events wait until it goes on. After its death none happen.
 */
export class SimProcess {
  readonly id: number
  readonly clock: Clock
  /** When it died. */
  diedAt: number = Number.POSITIVE_INFINITY
  readonly pauses: Pause[] = []
  /** Pending timers. */
  timers = 0
  readonly #scheduler: Scheduler
  /** Events that came due while it stood still. */
  #backlog: (() => void)[] = []
  #paused = false
  /** Sleeps that can be woken. */
  readonly #sleepers = new Set<() => void>()
  /** Longest sleep, so that the run ends soon after the faults have stopped. */
  #longest = Number.POSITIVE_INFINITY

  constructor(id: number, scheduler: Scheduler) {
    this.id = id
    this.#scheduler = scheduler
    this.clock = {
      now: () => scheduler.now,
      after: (ms, run) => this.#timer(ms, run),
    }
  }

  get dead(): boolean {
    return this.diedAt <= this.#scheduler.now
  }

  get paused(): boolean {
    return this.#paused
  }

  /** Whether it is alive and does not stand still. */
  get awake(): boolean {
    return !this.dead && !this.#paused
  }

  /** Whether it stood still within that span. */
  pausedWithin(from: number, until: number): boolean {
    return this.pauses.some((pause) => pause.from <= until && pause.until >= from)
  }

  /** When an event that was due at `due` happened at the earliest. */
  actsAt(due: number): number {
    let at = due
    for (const pause of this.pauses) if (pause.from <= at && at < pause.until) at = pause.until
    return at
  }

  #timer(ms: number, run: () => void): Timer {
    let set = true
    this.timers++
    const end = () => {
      if (!set) return false
      set = false
      this.timers--
      return true
    }
    const entry =
      ms > 2 ** 31
        ? undefined
        : this.at(this.#scheduler.now + Math.max(0, ms), () => {
            if (end()) run()
          })
    return {
      cancel: () => {
        if (end() && entry) entry.run = undefined
      },
    }
  }

  /** Runs an event in this process at a time, or as soon as it goes on after that. */
  at(time: number, run: () => void): { run: (() => void) | undefined } {
    return this.#scheduler.at(time, () => this.#do(run))
  }

  #do(run: () => void): void {
    if (this.dead) return
    if (this.#paused) this.#backlog.push(run)
    else run()
  }

  pause(): void {
    if (!this.awake) return
    this.#paused = true
    this.pauses.push({ from: this.#scheduler.now, until: Number.POSITIVE_INFINITY })
  }

  /** `order` sorts the events that came due meanwhile: timers and messages come from different queues. */
  resume(order: (backlog: (() => void)[]) => (() => void)[]): void {
    if (!this.#paused || this.dead) return
    this.#paused = false
    const last = this.pauses.at(-1)
    if (last) last.until = this.#scheduler.now
    const backlog = order(this.#backlog)
    this.#backlog = []
    for (const run of backlog) this.at(this.#scheduler.now, run)
  }

  kill(): void {
    if (!this.dead) this.diedAt = this.#scheduler.now
  }

  /** Resolves after `ms`, or when it is woken. */
  sleep(ms: number): Promise<void> {
    return new Promise((resolve) => {
      let slept = false
      const wake = () => {
        if (slept) return
        slept = true
        this.#sleepers.delete(wake)
        resolve()
      }
      this.#sleepers.add(wake)
      const until = Math.min(ms, this.#longest)
      if (until !== Number.POSITIVE_INFINITY) this.at(this.#scheduler.now + until, wake)
    })
  }

  /** Wakes all sleeps, and limits later ones to `longest`. */
  wake(longest: number): void {
    this.#longest = longest
    this.at(this.#scheduler.now, () => {
      for (const wake of [...this.#sleepers]) wake()
    })
  }
}
