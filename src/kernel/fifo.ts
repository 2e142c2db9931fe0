interface Link<T> {
  readonly item: T
  next: Link<T> | undefined
}

/** A queue: first in, first out, in the same time however long it is. */
export class Fifo<T> {
  #first: Link<T> | undefined
  #last: Link<T> | undefined
  #size = 0

  get size(): number {
    return this.#size
  }

  push(item: T): void {
    const link = { item, next: undefined }
    if (this.#last) this.#last.next = link
    else this.#first = link
    this.#last = link
    this.#size++
  }

  shift(): T | undefined {
    const link = this.#first
    if (!link) return undefined
    this.#first = link.next
    if (!link.next) this.#last = undefined
    // A removed link that is old would keep all younger ones from being collected with the young.
    link.next = undefined
    this.#size--
    return link.item
  }
}
