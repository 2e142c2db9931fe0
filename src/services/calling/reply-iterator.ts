/** What a {@link ReplyIterator} reads. */
export interface ReplySource<T> {
  /** Resolves with the next value, or with the end; rejects if the call fails. Not called again before it is settled. */
  read(): Promise<IteratorResult<T, void>>
  /** Nobody reads any more. A read that waits must end. */
  leave(): void
}

const END: IteratorReturnResult<void> = { done: true, value: undefined }

/**
 * Iterates over the replies of a call. An async generator would let `return` wait for a read that is pending; here it ends
 * the call at once, and the read with it.
 */
export class ReplyIterator<T> implements AsyncGenerator<T, void> {
  readonly #open: () => ReplySource<T>
  #source: ReplySource<T> | undefined
  #state: 'open' | 'ended' = 'open'
  /** Settles after the last read that is pending: a further one waits for it. */
  #pending: Promise<void> | undefined

  /** A function is called by the first read, and may throw. */
  constructor(source: ReplySource<T> | (() => ReplySource<T>)) {
    this.#open = typeof source === 'function' ? source : () => source
    this.#source = typeof source === 'function' ? undefined : source
  }

  next(): Promise<IteratorResult<T, void>> {
    const read = this.#pending ? this.#pending.then(() => this.#read()) : this.#read()
    const settled = () => {
      if (this.#pending === pending) this.#pending = undefined
    }
    const pending: Promise<void> = read.then(settled, settled)
    this.#pending = pending
    return read
  }

  async #read(): Promise<IteratorResult<T, void>> {
    if (this.#isEnded) return END
    try {
      this.#source ??= this.#open()
      const result = await this.#source.read()
      if (result.done) this.#end()
      return this.#isEnded ? END : result
    } catch (error) {
      if (this.#isEnded) return END
      this.#end()
      throw error
    }
  }

  get #isEnded(): boolean {
    return this.#state === 'ended'
  }

  #end(): void {
    if (this.#isEnded) return
    this.#state = 'ended'
    this.#source?.leave()
  }

  async return(): Promise<IteratorResult<T, void>> {
    this.#end()
    return END
  }

  async throw(error: unknown): Promise<IteratorResult<T, void>> {
    this.#end()
    throw error
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#end()
  }

  [Symbol.asyncIterator](): this {
    return this
  }
}
