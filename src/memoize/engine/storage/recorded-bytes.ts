/** The part of the limit that long bodies may take together. */
const LONG_BODY_SHARE = 3 / 4

/** Bounds the bytes of the bodies that a cache records at once. */
export class RecordingBudget {
  readonly #limit: number
  #bytes = 0

  constructor(limit: number) {
    this.#limit = limit
  }

  get bytes(): number {
    return this.#bytes
  }

  /** Counts so many more bytes, if there is room. Long bodies, whose readers may be slow, leave a quarter to the others. */
  tryReserve(bytes: number, long: boolean): boolean {
    if (this.#bytes + bytes > (long ? LONG_BODY_SHARE * this.#limit : this.#limit)) return false
    this.#bytes += bytes
    return true
  }

  release(bytes: number): void {
    this.#bytes -= bytes
  }
}
