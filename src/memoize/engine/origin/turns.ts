import { AbortedError, TimeoutError } from '../../../errors.ts'
import type { Clock } from '../../../kernel/time/clock.ts'
import { onAbort } from '../../../kernel/waiting/on-abort.ts'

/** Runs at most so many at once of each key; the others wait for their turn. */
export class Turns {
  readonly #most: number
  readonly #clock: Clock
  /** By key: how many run, and who waits. */
  readonly #turns = new Map<string, { running: number; line: Set<() => void> }>()

  constructor(most: number, clock: Clock) {
    this.#most = most
    this.#clock = clock
  }

  /** @throws (rejects with) AbortedError, TimeoutError (after `within`, ms) while it waits. */
  async run<T>(
    key: string,
    { signal, within }: { signal: AbortSignal | undefined; within: number },
    run: () => T | PromiseLike<T>,
  ): Promise<T> {
    const turn = this.#turns.get(key) ?? { running: 0, line: new Set() }
    this.#turns.set(key, turn)
    if (turn.running < this.#most) turn.running++
    else await this.#wait(turn.line, signal, within)
    try {
      return await run()
    } finally {
      const [next] = turn.line
      if (next) {
        turn.line.delete(next)
        next()
      } else if (--turn.running === 0) this.#turns.delete(key)
    }
  }

  #wait(line: Set<() => void>, signal: AbortSignal | undefined, within: number): Promise<void> {
    if (signal?.aborted) return Promise.reject(new AbortedError('The client has gone'))
    return new Promise((resolve, reject) => {
      const leave = (error: Error): void => {
        done()
        line.delete(next)
        reject(error)
      }
      const late = (): void => leave(new TimeoutError('It was not its turn in time'))
      const timer = within < Number.POSITIVE_INFINITY ? this.#clock.after(within, late) : undefined
      const unlisten = signal && onAbort(signal, () => leave(new AbortedError('The client has gone')))
      const done = (): void => {
        timer?.cancel()
        unlisten?.()
      }
      const next = (): void => {
        done()
        resolve()
      }
      line.add(next)
    })
  }
}
