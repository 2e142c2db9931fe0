import type { Retention } from '../store.ts'
import { Times } from './due-times.ts'

/** Finished jobs that are kept for being listed, in the order in which they will be forgotten. */
export class Listing {
  readonly finished: Times = new Times()
  /** Until when it is kept: for as long as its latest job is. */
  until = 0

  /** What is forgotten by now is dropped: it is not there again when the clock was set back. */
  ids(now: number): string[] {
    this.#drop(now)
    return this.finished.ids()
  }

  /** Adds a job; returns those for which there is no room any more. */
  add(id: string, { count, age }: Retention, now: number): string[] {
    this.#drop(now)
    this.finished.set(id, now + age)
    const excess = this.finished.ids().slice(0, Math.max(0, this.finished.size - count))
    for (const old of excess) this.finished.delete(old)
    const last = this.finished.ids().at(-1)
    this.until = (last === undefined ? undefined : this.finished.at(last)) ?? 0
    return excess
  }

  #drop(now: number): void {
    for (const old of this.finished.until(now)) this.finished.delete(old)
  }

  sweep(now: number): void {
    if (this.until <= now) this.finished.clear()
  }
}
