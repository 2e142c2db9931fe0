import { UnavailableError } from '../../../errors.ts'
import { ReplyCallbacks, type Script } from '../../../kernel/redis/call.ts'
import { atEndOfTick } from '../../../kernel/time.ts'
import { type Argument, type CommandKeys, CommandList, type QueueCalls } from './calls.ts'

/** One of several things that are asked for by one script call. Made by a constructor: see kernel/collections.ts. */
export class BatchItem {
  /** Name of the record. */
  readonly key: string
  /** Undefined where the script need not know. */
  readonly command: CommandKeys | undefined
  /** Its arguments; `command` is its number in this call. */
  readonly args: (command: number) => Argument[]
  /** Called with the reply and where its part begins; once more, after `failed`, when the reply comes late. */
  readonly onReply: (reply: readonly unknown[], at: number) => void
  readonly onError: (error: Error) => void

  constructor(
    key: string,
    command: CommandKeys | undefined,
    args: (command: number) => Argument[],
    answered: (reply: readonly unknown[], at: number) => void,
    failed: (error: Error) => void,
  ) {
    this.key = key
    this.command = command
    this.args = args
    this.onReply = answered
    this.onError = failed
  }
}

export interface CallBatcherOptions {
  /** Items that one call carries at most: it runs alone on the server, so it must stay short. */
  maxItems: number
  /** Values in the reply for each item. */
  valuesPerItem: number
  /** Arguments between the head and those of the items. */
  sharedArgs(list: CommandList): Argument[]
  /** The last value of the reply, if there is one behind those of the items: the server's time. */
  onServerTime?: (now: number, sentAt: number) => void
}

/** Asks in one script call for what is asked for in one tick. */
export class CallBatcher {
  readonly #calls: QueueCalls
  readonly #script: Script
  readonly #options: CallBatcherOptions
  /** What goes out at the end of this tick, by time limit. */
  readonly #waiting = new Map<number, BatchItem[]>()

  constructor(calls: QueueCalls, script: Script, options: CallBatcherOptions) {
    this.#calls = calls
    this.#script = script
    this.#options = options
  }

  add(item: BatchItem, within: number): void {
    const waiting = this.#waiting.get(within)
    if (waiting) return void waiting.push(item)
    this.#waiting.set(within, [item])
    atEndOfTick(() => this.#flush(within))
  }

  #flush(within: number): void {
    const { maxItems: most } = this.#options
    const items = this.#waiting.get(within) ?? []
    this.#waiting.delete(within)
    for (let from = 0; from < items.length; from += most) this.#send(items.slice(from, from + most), within)
  }

  #send(items: readonly BatchItem[], within: number): void {
    const { connection } = this.#calls
    const list = new CommandList()
    const rest: Argument[] = []
    for (const item of items) rest.push(...item.args(item.command ? list.numberOf(item.command) : 0))
    const keys = this.#calls.keys(list.commands)
    for (const item of items) keys.push(item.key)
    const args = this.#calls.argsFor(list.commands)
    args.push(...this.#options.sharedArgs(list), ...rest)
    const request = this.#script.with(keys, args)
    const sentAt = connection.clock.now()
    const answered = (reply: unknown) => this.#onReply(items, reply as readonly unknown[], sentAt)
    const failed = (error: Error) => {
      // One of them, or its reply, is too large for a connection: the others need not fail with it.
      const separable = items.length > 1 && error instanceof UnavailableError && error.lostConnections > 0
      for (const item of items) {
        if (separable) this.#send([item], within)
        else item.onError(error)
      }
    }
    connection.send(request, within, new ReplyCallbacks(answered, failed, answered))
  }

  #onReply(items: readonly BatchItem[], reply: readonly unknown[], sentAt: number): void {
    const { valuesPerItem: stride, onServerTime: learn } = this.#options
    learn?.(Number(reply[items.length * stride]), sentAt)
    for (let index = 0; index < items.length; index++) items[index]?.onReply(reply, index * stride)
  }
}
