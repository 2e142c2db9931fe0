import type { StreamSource } from '../options.ts'

type ChunkIterator = AsyncIterator<unknown> | Iterator<unknown>

/** The iterator of what a work returned. Refuses text and bytes, which would iterate as characters or numbers. */
function iteratorOf(source: unknown): ChunkIterator {
  if (typeof source === 'object' && source !== null && !ArrayBuffer.isView(source)) {
    const { [Symbol.asyncIterator]: asyncIterator, [Symbol.iterator]: iterator } = source as Partial<
      AsyncIterable<unknown> & Iterable<unknown>
    >
    if (typeof asyncIterator === 'function') return asyncIterator.call(source)
    if (typeof iterator === 'function') return iterator.call(source)
  }
  throw new TypeError('Expected the work of a stream to return an iterable of chunks, as a generator does')
}

/** Pulls chunks from the iterable that a work returns, one at a time. {@link stop} ends it at any await. */
export class ChunkSource {
  /** Rejects the current await. */
  #reject: ((reason: unknown) => void) | undefined
  #iterator: ChunkIterator | undefined
  #stopped: { reason: unknown } | undefined

  /**
   * Calls `each` for every chunk and awaits what it returns. Resolves at the end of the iterable. Rejects when the work
   * fails, or with the reason of {@link stop}.
   */
  async drain(
    open: () => StreamSource<unknown> | PromiseLike<StreamSource<unknown>>,
    each: (chunk: unknown) => Promise<void> | undefined,
  ): Promise<void> {
    const source = await this.#unlessStopped(Promise.resolve(open()))
    this.#iterator = iteratorOf(source)
    for (;;) {
      const { done, value } = await this.#unlessStopped(Promise.resolve(this.#iterator.next()))
      if (done) return
      // A synchronous iterable may still yield promises.
      const backpressure = each(isThenable(value) ? await this.#unlessStopped(Promise.resolve(value)) : value)
      if (backpressure) await this.#unlessStopped(backpressure)
    }
  }

  /** The same promise, rejected early by {@link stop}. Promise.race with one lasting promise would leak a reaction per chunk. */
  #unlessStopped<T>(promise: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      this.#reject = reject
      promise.then(resolve, reject)
      if (this.#stopped) reject(this.#stopped.reason)
    })
  }

  /** Rejects {@link drain} and asks the generator to return. Ignores how the generator answers. */
  stop(reason: unknown): void {
    if (this.#stopped) return
    this.#stopped = { reason }
    this.#reject?.(reason)
    this.#returnIterator()
  }

  #returnIterator(): void {
    try {
      Promise.resolve(this.#iterator?.return?.()).catch(() => {})
    } catch {
      // The work has ended for us; an error from `return` has no reader.
    }
  }
}

function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof (value as { then?: unknown } | null | undefined)?.then === 'function'
}
