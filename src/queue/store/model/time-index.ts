import type { Retention } from '../store.ts'

interface Entry {
  id: string
  at: number
}

function before(a: Entry, b: Entry): boolean {
  return a.at < b.at || (a.at === b.at && a.id < b.id)
}

/** Ids sorted by a time each, ms since the epoch; ids of the same time are sorted by id. */
export class TimeIndex {
  readonly #times = new Map<string, number>()
  readonly #sorted: Entry[] = []

  get size(): number {
    return this.#sorted.length
  }

  timeOf(id: string): number | undefined {
    return this.#times.get(id)
  }

  set(id: string, at: number): void {
    this.delete(id)
    this.#times.set(id, at)
    const entry = { id, at }
    this.#sorted.splice(this.#indexOf(entry), 0, entry)
  }

  delete(id: string): void {
    const at = this.#times.get(id)
    if (at === undefined) return
    this.#times.delete(id)
    this.#sorted.splice(this.#indexOf({ id, at }), 1)
  }

  clear(): void {
    this.#times.clear()
    this.#sorted.length = 0
  }

  /** All ids, earliest first. */
  ids(): string[] {
    return this.#sorted.map(({ id }) => id)
  }

  /** Ids whose time is not after `now`, earliest first. */
  dueBy(now: number): string[] {
    return this.#sorted.slice(0, this.#indexOf({ id: '\uffff', at: now })).map(({ id }) => id)
  }

  /** The first time after `now`. */
  nextAfter(now: number): number | undefined {
    return this.#sorted[this.#indexOf({ id: '\uffff', at: now })]?.at
  }

  /** Index of an entry: how many entries come before it. */
  #indexOf(entry: Entry): number {
    let from = 0
    let to = this.#sorted.length
    while (from < to) {
      const middle = (from + to) >> 1
      if (before(this.#sorted[middle] as Entry, entry)) from = middle + 1
      else to = middle
    }
    return from
  }
}

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
