import type { Socket } from 'node:net'
import { TransientSet } from '../collections/churn.ts'
import type { Timer } from '../time/clock.ts'
import { CircuitBreaker } from './circuit-breaker.ts'

/**
 * A slow link carries at least half a megabit per second. The operating system buffers megabytes, so it is not visible how
 * much has been sent. The server is not silent while this rate explains the missing reply.
 */
const SLOWEST_LINK_BYTES_PER_MS = 64

/** A call as a server sees it. */
export interface ServerCall {
  /** It must be sent alone. */
  readonly suspect: boolean
  /** ms */
  readonly timeout: number
  /** Its last attempt got no reply. */
  readonly unanswered: boolean
  /** Bytes of it that await a reply. Written by the server. */
  bytes: number
}

/** A Redis server, or one node of a cluster: its calls, and its health as its replies show it. */
export class Server<Call extends ServerCall> {
  readonly breaker: CircuitBreaker = new CircuitBreaker()
  /** Calls that were sent and have no reply, including those that have timed out. */
  readonly sent: TransientSet<Call> = new TransientSet()
  /** Calls that wait to be sent. */
  readonly queue: TransientSet<Call> = new TransientSet()
  /** Suspect calls that wait to be sent: alone, and before the others. */
  readonly suspectQueue: TransientSet<Call> = new TransientSet()
  /** Number of replies. */
  replies = 0
  /** The key that a probe reads: that of the last call that failed. */
  probeKey = 'soloflight'
  /** The timer of the next probe, if one is scheduled. */
  probeTimer: Timer | undefined
  /** Timeouts of queued calls, ms, for which a timer is set. */
  readonly timedWaits: Set<number> = new Set()
  /** When a reply, or a part of one, last arrived, or the first command after an idle time was sent. */
  #aliveAt = 0
  /** Bytes that were sent and await a reply. */
  #unansweredBytes = 0
  /** The suspect call that was sent alone, until it ends. */
  #soleCall: Call | undefined
  #socket: Socket | undefined
  #bytesRead = 0

  get size(): number {
    return this.sent.size + this.queue.size + this.suspectQueue.size
  }

  /** The queue for a call. */
  queueOf(call: Call): TransientSet<Call> {
    return call.suspect ? this.suspectQueue : this.queue
  }

  /** Whether no call at all may be sent. */
  get blocked(): boolean {
    return this.breaker.state.kind !== 'closed' || this.#soleCall !== undefined
  }

  /** Whether a call may be sent now, if the client is ready. */
  maySend(call: Call, now: number): boolean {
    if (this.blocked) return false
    if (call.suspect) return this.sent.size === 0
    if (this.suspectQueue.size > 0) return false
    // A server that has been silent for that long would not reply in time: the call waits in the queue.
    return this.sent.size === 0 || this.silentFor(now) < call.timeout
  }

  /** An attempt of a call begins. */
  onSend(call: Call, now: number): void {
    // A retry after silence does not end the silence.
    if (this.sent.size === 0 && !call.unanswered) this.markAlive(now)
    this.sent.add(call)
    this.#soleCall = call.suspect ? call : undefined
  }

  /** An attempt of a call has ended. */
  onAttemptEnded(call: Call): void {
    this.sent.delete(call)
    if (this.sent.size === 0) this.#soleCall = undefined
    this.onUnwanted(call)
  }

  /** A command of a call is about to be written. */
  onWrite(call: Call, socket: Socket, bytes: number): void {
    if (socket !== this.#socket) {
      this.#socket = socket
      this.#bytesRead = socket.bytesRead
    }
    this.#unansweredBytes += bytes - call.bytes
    call.bytes = bytes
  }

  /** A call has a reply, or has timed out. */
  onUnwanted(call: Call): void {
    this.#unansweredBytes -= call.bytes
    call.bytes = 0
  }

  markAlive(now: number): void {
    this.#aliveAt = now
    this.#bytesRead = this.#socket?.bytesRead ?? 0
  }

  /** How long the server has been silent, ms, beyond the time that a slow link needs for the bytes sent. */
  silentFor(now: number): number {
    if (this.#socket && this.#socket.bytesRead !== this.#bytesRead) this.markAlive(now)
    return now - this.#aliveAt - this.#unansweredBytes / SLOWEST_LINK_BYTES_PER_MS
  }

  /** When the server last showed a sign of life. */
  get silentSince(): number {
    return this.#aliveAt
  }

  /** Ends the connection. The client creates another. */
  destroySocket(reason: Error): void {
    this.#socket?.destroy(reason)
  }
}
