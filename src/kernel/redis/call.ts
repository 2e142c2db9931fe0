import { createHash } from 'node:crypto'
import type { Socket } from 'node:net'
import { Command } from 'ioredis'
import { messageOf } from '../codec/codec.ts'
import { assertTransition, type Transitions } from '../collections.ts'
import { atEndOfTurn, type Pending } from '../time.ts'
import type { Server, ServerCall } from './server.ts'

/** The commands that requests send. */
export type CommandName = 'evalsha' | 'eval' | 'hget' | 'time' | 'publish'

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
    const bytes = encodeCommand(this.name, this.args as readonly (string | Buffer)[])
    const written = this.#owner.mayWrite(this, socket, bytes.length)
    this.socket = written ? socket : undefined
    corkUntilEndOfTurn(socket)
    return written ? bytes : PLACEHOLDER
  }
}

/** A command in the protocol of Redis. ioredis writes each part by a call of its own, which takes twice as long. */
function encodeCommand(name: string, args: readonly (string | Buffer)[]): string | Buffer {
  const parts: (string | Buffer)[] = []
  let length = 0
  let text = `*${args.length + 1}\r\n$${name.length}\r\n${name}\r\n`
  for (const arg of args) {
    if (typeof arg === 'string') {
      text += `$${Buffer.byteLength(arg)}\r\n${arg}\r\n`
    } else {
      text += `$${arg.length}\r\n`
      parts.push(text, arg)
      length += Buffer.byteLength(text) + arg.length
      text = '\r\n'
    }
  }
  if (parts.length === 0) return text
  parts.push(text)
  const bytes = Buffer.allocUnsafe(length + Buffer.byteLength(text))
  let at = 0
  for (const part of parts) at += typeof part === 'string' ? bytes.write(part, at) : part.copy(bytes, at)
  return bytes
}

/** Everything that one turn writes to a socket is sent by one system call: one per command costs more than the command. */
function corkUntilEndOfTurn(socket: Socket): void {
  if (socket.writableCorked > 0) return
  socket.cork()
  atEndOfTurn(() => socket.uncork())
}

type Argument = string | Buffer
type ScriptArguments = readonly Argument[] | (() => readonly Argument[])

/** Lua: `us` (µs) and `now` (ms) since the epoch, by the clock of the server. */
export const SERVER_CLOCK = `
local time = redis.call('TIME')
local us = time[1] * 1000000 + time[2]
local now = math.floor(us / 1000)`

/** A Lua script, which the server runs atomically. It is sent by its digest, and as text if the server does not have it. */
export class Script {
  readonly source: string
  readonly sha1: string

  constructor(source: string) {
    this.source = source
    this.sha1 = createHash('sha1').update(source).digest('hex')
  }

  /**
   * Creates a request that runs it once. Bulk replies are Buffers. `args`: a function is called each time that the script is sent:
   * again, as text or after a reconnection, it comes behind later calls, which may have changed what is to be said.
   */
  with(keys: readonly string[], args: ScriptArguments): Request {
    return new ScriptRequest(this, keys, args)
  }
}

/** One run of a script. A class instead of a literal: see collections.ts. */
class ScriptRequest implements Request {
  readonly #script: Script
  readonly #keys: readonly string[]
  readonly #args: ScriptArguments

  constructor(script: Script, keys: readonly string[], args: ScriptArguments) {
    this.#script = script
    this.#keys = keys
    this.#args = args
  }

  get key(): string | undefined {
    return this.#keys[0]
  }

  send(sender: CommandSender): Promise<unknown> {
    const { sha1, source } = this.#script
    const keys = this.#keys
    const args = this.#args
    const read = () => (typeof args === 'function' ? args() : args)
    return sender.send('evalsha', [sha1, keys.length, ...keys, ...read()]).catch((error) => {
      // Never loaded, or lost to SCRIPT FLUSH, a restart or a failover. The script has not run.
      if (!messageOf(error).startsWith('NOSCRIPT')) throw error
      return sender.send('eval', [source, keys.length, ...keys, ...read()])
    })
  }
}

/** Receives the outcome of a call: exactly one of `onReply` and `onError` is called, once. */
export interface ReplyHandler {
  onReply(reply: unknown): void
  /** `error` is an UnavailableError, OverloadedError or ClosedError. */
  onError(error: Error): void
  /** Called once if the reply arrives after `onError`: the command has taken effect. */
  onLateReply?: ((reply: unknown) => void) | undefined
}

/** A handler of three functions. A class instead of a literal: see collections.ts. */
export class ReplyCallbacks implements ReplyHandler {
  readonly onReply: (reply: unknown) => void
  readonly onError: (error: Error) => void
  readonly onLateReply: ((reply: unknown) => void) | undefined

  constructor(
    onReply: (reply: unknown) => void,
    onError: (error: Error) => void,
    onLateReply?: (reply: unknown) => void,
  ) {
    this.onReply = onReply
    this.onError = onError
    this.onLateReply = onLateReply
  }
}

/** Sends calls and handles their events. */
export interface CallHost {
  /** The request of the call sends a command. */
  dispatch(call: Call, name: CommandName, args: (string | Buffer | number)[]): Promise<unknown>
  onDeadline(call: Call): void
  /** The connection that the call was sent on has ended. */
  onConnectionLost(call: Call): void
}

