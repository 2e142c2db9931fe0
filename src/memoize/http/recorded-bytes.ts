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

  /** Whether there was room for so many more. */
  take(bytes: number): boolean {
    if (this.#bytes + bytes > this.#most) return false
    this.#bytes += bytes
    return true
  }

  give(bytes: number): void {
    this.#bytes -= bytes
  }
}
