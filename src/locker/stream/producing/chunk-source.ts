import type { StreamSource } from '../options.ts'

type Pull = AsyncIterator<unknown> | Iterator<unknown>

/** The chunks of what a work returned. A text or bytes would come as single characters or numbers: they are none. */
function iteratorOf(source: unknown): Pull {
  if (typeof source === 'object' && source !== null && !ArrayBuffer.isView(source)) {
    const { [Symbol.asyncIterator]: later, [Symbol.iterator]: now } = source as Partial<
      AsyncIterable<unknown> & Iterable<unknown>
    >
    if (typeof later === 'function') return later.call(source)
    if (typeof now === 'function') return now.call(source)
  }
  throw new TypeError('Expected the work of a stream to return an iterable of chunks, as a generator does')
}

/** Takes chunks out of what a work returned, one at a time, and can be stopped at any time. */
export class Source {
  /** Ends the wait of the moment. */
  #reject: ((reason: unknown) => void) | undefined
  #iterator: Pull | undefined
  #stopped: { reason: unknown } | undefined

  /** Calls `each` for every chunk until there are no more. Rejects when the work fails, or with the reason of {@link stop}. */
  async drain(
    open: () => StreamSource<unknown> | PromiseLike<StreamSource<unknown>>,
    each: (chunk: unknown) => Promise<void> | undefined,
  ): Promise<void> {
    const source = await this.#unlessStopped(Promise.resolve(open()))
    this.#iterator = iteratorOf(source)
    for (;;) {
      const { done, value } = await this.#unlessStopped(Promise.resolve(this.#iterator.next()))
      if (done) return
      // An iterable that is not asynchronous may still hold promises.
      const room = each(isThenable(value) ? await this.#unlessStopped(Promise.resolve(value)) : value)
      if (room) await this.#unlessStopped(room)
    }
  }

  /** The same promise, but rejected by {@link stop}. A race with one promise for all would keep what each has left in it. */
  #unlessStopped<T>(promise: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      this.#reject = reject
      promise.then(resolve, reject)
      if (this.#stopped) reject(this.#stopped.reason)
    })
  }

  /** Takes no more, and tells the generator so; what that says to it is nobody's affair any more. */
  stop(reason: unknown): void {
    if (this.#stopped) return
    this.#stopped = { reason }
    this.#reject?.(reason)
    this.#return()
  }

  #return(): void {
    try {
      Promise.resolve(this.#iterator?.return?.()).catch(() => {})
    } catch {
      // A generator that cannot even be ended is left alone.
    }
  }
}

function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof (value as { then?: unknown } | null | undefined)?.then === 'function'
}
