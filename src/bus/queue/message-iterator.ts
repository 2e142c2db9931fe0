import pDefer, { type DeferredPromise } from 'p-defer'
import { Fifo } from '../../kernel/collections.ts'
import type { Incoming } from '../store/store.ts'
import type { Receiver } from './consumption.ts'

/** What an iteration needs of its queue. */
interface IteratorDeps<Item> {
  /** Undefined: the message cannot be decoded, and is passed over. */
  decode(message: Incoming, fence: number): Item | undefined
  /** A read waits. */
  resume(): void
  stop(): Promise<void>
}

/** Messages as an iteration: a message is fetched when it is asked for. */
export class MessageIterator<Item> implements AsyncIterableIterator<Item>, Receiver {
  readonly #deps: IteratorDeps<Item>
  readonly #reads = new Fifo<DeferredPromise<IteratorResult<Item>>>()
  /** Why it has ended; undefined: it has not. */
  #end: { readonly error: Error | undefined } | undefined

  constructor(deps: IteratorDeps<Item>) {
    this.#deps = deps
  }

  wantsFetch(): boolean {
    return this.#reads.size > 0
  }

  wantsMessage(): boolean {
    return this.#reads.size > 0
  }

  onFetch(): void {}

  onStarted(): void {}

  receive(message: Incoming, fence: number): void {
    const value = this.#deps.decode(message, fence)
    if (value !== undefined) this.#reads.shift()?.resolve({ done: false, value })
  }

  /** No more messages come. */
  end(error?: Error): void {
    this.#end ??= { error }
    for (let read = this.#reads.shift(); read; read = this.#reads.shift()) this.#settle(read)
  }

  #settle(read: DeferredPromise<IteratorResult<Item>>): void {
    const error = this.#end?.error
    // It is told once.
    this.#end = { error: undefined }
    if (error) read.reject(error)
    else read.resolve({ done: true, value: undefined })
  }

  next(): Promise<IteratorResult<Item>> {
    const read = pDefer<IteratorResult<Item>>()
    if (this.#end) this.#settle(read)
    else {
      this.#reads.push(read)
      this.#deps.resume()
    }
    return read.promise
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
