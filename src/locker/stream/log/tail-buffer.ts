/** Most bytes and chunks of one log that a process buffers for its readers. */
const MAX_BYTES = 256 * 1024
const MAX_CHUNKS = 1024

/** The newest chunks of a log, without a gap. Its size is bounded, whatever the position of the slowest reader. */
export class TailBuffer {
  /** Number of the first chunk, and of the one after the last. */
  #first = 0
  #end = 0
  #chunks: Buffer[] = []
  #bytes = 0

  /** The chunk of this number, if it is buffered. */
  chunkAt(number: number): Buffer | undefined {
    return this.#chunks[number - this.#first]
  }

  /** Adds chunks from number `from` on. Ignores chunks that it has. A gap drops what came before it. */
  add(from: number, chunks: readonly Buffer[]): void {
    const end = from + chunks.length
    if (end <= this.#end) return
    if (from > this.#end) this.#resetTo(from)
    for (let number = this.#end; number < end; number++) {
      const chunk = chunks[number - from] as Buffer
      this.#chunks.push(chunk)
      this.#bytes += chunk.length
    }
    this.#end = end
    // Trims half of it at a time: slicing for every chunk would cost the square.
    if (this.#bytes > 2 * MAX_BYTES || this.#chunks.length > 2 * MAX_CHUNKS) this.#trim()
  }

  #resetTo(from: number): void {
    this.#first = from
    this.#end = from
    this.#chunks = []
    this.#bytes = 0
  }

  #trim(): void {
    let trimmed = 0
    while (this.#bytes > MAX_BYTES || this.#chunks.length - trimmed > MAX_CHUNKS)
      this.#bytes -= this.#chunks[trimmed++]?.length ?? 0
    this.#chunks = this.#chunks.slice(trimmed)
    this.#first += trimmed
  }
}
