import type { Clock, Timer } from '../time/clock.ts'
import type { RedisClient } from './client.ts'
import type { Server, ServerCall } from './server.ts'

/** A connection with calls but without a reply for this long is destroyed, and the client connects again. */
export const SOCKET_TIMEOUT_MS = 2000

/** A timer that fires this much too late shows that the event loop was blocked. */
const EVENT_LOOP_STALL_MS = 20

/** Destroys the silent connections of an owned client. */
export class SocketWatchdog {
  readonly #client: RedisClient
  readonly #server: Server<ServerCall>
  readonly #clock: Clock
  /** Runs from the first command after an idle time until the server is idle again. */
  #timer: Timer | undefined
  /** Number of connections so far. */
  #connections = 0

  constructor(client: RedisClient, server: Server<ServerCall>, clock: Clock) {
    this.#client = client
    this.#server = server
    this.#clock = clock
    client.on('connect', this.#onConnect)
  }

  readonly #onConnect = (): void => {
    const connection = ++this.#connections
    // The server accepts connections but does not reply. The next attempt may reach another one.
    const check = () => {
      if (connection === this.#connections && this.#client.status === 'connect') this.#client.disconnect(true)
    }
    this.#clock.after(SOCKET_TIMEOUT_MS, check, true)
  }

  /** A command was sent. */
  onSend(): void {
    if (!this.#timer) this.#checkAfter(SOCKET_TIMEOUT_MS)
  }

  #checkAfter(ms: number): void {
    const due = this.#clock.now() + ms
    const check = () => {
      this.#timer = undefined
      if (this.#server.sent.size === 0) return
      const now = this.#clock.now()
      const left = SOCKET_TIMEOUT_MS - this.#server.silentFor(now)
      if (left > 0) return this.#checkAfter(left)
      // After a blocked event loop, replies may lie unread in the socket.
      if (now - due > EVENT_LOOP_STALL_MS) return this.#checkAfter(0)
      this.#server.destroySocket(
        new Error(`Socket timeout: nothing was received for ${SOCKET_TIMEOUT_MS} ms`),
      )
    }
    this.#timer = this.#clock.after(ms, check, true)
  }

  close(): void {
    this.#timer?.cancel()
    this.#client.off('connect', this.#onConnect)
  }
}
