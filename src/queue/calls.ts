import type { Connection } from '../kernel/connection.ts'
import type { Script } from '../kernel/script.ts'
import { inNames, type QueueNames } from './names.ts'

export type Argument = string | Buffer

/** The commands that one script call is about, numbered from 1 as the script numbers them. */
export class CommandList {
  readonly names: string[] = []
  readonly #numbers = new Map<string, number>()

  /** The number of a command, by its name as it stands in names. */
  number(name: string): number {
    const known = this.#numbers.get(name)
    if (known !== undefined) return known
    const number = this.names.push(name)
    this.#numbers.set(name, number)
    return number
  }
}

/** Puts together what every script of a queue is given first, and calls it. */
export class QueueCalls {
  readonly connection: Connection
  readonly names: QueueNames
  readonly #channels: string
  readonly #accept: number
  /** Names of commands as they stand in names: a digest each time would cost. */
  readonly #known = new Map<string, string>()
  /** The highest fence that this process was told of by a reply. */
  #highestFence = 0

  constructor(connection: Connection, names: QueueNames, accept: number) {
    this.connection = connection
    this.names = names
    this.#accept = accept
    this.#channels = connection.inboxChannel.slice(0, -connection.inbox.id.length)
  }

  /** A fence that a delivery named: the next is above it, even if the server has lost the record and its clock. */
  saw(fence: number): void {
    if (Number.isSafeInteger(fence) && fence > this.#highestFence) this.#highestFence = fence
  }

  inNames(command: string): string {
    const known = this.#known.get(command)
    if (known !== undefined) return known
    const name = inNames(command)
    if (this.#known.size < MAX_KNOWN) this.#known.set(command, name)
    return name
  }

  keys(commands: readonly string[], rest: readonly string[]): string[] {
    return [...this.names.shared, ...commands.flatMap((name) => this.names.command(name)), ...rest]
  }

  args(commands: readonly string[], rest: readonly Argument[]): Argument[] {
    const { cluster } = this.connection
    const head = [this.#channels, cluster ? '1' : '0', `${this.#accept}`, `${this.#highestFence}`]
    return [...head, `${commands.length}`, ...commands, ...rest]
  }

  /** Calls a script about some commands, by their names in names, and some further keys. */
  async call(
    script: Script,
    commands: readonly string[],
    keys: readonly string[],
    args: readonly Argument[],
    within: number,
  ): Promise<unknown> {
    const request = script.with(this.keys(commands, keys), this.args(commands, args))
    return this.connection.call(request, within)
  }
}

/** Names of commands that are remembered: the digest of an unusual one is not that dear. */
const MAX_KNOWN = 1000
