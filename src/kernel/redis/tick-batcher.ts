import { atEndOfTick } from '../time.ts'

/** Most items of one script. It blocks the server, so it must be short. */
const MAX_ITEMS = 25

/** Most bytes of the items of one script, unless it has only one: a call that is too large must not fail others with it. */
const MAX_BYTES = 256 * 1024

/** Collects the items of one tick, target and time limit, and sends them together. `target`: what one script is about. */
export class TickBatcher<Item extends { readonly bytes: number }> {
  readonly #send: (target: string, items: readonly Item[], within: number) => void
  readonly #pending = new Map<string, Item[]>()

  constructor(send: (target: string, items: readonly Item[], within: number) => void) {
    this.#send = send
  }

  add(target: string, item: Item, within: number): void {
    const group = `${within} ${target}`
    const pending = this.#pending.get(group)
    if (pending) return void pending.push(item)
    const items = [item]
    this.#pending.set(group, items)
    atEndOfTick(() => {
      this.#pending.delete(group)
      this.#sendAll(target, items, within)
    })
  }

  #sendAll(target: string, items: readonly Item[], within: number): void {
    let batch: Item[] = []
    let bytes = 0
    for (const item of items) {
      if (batch.length === MAX_ITEMS || (batch.length > 0 && bytes + item.bytes > MAX_BYTES)) {
        this.#send(target, batch, within)
        batch = []
        bytes = 0
      }
      batch.push(item)
      bytes += item.bytes
    }
    this.#send(target, batch, within)
  }
}
