/** The part that long bodies may have. */
const LONG_PART = 3 / 4

/** Counts the bytes of bodies that a cache records at the moment, and says when there is no room for more. */
export class RecordedBytes {
  readonly #most: number
  #bytes = 0

  constructor(most: number) {
    this.#most = most
  }

  get bytes(): number {
    return this.#bytes
  }

  /** Whether there was room for so many more. Those of long bodies leave a quarter to the others: they may be read slowly. */
  take(bytes: number, long: boolean): boolean {
    if (this.#bytes + bytes > (long ? LONG_PART * this.#most : this.#most)) return false
    this.#bytes += bytes
    return true
  }

  give(bytes: number): void {
    this.#bytes -= bytes
  }
}
