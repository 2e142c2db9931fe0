/** A future event. */
export interface Scheduled {
  readonly at: number
  readonly order: number
  /** Undefined when it was cancelled. */
  run: (() => void) | undefined
}

/** The original, before it is replaced for the run. */
const turn = setImmediate

/** Resolves when all promises that can settle without a timer have settled. */
function settled(): Promise<void> {
  return new Promise((resolve) => {
    turn(resolve)
  })
}

function before(one: Scheduled, other: Scheduled): boolean {
  return one.at < other.at || (one.at === other.at && one.order < other.order)
}

/** Simulated time. Events happen one after the other, each with everything that follows from it. */
export class Scheduler {
  /** ms. */
  now = 0
  /** Number of events so far. */
  steps = 0
  #order = 0
  /** A binary heap, the next event first. */
  readonly #heap: Scheduled[] = []

  at(time: number, run: () => void): Scheduled {
    if (Number.isNaN(time)) throw new RangeError('Expected `time` to be a number')
    const entry: Scheduled = { at: Math.max(time, this.now), order: this.#order++, run }
    this.#push(entry)
    return entry
  }

  after(ms: number, run: () => void): Scheduled {
    return this.at(this.now + ms, run)
  }

  /** Advances to `time`, or until `enough`. */
  async runUntil(time: number, enough: () => boolean = () => false): Promise<void> {
    await settled()
    for (let next = this.#heap[0]; next && next.at <= time && !enough(); next = this.#heap[0]) {
      this.#pop()
      const { run } = next
      if (!run) continue
      this.now = next.at
      this.steps++
      next.run = undefined
      run()
      await settled()
    }
    if (!enough()) this.now = Math.max(this.now, time)
  }

  #push(entry: Scheduled): void {
    const heap = this.#heap
    let at = heap.push(entry) - 1
    while (at > 0) {
      const parent = (at - 1) >> 1
      const above = heap[parent] as Scheduled
      if (before(above, entry)) break
      heap[at] = above
      at = parent
    }
    heap[at] = entry
  }

  #pop(): void {
    const heap = this.#heap
    const last = heap.pop() as Scheduled
    if (heap.length === 0) return
    let at = 0
    for (;;) {
      let child = 2 * at + 1
      if (child >= heap.length) break
      const right = heap[child + 1]
      if (right && before(right, heap[child] as Scheduled)) child++
      if (before(last, heap[child] as Scheduled)) break
      heap[at] = heap[child] as Scheduled
      at = child
    }
    heap[at] = last
  }
}
