import type { Socket } from 'node:net'
import type { Pending } from '../time/deadlines.ts'
import type { CommandName, CommandOwner, CommandSender, OneConnectionCommand, Request } from './command.ts'
import type { Queued, Server } from './server.ts'

/** Who asks, and is called back. */
export interface Asker {
  answered(reply: unknown): void
  /** With UnavailableError, OverloadedError or ClosedError. */
  failed(error: Error): void
  /** With a reply that came after `failed`: what it did still stands. */
  late?: ((reply: unknown) => void) | undefined
}

/** An asker of functions. Made by a constructor: see churn.ts. */
export class Callbacks implements Asker {
  readonly answered: (reply: unknown) => void
  readonly failed: (error: Error) => void
  readonly late: ((reply: unknown) => void) | undefined

  constructor(
    answered: (reply: unknown) => void,
    failed: (error: Error) => void,
    late?: (reply: unknown) => void,
  ) {
    this.answered = answered
    this.failed = failed
    this.late = late
  }
}

/** What a call tells the one that sends it. */
export interface CallHost {
  /** It sends a command. */
  dispatch(call: Call, name: CommandName, args: (string | Buffer | number)[]): Promise<unknown>
  /** Its time is over. */
  expired(call: Call): void
  /** The connection that it was sent on has ended. */
  lost(call: Call): void
}

/** Pause before a passing refusal is tried again, ms; doubles up to the last. */
const RETRY_FIRST = 20
const RETRY_LAST = 320

/** A call that was on so many connections that ended is sent alone, so that what ends them is found. */
const ALONE_AFTER = 2

/** One request on its way: at the gate, sent, or pausing before it is sent again. */
export class Call implements Pending, Queued, CommandOwner, CommandSender {
  deadline = 0
  /** On its way, and not refused yet. */
  sent = false
  /** Answered, failed or expired: the asker has been told. */
  told = false
  /** Nobody has answered it since it was sent last, or only that nothing is answered now. */
  silent = false
  /** Why it is sent again. */
  refusal: unknown
  /** Counts how often it was sent: what comes of an earlier time is ignored. */
  attempt = 0
  /** Connections that ended before it was answered. */
  losses = 0
  /** Bytes that are under way, and somebody waits for. */
  bytes = 0
  /** Bytes of the largest command that it was sent as. */
  size = 0
  /** The command under way. */
  command: OneConnectionCommand | undefined
  server: Server<Call>
  readonly request: Request
  readonly asker: Asker
  readonly within: number
  readonly #host: CallHost
  #pause = RETRY_FIRST

  constructor(request: Request, within: number, asker: Asker, server: Server<Call>, host: CallHost) {
    this.request = request
    this.within = within
    this.asker = asker
    this.server = server
    this.#host = host
  }

  /** It may be what ends connections: nothing else is sent beside it. */
  get suspect(): boolean {
    return this.losses >= ALONE_AFTER
  }

  expire(): void {
    this.#host.expired(this)
  }

  send(name: CommandName, args: (string | Buffer | number)[]): Promise<unknown> {
    return this.#host.dispatch(this, name, args)
  }

  /** How long to pause before it is sent again, ms. */
  nextPause(): number {
    const pause = this.#pause
    this.#pause = Math.min(pause * 2, RETRY_LAST)
    return pause
  }

  get pause(): number {
    return this.#pause
  }

  writes(command: OneConnectionCommand, socket: Socket, bytes: number): boolean {
    if (this.told || command !== this.command) return false
    if (command.socket?.destroyed) {
      // The client of a cluster sends it again, to whatever node.
      this.#host.lost(this)
      return false
    }
    this.server.writing(this, socket, bytes)
    this.size = Math.max(this.size, bytes)
    return true
  }
}
