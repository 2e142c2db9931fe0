/** Bytes of the newest chunks that a process keeps of a log, for those of its readers who keep up. */
const TAIL_BYTES = 256 * 1024
/** So many of them at most. */
const TAIL_CHUNKS = 1024

/** The newest chunks of a log, without a gap: bounded, so that a slow reader costs nothing here. */
export class Tail {
  /** Number of the first chunk, and of the one after the last. */
  #first = 0
  #end = 0
  #chunks: Buffer[] = []
  #bytes = 0

  /** The chunk of this number, if it is here. */
  at(number: number): Buffer | undefined {
    return this.#chunks[number - this.#first]
  }

  /** Adds chunks from number `from` on; those that are here already stay, and a gap forgets what was before it. */
  add(from: number, chunks: readonly Buffer[]): void {
    const end = from + chunks.length
    if (end <= this.#end) return
    if (from > this.#end) this.#restart(from)
    for (let number = this.#end; number < end; number++) {
      const chunk = chunks[number - from] as Buffer
      this.#chunks.push(chunk)
      this.#bytes += chunk.length
    }
    this.#end = end
    if (this.#bytes > 2 * TAIL_BYTES || this.#chunks.length > 2 * TAIL_CHUNKS) this.#shorten()
  }

  #restart(from: number): void {
    this.#first = from
    this.#end = from
    this.#chunks = []
    this.#bytes = 0
  }

  /** Now and then, not with each chunk. */
  #shorten(): void {
    let gone = 0
    while (this.#bytes > TAIL_BYTES || this.#chunks.length - gone > TAIL_CHUNKS)
      this.#bytes -= this.#chunks[gone++]?.length ?? 0
    this.#chunks = this.#chunks.slice(gone)
    this.#first += gone
  }
}
