import { UnavailableError } from '../errors.ts'
import type { Script } from '../kernel/script.ts'
import { Batch } from './batch.ts'
import { type Argument, CommandList, type QueueCalls } from './calls.ts'

/** One of several things that are asked for by one script call. */
export interface Item {
  /** Name of the record. */
  key: string
  /** Its command, as it stands in names; undefined where the script need not know. */
  command: string | undefined
  /** Its arguments; `command` is its number in this call. */
  args(command: number): Argument[]
  /** Called with its part of the reply; once more, after `failed`, when the reply comes late. */
  answered(reply: readonly unknown[]): void
  failed(error: Error): void
}

export interface ExchangeOptions {
  /** Items that one call carries at most: it runs alone on the server, so it must stay short. */
  most: number
  /** Values in the reply for each item. */
  stride: number
  /** Arguments between the head and those of the items. */
  terms(commands: CommandList, items: readonly Item[]): Argument[]
  /** The last value of the reply, if there is one behind those of the items: the server's time. */
  learn?: (now: number, sentAt: number) => void
}

/** Asks in one script call for what is asked for in one tick. */
export class Exchange {
  readonly #calls: QueueCalls
  readonly #script: Script
  readonly #options: ExchangeOptions
  /** By time limit: what goes out together shares it. */
  readonly #batches = new Map<number, Batch<Item>>()

  constructor(calls: QueueCalls, script: Script, options: ExchangeOptions) {
    this.#calls = calls
    this.#script = script
    this.#options = options
  }

  add(item: Item, within: number): void {
    let batch = this.#batches.get(within)
    if (!batch) {
      batch = new Batch(this.#options.most, (items) => this.#send(items, within))
      this.#batches.set(within, batch)
    }
    batch.add(item)
  }

  #send(items: readonly Item[], within: number): void {
    const { connection } = this.#calls
    const commands = new CommandList()
    const args = items.flatMap(({ command, args }) =>
      args(command === undefined ? 0 : commands.number(command)),
    )
    const terms = this.#options.terms(commands, items)
    const keys = this.#calls.keys(
      commands.names,
      items.map((item) => item.key),
    )
    const request = this.#script.with(keys, this.#calls.args(commands.names, [...terms, ...args]))
    const sentAt = connection.clock.now()
    const answered = (reply: unknown) => this.#answer(items, reply as readonly unknown[], sentAt)
    const failed = (error: Error) => {
      for (const item of items) item.failed(error)
    }
    connection.ask(request, within, { answered, failed, late: answered })
  }

  #answer(items: readonly Item[], reply: readonly unknown[], sentAt: number): void {
    const { stride, learn } = this.#options
    learn?.(Number(reply[items.length * stride]), sentAt)
    for (const [index, item] of items.entries())
      item.answered(reply.slice(index * stride, (index + 1) * stride))
  }
}

/** What the script says when it failed for one item alone. */
export function refusal(reason: unknown): UnavailableError {
  return new UnavailableError(`Redis refused: ${String(reason)}`)
}
