/** Granularity of the window, as a part of its size: fewer steps have to be remembered than chunks. */
const STEP = 1 / 64

/** Bytes that a chunk costs beside its own. */
const CHUNK_OVERHEAD = 16

/** Computes which of the newest chunks fit into `maxBytes`. */
export class RetentionWindow {
  readonly #maxBytes: number
  /** Numbers at which the window may begin, with the bytes of all chunks before each. */
  readonly #steps: { number: number; bytesBefore: number }[] = [{ number: 0, bytesBefore: 0 }]
  #length = 0
  #bytes = 0

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes
  }

  /** Adds a chunk of this size at the end. */
  add(bytes: number): void {
    const last = this.#steps.at(-1)
    if (!last || this.#bytes - last.bytesBefore >= this.#maxBytes * STEP)
      this.#steps.push({ number: this.#length, bytesBefore: this.#bytes })
    this.#length++
    this.#bytes += bytes + CHUNK_OVERHEAD
  }

  /** Number of the first chunk in the window; 0 while all chunks fit. The window always holds the last step. */
  get first(): number {
    while (this.#steps.length > 1 && this.#bytes - (this.#steps[0]?.bytesBefore ?? 0) > this.#maxBytes)
      this.#steps.shift()
    return this.#steps[0]?.number ?? 0
  }
}
