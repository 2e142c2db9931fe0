import type { Socket } from 'node:net'
import { ChurnSet } from '../collections/churn.ts'
import { Breaker } from './circuit-breaker.ts'

/**
 * Bytes per ms that a slow link carries at least: half a megabit a second. The operating system takes megabytes off our
 * hands at once, so it cannot be seen how many of them have left: what was written counts as life for so long.
 */
const SLOWEST_LINK = 64

/** What waits for a server. */
export interface Queued {
  /** It is sent alone. */
  readonly suspect: boolean
  /** Bytes of it that are under way, and somebody waits for. Kept by the server. */
  bytes: number
}

/** What is known of a server by its answers, and what waits for it; of a cluster, one node. */
export class Server<Call extends Queued> {
  readonly breaker: Breaker = new Breaker()
  /** Sent and unanswered, also when the caller has given up. */
  readonly sent: ChurnSet<Call> = new ChurnSet()
  /** Calls that wait to be sent. */
  readonly gate: ChurnSet<Call> = new ChurnSet()
  /** Those among them that are sent alone, and before the others. */
  readonly suspects: ChurnSet<Call> = new ChurnSet()
  /** One of these is under way. */
  alone = false
  /** Replies so far. */
  answers = 0
  /** A key whose call was refused: what a probe asks for. */
  key = 'soloflight'
  /** A probe goes out later. */
  probesLater = false
  /** The times given to calls at the gate for whose end a timer is set, ms. */
  readonly timed: Set<number> = new Set()
  /** When it last showed life: by a reply or a part of one, or by the first command after it was idle. */
  #lifeAt = 0
  /** Bytes that were sent, are not answered, and somebody waits for. */
  #bytes = 0
  #socket: Socket | undefined
  #bytesRead = 0

  get size(): number {
    return this.sent.size + this.gate.size + this.suspects.size
  }

  /** Where a call waits to be sent. */
  gateOf(call: Call): ChurnSet<Call> {
    return call.suspect ? this.suspects : this.gate
  }

  /** A call is written on a connection. */
  writing(call: Call, socket: Socket, bytes: number): void {
    if (socket !== this.#socket) {
      this.#socket = socket
      this.#bytesRead = socket.bytesRead
    }
    this.#bytes += bytes - call.bytes
    call.bytes = bytes
  }

  /** Nobody waits for a call any more, or it is answered. */
  unawaited(call: Call): void {
    this.#bytes -= call.bytes
    call.bytes = 0
  }

  alive(now: number): void {
    this.#lifeAt = now
    this.#bytesRead = this.#socket?.bytesRead ?? 0
  }

  /** For how long there has been no sign of life, ms, beyond the time that a slow link takes for what was sent. */
  silence(now: number): number {
    if (this.#socket && this.#socket.bytesRead !== this.#bytesRead) this.alive(now)
    return now - this.#lifeAt - this.#bytes / SLOWEST_LINK
  }

  /** When the silence began. */
  get silentSince(): number {
    return this.#lifeAt
  }

  /** Ends the connection; the client makes another. */
  cut(reason: Error): void {
    this.#socket?.destroy(reason)
  }
}
