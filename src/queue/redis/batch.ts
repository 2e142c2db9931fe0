/** Collects what is asked for in one tick, and hands it on together, so many at a time at most. */
import { nextTick } from '../../kernel/timers.ts'
export class Batch<Item> {
  readonly #most: number
  readonly #send: (items: Item[]) => void
  #items: Item[] = []

  constructor(most: number, send: (items: Item[]) => void) {
    this.#most = most
    this.#send = send
  }

  add(item: Item): void {
    if (this.#items.push(item) === 1) nextTick(() => this.#flush())
  }

  #flush(): void {
    const items = this.#items
    this.#items = []
    if (items.length <= this.#most) return this.#send(items)
    for (let from = 0; from < items.length; from += this.#most) {
      this.#send(items.slice(from, from + this.#most))
    }
  }
}
