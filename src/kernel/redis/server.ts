import type { Socket } from 'node:net'
import { TransientSet } from '../collections/churn.ts'
import { CircuitBreaker } from './circuit-breaker.ts'

/**
 * Bytes per ms that a slow link carries at least: half a megabit a second. The operating system takes megabytes off our
 * hands at once, so it cannot be seen how many of them have left: what was written counts as life for so long.
 */
const SLOWEST_LINK_BYTES_PER_MS = 64

/** What waits for a server. */
export interface ServerCall {
  /** It is sent alone. */
  readonly suspect: boolean
  /** Bytes of it that are under way, and somebody waits for. Kept by the server. */
  bytes: number
}

/** What is known of a server by its answers, and what waits for it; of a cluster, one node. */
export class Server<Call extends ServerCall> {
  readonly breaker: CircuitBreaker = new CircuitBreaker()
  /** Sent and unanswered, also when the caller has given up. */
  readonly sent: TransientSet<Call> = new TransientSet()
  /** Calls that wait to be sent. */
  readonly queue: TransientSet<Call> = new TransientSet()
  /** Those among them that are sent alone, and before the others. */
  readonly suspectQueue: TransientSet<Call> = new TransientSet()
  /** One of these is under way. */
  suspectSent = false
  /** Replies so far. */
  replies = 0
  /** A key whose call was refused: what a probe asks for. */
  probeKey = 'soloflight'
  /** A probe goes out later. */
  probeScheduled = false
  /** The times given to calls at the gate for whose end a timer is set, ms. */
  readonly timedWaits: Set<number> = new Set()
  /** When it last showed life: by a reply or a part of one, or by the first command after it was idle. */
  #aliveAt = 0
  /** Bytes that were sent, are not answered, and somebody waits for. */
  #unansweredBytes = 0
  #socket: Socket | undefined
  #bytesRead = 0

  get size(): number {
    return this.sent.size + this.queue.size + this.suspectQueue.size
  }

  /** Where a call waits to be sent. */
  queueOf(call: Call): TransientSet<Call> {
    return call.suspect ? this.suspectQueue : this.queue
  }

  /** A call is written on a connection. */
  onWrite(call: Call, socket: Socket, bytes: number): void {
    if (socket !== this.#socket) {
      this.#socket = socket
      this.#bytesRead = socket.bytesRead
    }
    this.#unansweredBytes += bytes - call.bytes
    call.bytes = bytes
  }

  /** Nobody waits for a call any more, or it is answered. */
  onUnwanted(call: Call): void {
    this.#unansweredBytes -= call.bytes
    call.bytes = 0
  }

  markAlive(now: number): void {
    this.#aliveAt = now
    this.#bytesRead = this.#socket?.bytesRead ?? 0
  }

  /** For how long there has been no sign of life, ms, beyond the time that a slow link takes for what was sent. */
  silentFor(now: number): number {
    if (this.#socket && this.#socket.bytesRead !== this.#bytesRead) this.markAlive(now)
    return now - this.#aliveAt - this.#unansweredBytes / SLOWEST_LINK_BYTES_PER_MS
  }

  /** When the silence began. */
  get silentSince(): number {
    return this.#aliveAt
  }

  /** Ends the connection; the client makes another. */
  destroySocket(reason: Error): void {
    this.#socket?.destroy(reason)
  }
}
