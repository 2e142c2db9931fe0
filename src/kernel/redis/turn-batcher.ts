import { atEndOfTurn } from '../time.ts'

/** Most items of one script, unless the batcher says otherwise. It blocks the server, so it must be short. */
const MAX_ITEMS = 25

/** Most bytes of the items of one script, unless it has only one: a call that is too large must not fail others with it. */
const MAX_BYTES = 256 * 1024

/** Sends items of one group, together. */
type SendItems<Item> = (group: string, items: readonly Item[], within: number) => void

/** Collects the items of one turn, group (what a script is about) and time limit, and sends them together. */
export class TurnBatcher<Item extends { readonly bytes: number }> {
  readonly #send: SendItems<Item>
  readonly #maxItems: number
  readonly #pending = new Map<string, Item[]>()

  constructor(send: SendItems<Item>, maxItems: number = MAX_ITEMS) {
    this.#send = send
    this.#maxItems = maxItems
  }

  add(group: string, item: Item, within: number): void {
    const key = `${within} ${group}`
    const pending = this.#pending.get(key)
    if (pending) return void pending.push(item)
    const items = [item]
    this.#pending.set(key, items)
    atEndOfTurn(() => {
      this.#pending.delete(key)
      this.#sendAll(group, items, within)
    })
  }

  #sendAll(group: string, items: readonly Item[], within: number): void {
    let batch: Item[] = []
    let bytes = 0
    for (const item of items) {
      if (batch.length === this.#maxItems || (batch.length > 0 && bytes + item.bytes > MAX_BYTES)) {
        this.#send(group, batch, within)
        batch = []
        bytes = 0
      }
      batch.push(item)
      bytes += item.bytes
    }
    this.#send(group, batch, within)
  }
}
