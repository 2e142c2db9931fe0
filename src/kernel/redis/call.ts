import type { Socket } from 'node:net'
import type { Pending } from '../time/deadlines.ts'
import type { CommandName, CommandOwner, CommandSender, OneConnectionCommand, Request } from './command.ts'
import type { Server, ServerCall } from './server.ts'

/** Receives the outcome of a call: exactly one of `onReply` and `onError` is called, once. */
export interface ReplyHandler {
  onReply(reply: unknown): void
  /** `error` is an UnavailableError, OverloadedError or ClosedError. */
  onError(error: Error): void
  /** Called once if the reply arrives after `onError`: the command has taken effect. */
  onLateReply?: ((reply: unknown) => void) | undefined
}

/** A handler of three functions. A class instead of a literal: see churn.ts. */
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
  /** The deadline of the call has passed. */
  onDeadline(call: Call): void
  /** The connection that the call was sent on has ended. */
  onConnectionLost(call: Call): void
}

/** Delay before a call that failed with a transient error is sent again: doubles with each attempt, up to the maximum. */
const MIN_RETRY_DELAY_MS = 20
const MAX_RETRY_DELAY_MS = 320

/** A call is suspect after it was on this many connections that ended: it may be the cause, so it is sent alone. */
const SUSPECT_AFTER = 2

/** One request and its attempts: queued, sent, or waiting to be retried. */
export class Call implements Pending, ServerCall, CommandOwner, CommandSender {
  deadline = 0
  /** A command of it awaits its reply. */
  sent = false
  /** The handler was called. */
  notified = false
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
  /** The command of the present attempt. */
  command: OneConnectionCommand | undefined
  server: Server<Call>
  readonly request: Request
  readonly handler: ReplyHandler
  readonly timeout: number
  readonly #host: CallHost
  #retryDelay = MIN_RETRY_DELAY_MS

  constructor(
    request: Request,
    timeout: number,
    handler: ReplyHandler,
    server: Server<Call>,
    host: CallHost,
  ) {
    this.request = request
    this.timeout = timeout
    this.handler = handler
    this.server = server
    this.#host = host
  }

  /** Whether it may be what ends connections: no other call is sent with it. */
  get suspect(): boolean {
    return this.lostConnections >= SUSPECT_AFTER
  }

  expire(): void {
    this.#host.onDeadline(this)
  }

  send(name: CommandName, args: (string | Buffer | number)[]): Promise<unknown> {
    return this.#host.dispatch(this, name, args)
  }

  /** Returns the delay before the next attempt, ms, and doubles it. */
  nextRetryDelay(): number {
    const retryDelay = this.#retryDelay
    this.#retryDelay = Math.min(retryDelay * 2, MAX_RETRY_DELAY_MS)
    return retryDelay
  }

  get pause(): number {
    return this.#retryDelay
  }

  mayWrite(command: OneConnectionCommand, socket: Socket, bytes: number): boolean {
    if (this.notified || command !== this.command) return false
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
