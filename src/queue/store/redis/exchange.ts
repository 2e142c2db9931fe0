import { UnavailableError } from '../../../errors.ts'
import { ReplyCallbacks } from '../../../kernel/redis/call.ts'
import type { Script } from '../../../kernel/redis/script.ts'
import { atEndOfTick } from '../../../kernel/time/tick.ts'
import { type Argument, CommandList, type CommandNames, type QueueCalls } from './calls.ts'

/** One of several things that are asked for by one script call. Made by a constructor: see kernel/churn.ts. */
export class Item {
  /** Name of the record. */
  readonly key: string
  /** Undefined where the script need not know. */
  readonly command: CommandNames | undefined
  /** Its arguments; `command` is its number in this call. */
  readonly args: (command: number) => Argument[]
  /** Called with the reply and where its part begins; once more, after `failed`, when the reply comes late. */
  readonly answered: (reply: readonly unknown[], at: number) => void
  readonly failed: (error: Error) => void

  constructor(
    key: string,
    command: CommandNames | undefined,
    args: (command: number) => Argument[],
    answered: (reply: readonly unknown[], at: number) => void,
    failed: (error: Error) => void,
  ) {
    this.key = key
    this.command = command
    this.args = args
    this.answered = answered
    this.failed = failed
  }
}

export interface ExchangeOptions {
  /** Items that one call carries at most: it runs alone on the server, so it must stay short. */
  most: number
  /** Values in the reply for each item. */
  stride: number
  /** Arguments between the head and those of the items. */
  terms(list: CommandList): Argument[]
  /** The last value of the reply, if there is one behind those of the items: the server's time. */
  learn?: (now: number, sentAt: number) => void
}

/** Asks in one script call for what is asked for in one tick. */
export class Exchange {
  readonly #calls: QueueCalls
  readonly #script: Script
  readonly #options: ExchangeOptions
  /** What goes out at the end of this tick, by time limit. */
  readonly #waiting = new Map<number, Item[]>()

  constructor(calls: QueueCalls, script: Script, options: ExchangeOptions) {
    this.#calls = calls
    this.#script = script
    this.#options = options
  }

  add(item: Item, within: number): void {
    const waiting = this.#waiting.get(within)
    if (waiting) return void waiting.push(item)
    this.#waiting.set(within, [item])
    atEndOfTick(() => this.#flush(within))
  }

  #flush(within: number): void {
    const { most } = this.#options
    const items = this.#waiting.get(within) ?? []
    this.#waiting.delete(within)
    for (let from = 0; from < items.length; from += most) this.#send(items.slice(from, from + most), within)
  }

  #send(items: readonly Item[], within: number): void {
    const { connection } = this.#calls
    const list = new CommandList()
    const rest: Argument[] = []
    for (const item of items) rest.push(...item.args(item.command ? list.number(item.command) : 0))
    const keys = this.#calls.keys(list.commands)
    for (const item of items) keys.push(item.key)
    const args = this.#calls.args(list.commands)
    args.push(...this.#options.terms(list), ...rest)
    const request = this.#script.with(keys, args)
    const sentAt = connection.clock.now()
    const answered = (reply: unknown) => this.#answer(items, reply as readonly unknown[], sentAt)
    const failed = (error: Error) => {
      // One of them, or its reply, is too large for a connection: the others need not fail with it.
      const separable = items.length > 1 && error instanceof UnavailableError && error.lostConnections > 0
      for (const item of items) {
        if (separable) this.#send([item], within)
        else item.failed(error)
      }
    }
    connection.send(request, within, new ReplyCallbacks(answered, failed, answered))
  }

  #answer(items: readonly Item[], reply: readonly unknown[], sentAt: number): void {
    const { stride, learn } = this.#options
    learn?.(Number(reply[items.length * stride]), sentAt)
    for (let index = 0; index < items.length; index++) items[index]?.answered(reply, index * stride)
  }
}
