import { AbortedError, TimeoutError } from '../../../errors.ts'
import type { Clock } from '../../../kernel/time.ts'
import { onAbort } from '../../../kernel/waiter.ts'

/** Runs at most `limit` tasks of each key at once; the others wait, first come, first served. */
export class KeyedSemaphore {
  readonly #limit: number
  readonly #clock: Clock
  /** Keys that have running tasks. */
  readonly #byKey = new Map<string, { running: number; waiting: Set<() => void> }>()

  constructor(limit: number, clock: Clock) {
    this.#limit = limit
    this.#clock = clock
  }

  /** @throws (rejects with) AbortedError, TimeoutError (after `within`, ms) while it waits; what `task` throws. */
  async run<T>(
    key: string,
    { signal, within }: { signal: AbortSignal | undefined; within: number },
    task: () => T | PromiseLike<T>,
  ): Promise<T> {
    const tasks = this.#byKey.get(key) ?? { running: 0, waiting: new Set() }
    this.#byKey.set(key, tasks)
    if (tasks.running < this.#limit) tasks.running++
    else await this.#wait(tasks.waiting, signal, within)
    try {
      return await task()
    } finally {
      const [next] = tasks.waiting
      if (next) {
        tasks.waiting.delete(next)
        next()
      } else if (--tasks.running === 0) this.#byKey.delete(key)
    }
  }

  #wait(waiting: Set<() => void>, signal: AbortSignal | undefined, within: number): Promise<void> {
    if (signal?.aborted) return Promise.reject(new AbortedError('The client has gone'))
    return new Promise((resolve, reject) => {
      const fail = (error: Error): void => {
        cleanUp()
        waiting.delete(start)
        reject(error)
      }
      const onTimeout = (): void => fail(new TimeoutError('It was not its turn in time'))
      const timer = within < Number.POSITIVE_INFINITY ? this.#clock.after(within, onTimeout) : undefined
      const unlisten = signal && onAbort(signal, () => fail(new AbortedError('The client has gone')))
      const cleanUp = (): void => {
        timer?.cancel()
        unlisten?.()
      }
      const start = (): void => {
        cleanUp()
        resolve()
      }
      waiting.add(start)
    })
  }
}
