import { UnavailableError } from '../../../errors.ts'
import { FORMAT, keySegment } from '../../../kernel/keys.ts'
import { ReplyCallbacks, type Script } from '../../../kernel/redis/call.ts'
import type { Connection } from '../../../kernel/redis/connection.ts'
import { RepeatedRequest } from '../../../kernel/redis/once.ts'
import { FenceWatermark, ServerClock } from '../../../kernel/redis/server.ts'
import { atEndOfTurn } from '../../../kernel/time.ts'
import type { WorkerRef } from '../store.ts'
import { type QueueScripts, queueScripts } from './scripts/index.ts'

/** The Redis keys of a queue. All have the same hash tag, so they are in one slot. */
export class QueueKeys {
  /** Prefix of all keys. No key of a Locker has it: in those, a letter and a slash follow the format number. */
  readonly base: string
  readonly deadlines: string
  readonly commands: string
  readonly paused: string
  readonly totals: string
  /** Keys that belong to no command, as the scripts take them: deadlines, delayed, failed, completed, commands, paused, totals. */
  readonly shared: readonly string[]

  constructor(prefix: string, queue: string) {
    this.base = `${prefix}:${FORMAT}:{${keySegment(queue)}}`
    this.deadlines = `${this.base}t`
    this.commands = `${this.base}q`
    this.paused = `${this.base}s`
    this.totals = `${this.base}n`
    this.shared = [
      this.deadlines,
      `${this.base}d`,
      `${this.base}x`,
      `${this.base}c`,
      this.commands,
      this.paused,
      this.totals,
    ]
  }

  /** Keys of a command, as the scripts take them: ready jobs, free slots, workers, ready jobs with a priority. */
  command(name: string): string[] {
    return ['w', 'i', 'r', 'z'].map((letter) => `${this.base}${letter}/${name}`)
  }

  job(id: string): string {
    return `${this.base}j/${id}`
  }

  post(key: string): string {
    return `${this.base}b/${key}`
  }

  log(id: string): string {
    return `${this.base}l/${id}`
  }
}

export type Argument = string | Buffer

/** A command, as scripts are given it. */
export interface CommandKeys {
  readonly name: string
  /** As it stands in key names. */
  readonly segment: string
  readonly keys: readonly string[]
}

/** The commands of one script call, numbered from 1 as in the script, and how many items each has. */
export class CommandList {
  readonly commands: CommandKeys[] = []
  readonly counts: number[] = []
  /** By segment: a command that is not cached has another object each time. */
  readonly #indexes = new Map<string, number>()

  /** The number of a command. Counts one more item of it. */
  numberOf(command: CommandKeys): number {
    const known = this.#indexes.get(command.segment)
    const index = known ?? this.commands.push(command) - 1
    if (known === undefined) this.#indexes.set(command.segment, index)
    this.counts[index] = (this.counts[index] ?? 0) + 1
    return index + 1
  }
}

/** The keys of so many commands are cached, for each queue object. */
const MAX_CACHED_COMMANDS = 32

type ReadCommand = 'zrange' | 'lrange' | 'hkeys' | 'hvals' | 'hmget' | 'smembers'

/** Calls the scripts of one queue: adds the KEYS and ARGV that each of them begins with. */
export class QueueCalls {
  readonly connection: Connection
  readonly keys: QueueKeys
  readonly scripts: QueueScripts
  /** Updated by replies that tell the server's time. */
  readonly serverClock: ServerClock
  /** Updated by deliveries. */
  readonly fenceWatermark: FenceWatermark
  readonly #head: readonly string[]
  readonly #commands = new Map<string, CommandKeys>()

  /** `acceptWithin`: the lease of an attempt until its worker accepts it, ms. */
  constructor(
    connection: Connection,
    keys: QueueKeys,
    acceptWithin: number,
    scripts: QueueScripts = queueScripts,
  ) {
    this.connection = connection
    this.keys = keys
    this.scripts = scripts
    this.serverClock = new ServerClock(connection.clock)
    this.fenceWatermark = new FenceWatermark(this.serverClock)
    this.#head = [connection.inboxPrefix, connection.cluster ? '1' : '0', `${acceptWithin}`]
  }

  /** A worker as Redis knows it. */
  address({ nonce, inbox = this.connection.inbox.id }: WorkerRef): string {
    return inbox + nonce
  }

  command(name: string): CommandKeys {
    const cached = this.#commands.get(name)
    if (cached) return cached
    const command = this.#commandKeys(name, keySegment(name))
    if (this.#commands.size >= MAX_CACHED_COMMANDS) this.#commands.clear()
    this.#commands.set(name, command)
    return command
  }

  /** A command by its segment in key names; its name is not known. */
  commandOfSegment(segment: string): CommandKeys {
    return this.#commandKeys(segment, segment)
  }

  #commandKeys(name: string, segment: string): CommandKeys {
    return { name, segment, keys: this.keys.command(segment) }
  }

  /** The KEYS that a script about these commands begins with. */
  keysFor(commands: readonly CommandKeys[]): string[] {
    const keys = [...this.keys.shared]
    for (const command of commands) keys.push(...command.keys)
    return keys
  }

