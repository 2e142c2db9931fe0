import type { Script } from '../../../kernel/redis/call.ts'
import type { Connection } from '../../../kernel/redis/connection.ts'
import { FenceWatermark, ServerClock } from '../../../kernel/redis/server.ts'
import { keySegment, type QueueKeys } from './queue-keys.ts'

export type Argument = string | Buffer

/** A command, as scripts are told of it. */
export interface CommandKeys {
  readonly name: string
  /** As it stands in names. */
  readonly segment: string
  readonly keysFor: readonly string[]
}

/** The commands that one script call is about, numbered from 1 as the script numbers them, and how often each is meant. */
export class CommandList {
  readonly commands: CommandKeys[] = []
  readonly counts: number[] = []

  /** The number of a command, which is meant once more. */
  numberOf(command: CommandKeys): number {
    const known = this.commands.indexOf(command)
    const index = known === -1 ? this.commands.push(command) - 1 : known
    this.counts[index] = (this.counts[index] ?? 0) + 1
    return index + 1
  }
}

/** Names of commands that are remembered: to make those of an unusual one is not that dear. */
const MAX_CACHED_COMMANDS = 1000

/** Puts together what every script of a queue is given first, and calls it. */
export class QueueCalls {
  readonly connection: Connection
  readonly queueKeys: QueueKeys
  readonly #head: readonly string[]
  readonly #known = new Map<string, CommandKeys>()
  /** What time it is at the server, as its replies tell. */
  readonly serverClock: ServerClock
  /** Fences that deliveries named. */
  readonly fenceWatermark: FenceWatermark

  constructor(connection: Connection, names: QueueKeys, accept: number) {
    this.connection = connection
    this.queueKeys = names
    this.serverClock = new ServerClock(connection.clock)
    this.fenceWatermark = new FenceWatermark(this.serverClock)
    const channels = connection.inboxChannel.slice(0, -connection.inbox.id.length)
    this.#head = [channels, connection.cluster ? '1' : '0', `${accept}`]
  }

  /** A command by its real name. */
  command(real: string): CommandKeys {
    const known = this.#known.get(real)
    if (known) return known
    const command = this.#make(real, keySegment(real))
    if (this.#known.size < MAX_CACHED_COMMANDS) this.#known.set(real, command)
    return command
  }

  /** A command by its name as it stands in names: what it is called otherwise is not known. */
  commandOfSegment(name: string): CommandKeys {
    return this.#make(name, name)
  }

  #make(real: string, name: string): CommandKeys {
    return { name: real, segment: name, keysFor: this.queueKeys.command(name) }
  }

  keys(commands: readonly CommandKeys[]): string[] {
    const keys = [...this.queueKeys.shared]
    for (const command of commands) keys.push(...command.keysFor)
    return keys
  }

  argsFor(commands: readonly CommandKeys[]): Argument[] {
    const args: Argument[] = [...this.#head, `${this.fenceWatermark.highest}`, `${commands.length}`]
    for (const command of commands) args.push(command.segment)
    return args
  }

  /** Calls a script about some commands, and some further keys. */
  call(
    script: Script,
    commands: readonly CommandKeys[],
    keys: readonly string[],
    args: readonly Argument[],
    within: number,
  ): Promise<unknown> {
    const request = script.with([...this.keys(commands), ...keys], [...this.argsFor(commands), ...args])
    return this.connection.call(request, within)
  }
}
