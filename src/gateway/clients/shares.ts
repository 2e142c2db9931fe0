import type { Caller } from '../env.ts'
import { type AccessToken, tokenHolder } from '../options.ts'
import { Problem } from '../problem.ts'

/** The share of a holder is one of so many equal parts. */
const PARTS = 4

/**
 * Counts what each holder of a token has of something that all share, so that one of them cannot take all: each has a quarter at
 * most. There is no such bound without tokens, or if there is one holder: nobody else is there to be kept out.
 */
export class Shares {
  /** Undefined: no bound. */
  readonly #most: number | undefined
  readonly #error: string
  /** What each holder has, and how often it was taken. */
  readonly #had = new Map<unknown, Map<unknown, number>>()

  /** `limit`: of all together. `error`: the text of the problem for one more. */
  constructor(limit: number, error: string, tokens: readonly AccessToken[] | undefined) {
    const isShared = new Set(tokens?.map(tokenHolder)).size > 1
    this.#most = isShared ? Math.max(1, Math.floor(limit / PARTS)) : undefined
    this.#error = error
  }

  /** `what`: what the caller is to have. @throws Problem 429 if its share is used up, and it does not have this already. */
  assertRoom(caller: Caller | undefined, what?: unknown): void {
    const had = this.#had.get(caller?.holder)
    if (!had || this.#most === undefined || had.size < this.#most || had.has(what)) return
    throw new Problem(429, this.#error, { detail: `One holder of tokens may have ${this.#most}` })
  }

  /**
   * The caller has one more. `what`: the same one is counted once, however often its holder takes it. Returns what gives it back,
   * once or more often.
   */
  take(caller: Caller | undefined, what: unknown = Symbol()): () => void {
    const holder = caller?.holder
    if (holder === undefined || this.#most === undefined) return () => {}
    const had = this.#had.get(holder) ?? new Map<unknown, number>()
    this.#had.set(holder, had)
    had.set(what, (had.get(what) ?? 0) + 1)
    let isTaken = true
    return () => {
      if (!isTaken) return
      isTaken = false
      const left = (had.get(what) ?? 1) - 1
      if (left > 0) had.set(what, left)
      else had.delete(what)
      if (had.size === 0) this.#had.delete(holder)
    }
  }
}
