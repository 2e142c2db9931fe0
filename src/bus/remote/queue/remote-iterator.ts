import { QueueIterator, type QueueIteratorDeps } from '../../queue/queue-iterator.ts'

/** Messages of a queue behind a gateway as an iteration: a message is sent when it is asked for. */
export class RemoteIterator<Item> extends QueueIterator<Item> {
  readonly #ask: () => void
  /** One that came before it was asked for again. */
  #early: Item | undefined

  constructor(deps: QueueIteratorDeps) {
    super(deps)
    this.#ask = () => deps.onWanted()
  }

  receive(value: Item): void {
    if (!this.give(value)) this.#early ??= value
    if (this.isReading) this.#ask()
  }

  override next(): Promise<IteratorResult<Item>> {
    const value = this.#early
    this.#early = undefined
    if (value === undefined || this.isOver) return super.next()
    return Promise.resolve({ done: false, value })
  }
}
