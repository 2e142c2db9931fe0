import type { Socket } from 'node:net'
import { TransientSet } from '../collections.ts'
import { type Clock, EVENT_LOOP_STALL_MS, type Timer } from '../time.ts'
import { isCluster, type RedisClient, type RedisClusterClient, slotOf } from './client.ts'

/**
 * closed     Calls are sent. `silentSince`: the connection is lost, but no call has timed out yet: calls are queued.
 * open       A call has timed out without a reply since `since`: further calls fail immediately.
 * half-open  A probe was sent and decides. `since`: as before, or the time at which the connection was restored.
 *
 * | event          | closed         | open      | half-open |
 * | -------------- | -------------- | --------- | --------- |
 * | onDisconnected | closed, silent | open      | open      |
 * | onUnavailable  | open           | open      | open      |
 * | onConnected    | closed         | half-open | half-open |
 * | onProbe        | -              | half-open | -         |
 * | onReply        | closed         | closed    | closed    |
 */
export type BreakerState =
  | { readonly kind: 'closed'; readonly silentSince: number | undefined }
  | { readonly kind: 'open'; readonly since: number }
  | { readonly kind: 'half-open'; readonly since: number }

const CLOSED: BreakerState = { kind: 'closed', silentSince: undefined }

/**
 * The circuit breaker of one server. The timeout of a call counts from the beginning of the outage, so that later calls fail
 * immediately. Times are by the clock, ms.
 */
export class CircuitBreaker {
  #state: BreakerState = CLOSED

  get state(): BreakerState {
    return this.#state
  }

  onDisconnected(now: number): void {
    const state = this.#state
    if (state.kind === 'half-open') this.#state = { kind: 'open', since: state.since }
    else if (state.kind === 'closed' && state.silentSince === undefined)
      this.#state = { kind: 'closed', silentSince: now }
  }

  /** A call or the probe has failed: the server has not replied since `since`. */
  onUnavailable(since: number): void {
    const state = this.#state
    if (state.kind === 'closed') this.#state = { kind: 'open', since: state.silentSince ?? since }
    else if (state.kind === 'half-open') this.#state = { kind: 'open', since: state.since }
  }

  /** The connection is restored: calls wait for the probe. */
  onConnected(now: number): void {
    this.#state = this.#state.kind === 'closed' ? CLOSED : { kind: 'half-open', since: now }
  }

