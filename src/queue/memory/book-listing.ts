import type { Retention } from '../store.ts'
import { Times } from './book-times.ts'

/** Finished jobs that are kept for being listed, in the order in which they will be forgotten. */
export class Listing {
  readonly finished: Times = new Times()
  /** Until when it is kept: for as long as its latest job is. */
  until = 0

  ids(now: number): string[] {
    if (this.until <= now) return []
    const gone = new Set(this.finished.until(now))
    return this.finished.ids().filter((id) => !gone.has(id))
  }

  /** Adds a job; returns those for which there is no room any more. */
  add(id: string, { count, age }: Retention, now: number): string[] {
    this.sweep(now)
    this.finished.set(id, now + age)
    for (const old of this.finished.until(now)) this.finished.delete(old)
    const excess = this.finished.ids().slice(0, Math.max(0, this.finished.size - count))
    for (const old of excess) this.finished.delete(old)
    const last = this.finished.ids().at(-1)
    this.until = (last === undefined ? undefined : this.finished.at(last)) ?? 0
    return excess
  }

  sweep(now: number): void {
    if (this.until <= now) this.finished.clear()
  }
}
