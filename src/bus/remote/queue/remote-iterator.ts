interface Read<Item> {
  readonly resolve: (result: IteratorResult<Item>) => void
  readonly reject: (error: Error) => void
}

/** What an iteration needs of its queue. */
interface IteratorDeps {
  /** A read waits: the gateway is to send a message. */
  ask(): void
  stop(): Promise<void>
}

/** Messages of a queue behind a gateway as an iteration: a message is sent when it is asked for. */
export class RemoteIterator<Item> implements AsyncIterableIterator<Item> {
  readonly #deps: IteratorDeps
  #reads: Read<Item>[] = []
  /** One that came before it was asked for again. */
  #early: Item | undefined
  /** Why it has ended; undefined: it has not. */
  #end: { readonly error: Error | undefined } | undefined

  constructor(deps: IteratorDeps) {
    this.#deps = deps
  }

  /** Whether a read waits. */
  get isReading(): boolean {
    return this.#reads.length > 0
  }

  receive(value: Item): void {
    const read = this.#reads.shift()
    if (!read) this.#early ??= value
    else read.resolve({ done: false, value })
    if (this.isReading) this.#deps.ask()
  }

  /** No more messages come. */
  end(error?: Error): void {
    this.#end ??= { error }
    for (const read of this.#reads.splice(0)) this.#settle(read)
  }

  #settle(read: Read<Item>): void {
    const error = this.#end?.error
    // It is told once.
    this.#end = { error: undefined }
    if (error) read.reject(error)
    else read.resolve({ done: true, value: undefined })
  }

  next(): Promise<IteratorResult<Item>> {
    const value = this.#early
    this.#early = undefined
    if (value !== undefined && !this.#end) return Promise.resolve({ done: false, value })
    return new Promise((resolve, reject) => {
      if (this.#end) return this.#settle({ resolve, reject })
      this.#reads.push({ resolve, reject })
      if (this.#reads.length === 1) this.#deps.ask()
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
