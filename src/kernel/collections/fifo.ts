/** A class instead of a literal: see churn.ts. */
class Link<T> {
  readonly item: T
  next: Link<T> | undefined

  constructor(item: T) {
    this.item = item
  }
}

/** A first-in, first-out queue. All operations take constant time. */
export class Fifo<T> {
  #head: Link<T> | undefined
  #tail: Link<T> | undefined
  #size = 0

  get size(): number {
    return this.#size
  }

  get first(): T | undefined {
    return this.#head?.item
  }

  push(item: T): void {
    const link = new Link(item)
    if (this.#tail) this.#tail.next = link
    else this.#head = link
    this.#tail = link
    this.#size++
  }

  shift(): T | undefined {
    const link = this.#head
    if (!link) return undefined
    this.#head = link.next
    if (!link.next) this.#tail = undefined
    // A removed link in the old generation would otherwise keep all later links alive.
    link.next = undefined
    this.#size--
    return link.item
  }
}