/** Delay before a call that failed with a transient error is sent again: doubles with each attempt, up to the maximum. */
const MIN_RETRY_DELAY_MS = 20
const MAX_RETRY_DELAY_MS = 320

/** A call is suspect after it was on this many connections that ended: it may be the cause, so it is sent alone. */
const SUSPECT_AFTER = 2

export type CallState = 'queued' | 'sent' | 'pausing' | 'abandoned' | 'closed'

export const CALL_TRANSITIONS: Transitions<CallState> = {
  queued: ['sent', 'pausing', 'closed'],
  sent: ['queued', 'abandoned', 'closed'],
  pausing: ['queued', 'closed'],
  abandoned: ['closed'],
  closed: [],
}

/**
 * One request, from {@link CommandGate.send} to its last possible reply.
 *
 * queued     waits to be sent: new, or between two attempts
 * sent       a command awaits its reply
 * pausing    waits for the next attempt after a transient error
 * abandoned  the handler was called with an error, but a command still awaits its reply
 * closed     the handler was called, and no command awaits a reply
 *
 * | event                                  | queued  | sent              | pausing | abandoned           |
 * | -------------------------------------- | ------- | ----------------- | ------- | ------------------- |
 * | start: an attempt is sent              | sent    |                   |         |                     |
 * | deliver: a reply                       |         | closed: `onReply` |         | closed: `onLateReply` |
 * | endAttempt: error, or connection lost  |         | queued            |         | closed              |
 * | pause: the error is transient          | pausing |                   |         |                     |
 * | resume: the delay is over              |         |                   | queued  |                     |
 * | fail: `onError`                        | closed  | abandoned         | closed  |                     |
 *
 * A probe is a call without a handler: it is sent once, and any end of its attempt closes it.
 */
export class Call implements Pending, ServerCall, CommandOwner, CommandSender {
  deadline = 0
  #state: CallState = 'queued'
  /** The last attempt got no reply, or only the reply of a server that serves no command at present. */
  unanswered = false
  /** The transient error of the last attempt. */
  lastError: unknown
  /** Number of attempts. Outcomes of earlier attempts are ignored. */
  attempt = 0
  /** Connections that ended while a command of it awaited its reply. */
  lostConnections = 0
  /** Bytes of the command that awaits its reply. Written by {@link Server}. */
  bytes = 0
  /** Bytes of the largest command that was sent for it. */
  largestCommand = 0
  command: OneConnectionCommand | undefined
  server: Server<Call>
  readonly request: Request
  readonly timeout: number
  readonly #handler: ReplyHandler | undefined
  readonly #host: CallHost
  #retryDelay = MIN_RETRY_DELAY_MS

  constructor(
    request: Request,
    timeout: number,
    handler: ReplyHandler | undefined,
    server: Server<Call>,
    host: CallHost,
  ) {
    this.request = request
    this.timeout = timeout
    this.#handler = handler
    this.server = server
    this.#host = host
  }

  get state(): CallState {
    return this.#state
  }

  /** Whether the handler is still to be called. */
  get awaited(): boolean {
    return this.#state !== 'abandoned' && this.#state !== 'closed'
  }

  /** Whether it may be what ends connections: no other call is sent with it. */
  get suspect(): boolean {
    return this.lostConnections >= SUSPECT_AFTER
  }

  /** Returns the number of the attempt. */
  start(): number {
    this.#moveTo('sent')
    return ++this.attempt
  }

  deliver(reply: unknown): void {
    const late = this.#state === 'abandoned'
    this.#moveTo('closed')
    if (late) this.#handler?.onLateReply?.(reply)
    else this.#handler?.onReply(reply)
  }

  endAttempt(): void {
    this.#moveTo(this.#state === 'sent' && this.#handler ? 'queued' : 'closed')
  }

  /** Returns the delay, ms. It doubles with each pause. */
  pause(): number {
    this.#moveTo('pausing')
    const delay = this.#retryDelay
    this.#retryDelay = Math.min(delay * 2, MAX_RETRY_DELAY_MS)
    return delay
  }

  resume(): void {
    this.#moveTo('queued')
  }

  fail(error: Error): void {
    this.#moveTo(this.#state === 'sent' ? 'abandoned' : 'closed')
    this.#handler?.onError(error)
  }

  #moveTo(state: CallState): void {
    assertTransition('call', CALL_TRANSITIONS, this.#state, state)
    this.#state = state
  }

  expire(): void {
    this.#host.onDeadline(this)
  }

  send(name: CommandName, args: (string | Buffer | number)[]): Promise<unknown> {
    return this.#host.dispatch(this, name, args)
  }

  /** The delay of the next pause, ms. */
  get retryDelay(): number {
    return this.#retryDelay
  }

  mayWrite(command: OneConnectionCommand, socket: Socket, bytes: number): boolean {
    if (this.#state !== 'sent' || command !== this.command) return false
    if (command.socket?.destroyed) {
      // A cluster client sends commands again, to any node.
      this.#host.onConnectionLost(this)
      return false
    }
    this.server.onWrite(this, socket, bytes)
    this.largestCommand = Math.max(this.largestCommand, bytes)
    return true
  }
}
