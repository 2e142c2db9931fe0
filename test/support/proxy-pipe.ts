interface Parcel {
  readonly due: number
  readonly deliver: () => void
}

/** One direction of a connection: hands its parcels over in order, each not before its time. */
export class Pipe {
  readonly #isStalled: () => boolean
  readonly #parcels: Parcel[] = []
  #lastDue = 0
  #timer: NodeJS.Timeout | undefined

  constructor(isStalled: () => boolean) {
    this.#isStalled = isStalled
  }

  /** Delivers after the delay, but not before what was put in earlier; what is behind it waits for `ms` more. */
  put(delay: number, deliver: () => void, ms = 0): void {
    this.#lastDue = Math.max(this.#lastDue, performance.now() + delay) + ms
    this.#parcels.push({ due: this.#lastDue, deliver })
    this.flush()
  }

  /** Delivers what is due; call it when a stall ends. */
  flush(): void {
    clearTimeout(this.#timer)
    for (let next = this.#parcels[0]; next && !this.#isStalled(); next = this.#parcels[0]) {
      const wait = next.due - performance.now()
      if (wait > 0) {
        this.#timer = setTimeout(() => this.flush(), wait)
        return
      }
      this.#parcels.shift()
      next.deliver()
    }
  }

  clear(): void {
    clearTimeout(this.#timer)
    this.#parcels.length = 0
  }
}
