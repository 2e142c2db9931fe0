import { Fifo } from '../../kernel/fifo.ts'

/** Lets so many of a key go at once; the others wait for their turn. */
export class Turns {
  readonly #most: number
  /** Those who wait, by key; a key is here as long as somebody goes. */
  readonly #waiting = new Map<string, { going: number; line: Fifo<() => void> }>()

  constructor(most: number) {
    this.#most = most
  }

  async run<T>(key: string, go: () => T | PromiseLike<T>): Promise<T> {
    const known = this.#waiting.get(key)
    const turn = known ?? { going: 0, line: new Fifo<() => void>() }
    if (!known) this.#waiting.set(key, turn)
    if (turn.going < this.#most) turn.going++
    else await new Promise<void>((next) => turn.line.push(next))
    try {
      return await go()
    } finally {
      const next = turn.line.shift()
      if (next) next()
      else if (--turn.going === 0) this.#waiting.delete(key)
    }
  }
}
