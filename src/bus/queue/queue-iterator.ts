import { Fifo } from '../../kernel/collections.ts'

/** A call of `next` that waits for a message. */
interface Read<Item> {
  readonly resolve: (result: IteratorResult<Item>) => void
  readonly reject: (error: Error) => void
}

/** What an iteration needs of its queue. */
export interface QueueIteratorDeps {
  /** A read waits, and none did before: a message is wanted. */
  onWanted(): void
  /** The loop was left. */
  stop(): Promise<void>
}

/**
 * The messages of a queue as an iteration: each is given to the read that has waited longest.
 *
 * | state | `next` | a message | `end` | `return` |
 * | --- | --- | --- | --- | --- |
 * | open | waits | the first read has it | ended: reads that wait end | ended, and `stop` |
 * | ended, with an error | the first read that ends rejects with it, the others are done | | | `stop` |
 * | ended | done | | | `stop` |
 */
export class QueueIterator<Item> implements AsyncIterableIterator<Item> {
  readonly #deps: QueueIteratorDeps
  readonly #reads = new Fifo<Read<Item>>()
  #state: { readonly kind: 'open' } | { readonly kind: 'ended'; readonly error: Error | undefined } = {
    kind: 'open',
  }

  constructor(deps: QueueIteratorDeps) {
    this.#deps = deps
  }

  get isOver(): boolean {
    return this.#state.kind === 'ended'
  }

  /** Whether a read waits. */
  get isReading(): boolean {
    return this.#reads.size > 0
  }

  /** Gives a message to the first read. Returns whether one has waited. */
  give(value: Item): boolean {
    const read = this.#reads.shift()
    read?.resolve({ done: false, value })
    return read !== undefined
  }

  /** No more messages come. `error`: why, for the next read. */
  end(error?: Error): void {
    if (this.#state.kind === 'open') this.#state = { kind: 'ended', error }
    for (let read = this.#reads.shift(); read; read = this.#reads.shift()) this.#finish(read)
  }

  /** Ends a read: the iteration has ended. */
  #finish({ resolve, reject }: Read<Item>): void {
    const error = this.#state.kind === 'ended' ? this.#state.error : undefined
    // It is told once.
    this.#state = { kind: 'ended', error: undefined }
    if (error) reject(error)
    else resolve({ done: true, value: undefined })
  }

  next(): Promise<IteratorResult<Item>> {
    return new Promise((resolve, reject) => {
      if (this.#state.kind === 'ended') return this.#finish({ resolve, reject })
      this.#reads.push({ resolve, reject })
      if (this.#reads.size === 1) this.#deps.onWanted()
    })
  }

  async return(): Promise<IteratorResult<Item>> {
    this.end()
    await this.#deps.stop()
    return { done: true, value: undefined }
  }

  [Symbol.asyncIterator](): this {
    return this
  }
}
