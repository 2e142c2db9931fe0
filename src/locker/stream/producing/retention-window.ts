/** The window moves by this part of its size, so that little has to be remembered of what is in it. */
const STEP = 1 / 64

/** Counted for each chunk beside its bytes: what it costs to keep it. */
const OVERHEAD = 16

/** Which of the newest chunks fit into so many bytes. */
export class Window {
  readonly #maxBytes: number
  /** Where the window may begin, and the bytes before that: one for each step of it. */
  readonly #steps: { number: number; before: number }[] = [{ number: 0, before: 0 }]
  #length = 0
  #bytes = 0

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes
  }

  /** Adds a chunk at the end. */
  add(bytes: number): void {
    const last = this.#steps.at(-1)
    if (!last || this.#bytes - last.before >= this.#maxBytes * STEP)
      this.#steps.push({ number: this.#length, before: this.#bytes })
    this.#length++
    this.#bytes += bytes + OVERHEAD
  }

  /** Number of the first chunk that fits, so that at least the last one does. 0 as long as all do. */
  get first(): number {
    while (this.#steps.length > 1 && this.#bytes - (this.#steps[0]?.before ?? 0) > this.#maxBytes)
      this.#steps.shift()
    return this.#steps[0]?.number ?? 0
  }
}
