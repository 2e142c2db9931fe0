import type { JobRecord, Rank } from './job-record.ts'

interface Ranked {
  id: string
  rank: Rank
}

/** Stands for the ranked job that comes first when this entry is reached. */
const PRIORITY_MARKER = Symbol('priority')

/** The order of ranked jobs. */
function before(a: Ranked, b: Ranked): number {
  return (
    b.rank.priority - a.rank.priority ||
    a.rank.micros - b.rank.micros ||
    a.rank.batchIndex - b.rank.batchIndex ||
    (a.id < b.id ? -1 : 1)
  )
}

/**
 * The ready jobs of a command. Jobs with a priority come before the others; the list holds one marker for each of them,
 * and a sorted list beside it says which job the next marker stands for. Requeued jobs come first of all.
 */
export class ReadyList {
  readonly #entries: (string | typeof PRIORITY_MARKER)[] = []
  readonly #ranked: Ranked[] = []

  get length(): number {
    return this.#entries.length
  }

  /** Adds a job: behind all, or, with `lifo`, before all that have no priority. */
  push({ id, rank }: Pick<JobRecord, 'id' | 'rank'>, lifo: boolean): void {
    if (rank) {
      const ranked = { id, rank }
      this.#ranked.splice(this.#rankedIndexOf(ranked), 0, ranked)
      this.#entries.unshift(PRIORITY_MARKER)
    } else if (lifo) {
      this.#entries.splice(this.#entries.lastIndexOf(PRIORITY_MARKER) + 1, 0, id)
    } else {
      this.#entries.push(id)
    }
  }

  /** How many ranked jobs come before this one, by binary search. */
  #rankedIndexOf(ranked: Ranked): number {
    let from = 0
    let to = this.#ranked.length
    while (from < to) {
      const middle = (from + to) >> 1
      if (before(this.#ranked[middle] as Ranked, ranked) < 0) from = middle + 1
      else to = middle
    }
    return from
  }

  /** Adds a job before all others. */
  requeueFirst(id: string): void {
    this.#entries.unshift(id)
  }

  /** Takes the next job. */
  shift(): string | undefined {
    const entry = this.#entries.shift()
    return entry === PRIORITY_MARKER ? this.#ranked.shift()?.id : entry
  }

  remove(id: string): void {
    const at = this.#entries.indexOf(id)
    if (at >= 0) this.#entries.splice(at, 1)
    const rank = this.#ranked.findIndex((one) => one.id === id)
    if (rank < 0) return
    this.#ranked.splice(rank, 1)
    this.#entries.splice(this.#entries.indexOf(PRIORITY_MARKER), 1)
  }

  /** All ids, in the order in which they will be taken. */
  ids(): string[] {
    const ranked = this.#ranked.map(({ id }) => id)
    return this.#entries.map((entry) => (entry === PRIORITY_MARKER ? (ranked.shift() ?? '') : entry))
  }
}
