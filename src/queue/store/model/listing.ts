import type { Retention } from '../store.ts'
import { TimeIndex } from './due-times.ts'

/** Finished jobs that are kept for being listed, in the order in which they expire. */
export class FinishedList {
  readonly expiries: TimeIndex = new TimeIndex()
  /** When the list expires: with its latest job. */
  until = 0

  /** Expired ids are dropped, so that they do not return when the clock is set back. */
  ids(now: number): string[] {
    this.#drop(now)
    return this.expiries.ids()
  }

  /** Adds a job. Returns those for which there is no room any more. */
  add(id: string, { count, age }: Retention, now: number): string[] {
    this.#drop(now)
    this.expiries.set(id, now + age)
    const excess = this.expiries.ids().slice(0, Math.max(0, this.expiries.size - count))
    for (const old of excess) this.expiries.delete(old)
    const last = this.expiries.ids().at(-1)
    this.until = (last === undefined ? undefined : this.expiries.timeOf(last)) ?? 0
    return excess
  }

  #drop(now: number): void {
    for (const old of this.expiries.dueBy(now)) this.expiries.delete(old)
  }

  sweep(now: number): void {
    if (this.until <= now) this.expiries.clear()
  }
}
