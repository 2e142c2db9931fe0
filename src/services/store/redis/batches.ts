import { atEndOfTick } from '../../../kernel/time.ts'
import type { Addressed, Dispatch, DispatchHandler, Load } from '../store.ts'

/** Most calls or reports of one script. It blocks the server, so it must be short. */
const MAX_ITEMS = 25

/** Most bytes of the items of one script, unless it has only one: a call that is too large must not fail others with it. */
const MAX_BYTES = 256 * 1024

/** Sends items of one group, together. */
type SendItems<Item> = (group: string, items: readonly Item[], within: number) => void

/** Collects the items of one tick, group (a service) and time limit, and sends them together. */
export class TickBatcher<Item extends { readonly bytes: number }> {
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
    atEndOfTick(() => {
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

/** Services that one script registers or unregisters at most. It blocks the server, so it must be short. */
export const MAX_SERVICES = 50

/** A call to be dealt. A class, not a literal: see kernel/collections.ts. */
export class DispatchItem {
  readonly dispatch: Dispatch
  readonly handler: DispatchHandler

  constructor(dispatch: Dispatch, handler: DispatchHandler) {
    this.dispatch = dispatch
    this.handler = handler
  }

  get bytes(): number {
    return this.dispatch.message.body.length
  }
}

/** A report to be sent. */
export class ReportItem {
  readonly load: Load
  readonly replies: readonly Addressed[]
  readonly bytes: number
  readonly resolve: () => void
  readonly reject: (error: Error) => void

  constructor(
    load: Load,
    replies: readonly Addressed[],
    resolve: () => void,
    reject: (error: Error) => void,
  ) {
    this.load = load
    this.replies = replies
    this.bytes = replies.reduce((sum, { message }) => sum + message.body.length, 0)
    this.resolve = resolve
    this.reject = reject
  }
}

/** A service that is to be unregistered, and the message after its last call. */
export class UnregisterItem {
  readonly service: string
  readonly message: Buffer
  readonly resolve: () => void
  readonly reject: (error: Error) => void

  constructor(service: string, message: Buffer, resolve: () => void, reject: (error: Error) => void) {
    this.service = service
    this.message = message
    this.resolve = resolve
    this.reject = reject
  }

  get bytes(): number {
    return this.message.length
  }
}
