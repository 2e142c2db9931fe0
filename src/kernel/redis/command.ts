import type { Socket } from 'node:net'
import { Command } from 'ioredis'
import { atEndOfTick } from '../time/tick.ts'

/** The commands that requests send. */
export type CommandName = 'evalsha' | 'eval' | 'hget' | 'time' | 'publish'

/** Sends the commands of a request. */
export interface CommandSender {
  /** Sends a command; bulk replies are Buffers. Rejects with the error of the client. */
  send(name: CommandName, args: (string | Buffer | number)[]): Promise<unknown>
}

/** One command or script. */
export interface Request {
  /** Its key: selects the node of a cluster. */
  readonly key?: string | undefined
  /** Sends it once. Rejects with the error of the client. */
  send(sender: CommandSender): Promise<unknown>
}

/** Decides whether a command is written. */
export interface CommandOwner {
  /** Called before each write of `bytes`. Returns whether the command is still wanted. */
  mayWrite(command: OneConnectionCommand, socket: Socket, bytes: number): boolean
}

/** Written in place of a command that is no longer wanted, so that replies stay in step with commands. */
const PLACEHOLDER = '*1\r\n$4\r\nPING\r\n'

/**
 * A command that is written on one connection only. After each reconnection ioredis writes all unanswered commands again,
 * even if no caller waits for them. The owner decides instead, each time that the client is about to write the command.
 */
export class OneConnectionCommand extends Command {
  readonly #owner: CommandOwner
  /** The connection that it was last written on; undefined: not written, or the placeholder was. */
  socket: Socket | undefined

  constructor(
    name: CommandName,
    args: (string | Buffer | number)[],
    keyPrefix: string | undefined,
    owner: CommandOwner,
  ) {
    super(name, args, { replyEncoding: null, keyPrefix: keyPrefix ?? '' })
    this.#owner = owner
  }

  override toWritable(socket: Socket): string | Buffer {
    const bytes = super.toWritable(socket)
    const written = this.#owner.mayWrite(this, socket, bytes.length)
    this.socket = written ? socket : undefined
    corkUntilEndOfTick(socket)
    return written ? bytes : PLACEHOLDER
  }
}

/** Everything that one tick writes to a socket is sent by one system call: one per command costs more than the command. */
function corkUntilEndOfTick(socket: Socket): void {
  if (socket.writableCorked > 0) return
  socket.cork()
  atEndOfTick(() => socket.uncork())
}