  /** A probe is sent on the present connection. Calls fail until it is answered. */
  onProbe(): void {
    if (this.#state.kind === 'open') this.#state = { kind: 'half-open', since: this.#state.since }
  }

  onReply(): void {
    if (this.#state !== CLOSED) this.#state = CLOSED
  }

  /** How long a call with this timeout may still wait, ms; Infinity: there is no outage. */
  remainingWait(timeout: number, now: number): number {
    const state = this.#state
    const since = state.kind === 'closed' ? state.silentSince : state.since
    return since === undefined ? Number.POSITIVE_INFINITY : Math.max(0, since + timeout - now)
  }
}

/**
 * A slow link carries at least half a megabit per second. The operating system buffers megabytes, so it is not visible how
 * much has been sent. The server is not silent while this rate explains the missing reply.
 */
const SLOWEST_LINK_BYTES_PER_MS = 64

export interface ServerCall {
  /** It must be sent alone. */
  readonly suspect: boolean
  readonly timeout: number
  /** Its last attempt got no reply. */
  readonly unanswered: boolean
  /** Bytes of it that await a reply. Written by the server. */
  bytes: number
}

/** A watched connection with calls but without a reply for this long is destroyed. The client connects again. */
export const SOCKET_TIMEOUT_MS = 2000

/** A Redis server, or one node of a cluster: its calls, and its health as its replies show it. */
export class Server<Call extends ServerCall> {
  readonly #clock: Clock
  /** Whether silent connections are destroyed. */
  readonly #watched: boolean
  readonly breaker: CircuitBreaker = new CircuitBreaker()
  /** Calls that were sent and have no reply, including those that have timed out. */
  readonly sent: TransientSet<Call> = new TransientSet()
  /** Calls that wait to be sent. */
  readonly queue: TransientSet<Call> = new TransientSet()
  /** Suspect calls that wait to be sent: alone, and before the others. */
  readonly suspectQueue: TransientSet<Call> = new TransientSet()
  replies = 0
  /** The key that a probe reads: that of the last call that failed. */
  probeKey = 'soloflight'
  probeTimer: Timer | undefined
  /** Timeouts of queued calls, ms, for which a timer is set. */
  readonly timedWaits: Set<number> = new Set()
  /** When a reply, or a part of one, last arrived, or the first command after an idle time was sent. */
  #aliveAt = 0
  /** Bytes that were sent and await a reply. */
  #unansweredBytes = 0
  /** The suspect call that was sent alone, until it ends. */
  #soleCall: Call | undefined
  /** The connection of the last command that was written. */
  #socket: Socket | undefined
  #bytesRead = 0
  /** Watches the connection while there are calls without a reply. */
  #watchTimer: Timer | undefined

  /** `watched`: silent connections are destroyed. Only for a single server whose client is owned. */
  constructor(clock: Clock, watched = false) {
    this.#clock = clock
    this.#watched = watched
  }

  get size(): number {
    return this.sent.size + this.queue.size + this.suspectQueue.size
  }

  queueOf(call: Call): TransientSet<Call> {
    return call.suspect ? this.suspectQueue : this.queue
  }

  /** Whether no call at all may be sent. */
  get blocked(): boolean {
    return this.breaker.state.kind !== 'closed' || this.#soleCall !== undefined
  }

  /** Whether a call may be sent now, if the client is ready. */
  maySend(call: Call): boolean {
    if (this.blocked) return false
    if (call.suspect) return this.sent.size === 0
    if (this.suspectQueue.size > 0) return false
    // A server that has been silent for that long would not reply in time: the call waits in the queue.
    return this.sent.size === 0 || this.silentFor() < call.timeout
  }

  /** An attempt of a call begins. */
  onSend(call: Call): void {
    // A retry after silence does not end the silence.
    if (this.sent.size === 0 && !call.unanswered) this.markAlive()
    this.sent.add(call)
    this.#soleCall = call.suspect ? call : undefined
    if (this.#watched && !this.#watchTimer) this.#watchAfter(SOCKET_TIMEOUT_MS)
  }

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

  markAlive(): void {
    this.#aliveAt = this.#clock.now()
    this.#bytesRead = this.#socket?.bytesRead ?? 0
  }

  onReply(): void {
    this.replies++
    this.markAlive()
  }

  /** How long the server has been silent, ms, beyond the time that a slow link needs for the bytes sent. */
  silentFor(): number {
    if (this.#socket && this.#socket.bytesRead !== this.#bytesRead) this.markAlive()
    return this.#clock.now() - this.#aliveAt - this.#unansweredBytes / SLOWEST_LINK_BYTES_PER_MS
  }

  get silentSince(): number {
    return this.#aliveAt
  }

  #watchAfter(ms: number): void {
    const due = this.#clock.now() + ms
    const check = () => {
      this.#watchTimer = undefined
      if (this.sent.size === 0) return
      const left = SOCKET_TIMEOUT_MS - this.silentFor()
      if (left > 0) return this.#watchAfter(left)
      // After a blocked event loop, replies may lie unread in the socket.
      if (this.#clock.now() - due > EVENT_LOOP_STALL_MS) return this.#watchAfter(0)
      this.#socket?.destroy(new Error(`Socket timeout: nothing was received for ${SOCKET_TIMEOUT_MS} ms`))
    }
    this.#watchTimer = this.#clock.after(ms, check, true)
  }

  /** Stops watching the connection. */
  close(): void {
    this.#watchTimer?.cancel()
  }
}

/** The server of a client, or the nodes of its cluster, each with its own health. */
export class Servers<Call extends ServerCall> {
  /** The client, if it is a Cluster. */
  readonly #cluster: RedisClusterClient | undefined
  readonly #clock: Clock
  /** The server. In a cluster: calls without a key, and those whose slot no known node serves. */
  readonly default: Server<Call>
  readonly #nodes = new Map<string, Server<Call>>()
  /** The last known node of each slot. */
  readonly #slotOwners = new Map<number, Server<Call>>()

  /** `owned`: the client was created by the library, so silent connections may be destroyed. */
  constructor(client: RedisClient, owned: boolean, clock: Clock) {
    this.#cluster = isCluster(client) ? client : undefined
    this.#clock = clock
    this.default = new Server(clock, owned)
  }

  get all(): Server<Call>[] {
    return [this.default, ...this.#nodes.values()]
  }

  get pending(): number {
    let pending = this.default.size
    for (const node of this.#nodes.values()) pending += node.size
    return pending
  }

  /** The server that a call with this key is sent to. */
  for(key: string | undefined): Server<Call> {
    if (key === undefined || !this.#cluster) return this.default
    const { slot, node } = slotOf(this.#cluster, key)
    // While no node serves the slot, the health of its last node applies.
    if (node === undefined) return this.#slotOwners.get(slot) ?? this.default
    let server = this.#nodes.get(node)
    if (!server) {
      server = new Server<Call>(this.#clock)
      this.#nodes.set(node, server)
    }
    this.#slotOwners.set(slot, server)
    return server
  }
}

/** A reading of the server's clock is used this long. It limits the effect of a server clock that is set. */
const TRUSTED_FOR_MS = 60_000

/** The server's clock may run faster than ours by this factor. */
const DRIFT = 1 / 1000

/**
 * An upper bound of the server's time, from the times in its replies. Freshness and leases are judged by the server's clock,
 * but plain reads and messages do not carry it. With an upper bound no value is served after its ttl, and no lease is
 * believed after it has expired.
 */
export class ServerClock {
  readonly #clock: Clock
  #offset = 0
  #updatedAt = Number.NEGATIVE_INFINITY

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** Records the server's time `now` (ms since the epoch) from the reply to a request sent at `sentAt` of our clock. */
  update(now: number, sentAt: number): void {
    if (!(now > 0)) return
    // `now` is rounded down to a millisecond.
    this.#offset = now + 1 - sentAt
    this.#updatedAt = sentAt
  }

  /** Estimate of the server's time, ms since the epoch. Meaningless before the first {@link update}. */
  get estimate(): number {
    return this.#clock.now() + this.#offset
  }

  /** Upper bound of the server's time, ms since the epoch; undefined without a recent reading. */
  now(): number | undefined {
    const age = this.#clock.now() - this.#updatedAt
    return age < TRUSTED_FOR_MS ? this.estimate + age * DRIFT : undefined
  }

  /** ms that surely remain until the server's clock reads `until`; 0 without a recent reading. */
  remaining(until: number): number {
    const now = this.now()
    return now === undefined ? 0 : Math.max(0, until - now)
  }
}

/** The largest fence or version. Larger integers are not exact, in JavaScript or in Lua. */
export const MAX_EXACT_INTEGER: number = Number.MAX_SAFE_INTEGER

/** A plausible fence is ahead of the server's clock by at most this … */
const MAX_CLOCK_LEAD_MS = 24 * 60 * 60_000

/** … or above the highest one so far by at most this: after the clock was set back, fences continue from there. */
const MAX_FENCE_STEP_US = 1_000_000

/**
 * The highest fence that this process has seen. Claims carry it, so that the next fence is above it even if the server has
 * lost the record and its clock was set back. An implausible fence is not remembered: if somebody forged it in one record,
 * it must not affect the others.
 */
export class FenceWatermark {
  readonly #clock: Pick<ServerClock, 'estimate'>
  #highest = 0

  constructor(clock: Pick<ServerClock, 'estimate'>) {
    this.#clock = clock
  }

  get highest(): number {
    return this.#highest
  }

  observe(fence: number): void {
    if (fence > this.#highest && this.isPlausible(fence)) this.#highest = fence
  }

  /** Whether a fence can be the result of a regular grant. */
  isPlausible(fence: number): boolean {
    const serverTime = this.#clock.estimate
    return fence <= Math.max((serverTime + MAX_CLOCK_LEAD_MS) * 1000, this.#highest + MAX_FENCE_STEP_US)
  }
}
