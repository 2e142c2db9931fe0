import type { Socket } from 'node:net'
import { Command } from 'ioredis'
import { atEndOfTick } from '../time/tick.ts'

/** What a request may send. */
export type CommandName = 'evalsha' | 'eval' | 'hget' | 'time' | 'publish'

/** What a request sends its commands by. */
export interface CommandSender {
  /** Sends a command, with replies as Buffers. Rejects with whatever the client rejects with. */
  send(name: CommandName, args: (string | Buffer | number)[]): Promise<unknown>
}

/** What is asked of Redis: one command, or one script. */
export interface Request {
  /** A key that it is about: on a cluster, that tells which node is asked. */
  readonly key?: string | undefined
  /** Sends it once. Rejects with whatever the client rejects with. */
  send(sender: CommandSender): Promise<unknown>
}

/** Decides over a command in the moment in which it is written. */
export interface CommandOwner {
  /** Whether it is still wanted; `bytes` are about to be written. */
  mayWrite(command: OneConnectionCommand, socket: Socket, bytes: number): boolean
}

/** Written in place of a command that is not wanted any more: replies stay in step with commands. */
const PLACEHOLDER = '*1\r\n$4\r\nPING\r\n'

/**
 * A command that asks its owner each time that the client writes it. The client writes unanswered commands again after
 * every reconnection, without end and without knowing who still waits: so that is the owner's affair.
 */
export class OneConnectionCommand extends Command {
  readonly #owner: CommandOwner
  /** Where it was written last; undefined: something else was written in its place. */
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

/** Sends all that is written to a socket in one tick by one system call: one for each command costs more than the command. */
function corkUntilEndOfTick(socket: Socket): void {
  if (socket.writableCorked > 0) return
  socket.cork()
  atEndOfTick(() => socket.uncork())
}
