interface Entry {
  id: string
  at: number
}

function before(a: Entry, b: Entry): boolean {
  return a.at < b.at || (a.at === b.at && a.id < b.id)
}

/** Ids, each with a moment, in the order of these; those of one moment in the order of their ids. */
export class Times {
  readonly #moments = new Map<string, number>()
  readonly #sorted: Entry[] = []

  get size(): number {
    return this.#sorted.length
  }

  at(id: string): number | undefined {
    return this.#moments.get(id)
  }

  set(id: string, at: number): void {
    this.delete(id)
    this.#moments.set(id, at)
    const entry = { id, at }
    this.#sorted.splice(this.#place(entry), 0, entry)
  }

  delete(id: string): void {
    const at = this.#moments.get(id)
    if (at === undefined) return
    this.#moments.delete(id)
    this.#sorted.splice(this.#place({ id, at }), 1)
  }

  clear(): void {
    this.#moments.clear()
    this.#sorted.length = 0
  }

  /** All ids, the earliest first. */
  ids(): string[] {
    return this.#sorted.map(({ id }) => id)
  }

  /** Ids whose moment has come, the earliest first. */
  until(now: number): string[] {
    return this.#sorted.slice(0, this.#place({ id: '\uffff', at: now })).map(({ id }) => id)
  }

  /** The first moment after now. */
  after(now: number): number | undefined {
    return this.#sorted[this.#place({ id: '\uffff', at: now })]?.at
  }

  /** How many stand before an entry. */
  #place(entry: Entry): number {
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
