import type { Socket } from 'node:net'
import type { Pending } from '../time/deadlines.ts'
import type { CommandName, CommandOwner, CommandSender, OneConnectionCommand, Request } from './command.ts'
import type { Server, ServerCall } from './server.ts'

/** Who asks, and is called back. */
export interface ReplyHandler {
  onReply(reply: unknown): void
  /** With UnavailableError, OverloadedError or ClosedError. */
  onError(error: Error): void
  /** With a reply that came after `failed`: what it did still stands. */
  onLateReply?: ((reply: unknown) => void) | undefined
}

/** An asker of functions. Made by a constructor: see churn.ts. */
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

/** What a call tells the one that sends it. */
export interface CallHost {
  /** It sends a command. */
  dispatch(call: Call, name: CommandName, args: (string | Buffer | number)[]): Promise<unknown>
  /** Its time is over. */
  onDeadline(call: Call): void
  /** The connection that it was sent on has ended. */
  onConnectionLost(call: Call): void
}

/** Pause before a passing refusal is tried again, ms; doubles up to the last. */
const MIN_RETRY_DELAY_MS = 20
const MAX_RETRY_DELAY_MS = 320

/** A call that was on so many connections that ended is sent alone, so that what ends them is found. */
const SUSPECT_AFTER = 2

/** One request on its way: at the gate, sent, or pausing before it is sent again. */
export class Call implements Pending, ServerCall, CommandOwner, CommandSender {
  deadline = 0
  /** On its way, and not refused yet. */
  sent = false
  /** Answered, failed or expired: the asker has been told. */
  notified = false
  /** Nobody has answered it since it was sent last, or only that nothing is answered now. */
  unanswered = false
  /** Why it is sent again. */
  lastError: unknown
  /** Counts how often it was sent: what comes of an earlier time is ignored. */
  attempt = 0
  /** Connections that ended before it was answered. */
  lostConnections = 0
  /** Bytes that are under way, and somebody waits for. */
  bytes = 0
  /** Bytes of the largest command that it was sent as. */
  largestCommand = 0
  /** The command under way. */
  command: OneConnectionCommand | undefined
  server: Server<Call>
  readonly request: Request
  readonly handler: ReplyHandler
  readonly timeout: number
  readonly #host: CallHost
  #retryDelay = MIN_RETRY_DELAY_MS

  constructor(request: Request, within: number, asker: ReplyHandler, server: Server<Call>, host: CallHost) {
    this.request = request
    this.timeout = within
    this.handler = asker
    this.server = server
    this.#host = host
  }

  /** It may be what ends connections: nothing else is sent beside it. */
  get suspect(): boolean {
    return this.lostConnections >= SUSPECT_AFTER
  }

  expire(): void {
    this.#host.onDeadline(this)
  }

  send(name: CommandName, args: (string | Buffer | number)[]): Promise<unknown> {
    return this.#host.dispatch(this, name, args)
  }

  /** How long to pause before it is sent again, ms. */
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
      // The client of a cluster sends it again, to whatever node.
      this.#host.onConnectionLost(this)
      return false
    }
    this.server.onWrite(this, socket, bytes)
    this.largestCommand = Math.max(this.largestCommand, bytes)
    return true
  }
}