  /** The ARGV that a script about these commands begins with. */
  argsFor(commands: readonly CommandKeys[]): Argument[] {
    const args: Argument[] = [...this.#head, `${this.fenceWatermark.highest}`, `${commands.length}`]
    for (const command of commands) args.push(command.segment)
    return args
  }

  call(
    script: Script,
    commands: readonly CommandKeys[],
    keys: readonly string[],
    args: readonly Argument[],
    within: number,
  ): Promise<unknown> {
    const request = script.with([...this.keysFor(commands), ...keys], [...this.argsFor(commands), ...args])
    return this.connection.call(request, within)
  }

  /** Calls a script about one job. */
  callJob(
    script: Script,
    id: string,
    command: string | undefined,
    args: readonly Argument[],
    within: number,
  ): Promise<unknown> {
    const commands = command === undefined ? [] : [this.command(command)]
    return this.call(script, commands, [this.keys.job(id)], args, within)
  }

  /** Reads a key at the primary: a replica may lack what was just written. */
  read(command: ReadCommand, [key = '', ...args]: string[], within: number): Promise<unknown> {
    return this.connection.call(this.scripts.read.with([key], [command, ...args]), within)
  }
}

/** One of the items of a batched call. A class, not a literal: see kernel/collections.ts. */
export class BatchItem {
  /** Key of the record; undefined if it is about none. */
  readonly key: string | undefined
  /** Undefined if the script needs no command. */
  readonly command: CommandKeys | undefined
  /** Its arguments; `command` is the number of its command in the call. */
  readonly args: (command: number) => Argument[]
  /** Receives the reply and the index of the item's values; also a late reply, after `onError`. */
  readonly onReply: (reply: readonly unknown[], at: number) => void
  readonly onError: (error: Error) => void

  constructor(
    key: string | undefined,
    command: CommandKeys | undefined,
    args: (command: number) => Argument[],
    onReply: (reply: readonly unknown[], at: number) => void,
    onError: (error: Error) => void,
  ) {
    this.key = key
    this.command = command
    this.args = args
    this.onReply = onReply
    this.onError = onError
  }
}

export interface CallBatcherOptions {
  /** Most items of one call. A script blocks the server, so it must be short. */
  maxItems: number
  /** Values of each item in the reply. */
  valuesPerItem: number
  /** Whether the server's time follows the values of the items in the reply. */
  repliesTime: boolean
  /** Whether the script is told that it is sent again, and its items are not sent again one by one. */
  tellsRepetition?: boolean
  /** Arguments between the head and those of the items. `repetition`: see {@link RepeatedRequest}. */
  sharedArgs(list: CommandList, repetition: string): Argument[]
}

/** Sends the items of one turn in one call of a script. */
export class CallBatcher {
  readonly #calls: QueueCalls
  readonly #script: Script
  readonly #options: CallBatcherOptions
  /** The items of this turn, by time limit. */
  readonly #pending = new Map<number, BatchItem[]>()

  constructor(calls: QueueCalls, script: Script, options: CallBatcherOptions) {
    this.#calls = calls
    this.#script = script
    this.#options = options
  }

  add(item: BatchItem, within: number): void {
    const pending = this.#pending.get(within)
    if (pending) return void pending.push(item)
    this.#pending.set(within, [item])
    atEndOfTurn(() => this.#flush(within))
  }

  #flush(within: number): void {
    const { maxItems } = this.#options
    const items = this.#pending.get(within) ?? []
    this.#pending.delete(within)
    for (let from = 0; from < items.length; from += maxItems)
      this.#send(items.slice(from, from + maxItems), within)
  }

  #send(items: readonly BatchItem[], within: number): void {
    const { connection } = this.#calls
    const list = new CommandList()
    const itemArgs: Argument[] = []
    for (const item of items) itemArgs.push(...item.args(item.command ? list.numberOf(item.command) : 0))
    const keys = this.#calls.keysFor(list.commands)
    for (const { key } of items) if (key !== undefined) keys.push(key)
    const { tellsRepetition = false, sharedArgs } = this.#options
    const request = (repetition: string) => {
      const args = this.#calls.argsFor(list.commands)
      args.push(...sharedArgs(list, repetition), ...itemArgs)
      return this.#script.with(keys, args)
    }
    const sentAt = connection.clock.now()
    const onReply = (reply: unknown) => this.#onReply(items, reply as readonly unknown[], sentAt)
    const onError = (error: Error) => {
      // One item, or its reply, is too large for a connection: the others need not fail with it.
      const areLost = error instanceof UnavailableError && error.lostConnections > 0
      const separable = items.length > 1 && areLost && !tellsRepetition
      for (const item of items) {
        if (separable) this.#send([item], within)
        else item.onError(error)
      }
    }
    connection.send(
      tellsRepetition ? new RepeatedRequest(keys[0], connection.clock, request) : request(''),
      within,
      new ReplyCallbacks(onReply, onError, onReply),
    )
  }

  #onReply(items: readonly BatchItem[], reply: readonly unknown[], sentAt: number): void {
    const { valuesPerItem, repliesTime } = this.#options
    if (repliesTime) this.#calls.serverClock.update(Number(reply[items.length * valuesPerItem]), sentAt)
    for (let index = 0; index < items.length; index++) items[index]?.onReply(reply, index * valuesPerItem)
  }
}
