import type { JobRecord, Rank } from './job-record.ts'

interface Ranked {
  id: string
  rank: Rank
}

/** A seat in line for whichever ranked job comes first when it is reached. */
const SEAT = Symbol('seat')

/** The order of ranked jobs. */
function before(a: Ranked, b: Ranked): number {
  return (
    b.rank.priority - a.rank.priority ||
    a.rank.micros - b.rank.micros ||
    a.rank.turn - b.rank.turn ||
    (a.id < b.id ? -1 : 1)
  )
}

/**
 * Jobs of a command that wait. Those with a priority stand in front, and have seats instead of places of their own;
 * what comes back from a worker goes to the very front.
 */
export class WaitingLine {
  readonly #places: (string | typeof SEAT)[] = []
  readonly #ranked: Ranked[] = []

  get length(): number {
    return this.#places.length
  }

  /** Puts a job where it belongs. */
  add({ id, rank }: JobRecord, lifo: boolean): void {
    if (rank) {
      this.#ranked.push({ id, rank })
      this.#ranked.sort(before)
      this.#places.unshift(SEAT)
    } else if (lifo) {
      this.#places.splice(this.#places.lastIndexOf(SEAT) + 1, 0, id)
    } else {
      this.#places.push(id)
    }
  }

  /** Puts a job before all others. */
  putFirst(id: string): void {
    this.#places.unshift(id)
  }

  /** Takes the next one. */
  shift(): string | undefined {
    const place = this.#places.shift()
    return place === SEAT ? this.#ranked.shift()?.id : place
  }

  remove(id: string): void {
    const at = this.#places.indexOf(id)
    if (at >= 0) this.#places.splice(at, 1)
    const rank = this.#ranked.findIndex((one) => one.id === id)
    if (rank < 0) return
    this.#ranked.splice(rank, 1)
    this.#places.splice(this.#places.indexOf(SEAT), 1)
  }

  /** Ids in the order in which they will be taken. */
  ids(): string[] {
    const ranked = this.#ranked.map(({ id }) => id)
    return this.#places.map((place) => (place === SEAT ? (ranked.shift() ?? '') : place))
  }
}
