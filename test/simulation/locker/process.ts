import type { Clock, Timer } from '../../../src/kernel/time.ts'
import type { Scheduler } from './scheduler.ts'

/** From when to when a process stood still. */
interface Pause {
  from: number
  until: number
}

/**
 * A process, as far as time is concerned: what is to happen in it happens neither while it stands still (then all of it
 * when it goes on) nor after its death.
 */
export class SimProcess {
  readonly id: number
  readonly clock: Clock
  /** When it died. */
  diedAt: number = Number.POSITIVE_INFINITY
  readonly pauses: Pause[] = []
  /** Timers that are set. */
  timers = 0
  readonly #scheduler: Scheduler
  /** What came due while it stood still. */
  #backlog: (() => void)[] = []
  #paused = false
  /** Everything that sleeps in it and may be woken. */
  readonly #sleepers = new Set<() => void>()
  /** Longest sleep: everything ends soon when the faults have stopped. */
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

  /** Whether it acts at present. */
  get awake(): boolean {
    return !this.dead && !this.#paused
  }

  /** Whether it stood still at some time of that span. */
  pausedWithin(from: number, until: number): boolean {
    return this.pauses.some((pause) => pause.from <= until && pause.until >= from)
  }

  /** When it did, at the earliest, what was due at `due`. */
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

  /** Does something in this process at that time, or as soon after as it is awake. */
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

  /** `order` sorts what came due meanwhile: timers and messages come from different queues. */
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

  /** Whoever sleeps wakes up, and nobody sleeps for longer than `longest` any more. */
  wake(longest: number): void {
    this.#longest = longest
    this.at(this.#scheduler.now, () => {
      for (const wake of [...this.#sleepers]) wake()
    })
  }
}
