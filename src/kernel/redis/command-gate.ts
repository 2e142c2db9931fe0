import { ClosedError, OverloadedError, UnavailableError } from '../../errors.ts'
import { messageOf } from '../codec/codec.ts'
import { type Clock, Deadlines, EVENT_LOOP_STALL_MS, nextTurn } from '../time.ts'
import {
  Call,
  type CallHost,
  type CommandName,
  OneConnectionCommand,
  type ReplyHandler,
  type Request,
} from './call.ts'
import { isCluster, type RedisClient } from './client.ts'
import { ClientErrors, NO_REPLY, OUTAGE_REPLY, refusedError, safeCopy, TRANSIENT_ERROR } from './diagnosis.ts'
import { type Server, Servers, SOCKET_TIMEOUT_MS } from './server.ts'

/** Calls without a reply, sent or queued, at most. */
const MAX_PENDING = 100_000

/** While the server replies to other calls, the deadline of a call is extended by its timeout this many times at most. */
const MAX_DEADLINE_EXTENSIONS = 4

/** A call fails after it was on this many connections that ended: it may be the cause. */
const MAX_LOST_CONNECTIONS = 3

/** Delay before calls that were lost with a node of a cluster are sent to the node that serves their slot then. */
const CLUSTER_RETRY_MS = 50

/** Interval of the probes while the circuit breaker is open. */
const PROBE_INTERVAL_MS = 500

/**
 * Decides when calls are sent to the command client. While Redis is unreachable or silent, calls are queued here, bounded in
 * number and time, instead of in the queues of the client, which have no deadlines. Calls whose connection ends are sent
 * again until their deadline, but only {@link MAX_LOST_CONNECTIONS} times, because they may be the cause.
 */
export class CommandGate implements CallHost {
  readonly #client: RedisClient
  readonly #cluster: boolean
  /** Whether the client was created by the library: only then are silent connections destroyed. */
  readonly #owned: boolean
  readonly #clock: Clock
  readonly #deadlines: Deadlines
  readonly #servers: Servers<Call>
  #pausing = 0
  readonly #clientErrors: ClientErrors
  /** Cleared when it is called. */
  #onFirstReply: (() => void) | undefined
  #connections = 0
  #state: 'open' | 'closed' = 'open'

  /** `onFirstReply` is called when Redis replies for the first time. */
  constructor(client: RedisClient, owned: boolean, clock: Clock, onFirstReply: () => void) {
    this.#client = client
    this.#cluster = isCluster(client)
    this.#owned = owned
    this.#clock = clock
    this.#deadlines = new Deadlines(clock)
    this.#clientErrors = new ClientErrors(client)
    this.#servers = new Servers(client, owned, clock)
    this.#onFirstReply = onFirstReply
    client.on('connect', this.#onConnect)
    client.on('ready', this.#onReady)
    client.on('close', this.#onClose)
  }

  /** The last error of the client, until Redis replies again. */
  get lastError(): Error | undefined {
    return this.#clientErrors.last
  }

  /** Number of calls without a reply: sent, queued or pausing. */
  get pending(): number {
    return this.#pausing + this.#servers.pending
  }

  readonly #onConnect = (): void => {
    if (!this.#owned) return
    const connection = ++this.#connections
    // The server accepts connections but does not reply. The next attempt may reach another one.
    const check = () => {
      if (connection === this.#connections && this.#client.status === 'connect') this.#client.disconnect(true)
    }
    this.#clock.after(SOCKET_TIMEOUT_MS, check, true)
  }

  readonly #onReady = (): void => {
    const now = this.#clock.now()
    for (const server of this.#servers.all) {
      server.markAlive()
      server.breaker.onConnected(now)
      if (server.breaker.state.kind === 'half-open') this.#probe(server)
      this.#sendQueued(server)
    }
  }

  readonly #onClose = (): void => {
    const now = this.#clock.now()
    for (const server of this.#servers.all) {
      server.breaker.onDisconnected(now)
      for (const call of server.sent) this.onConnectionLost(call)
    }
  }

  /**
   * Sends a request, and calls `handler` exactly once: within `timeout` ms, or within five times that while the server replies
   * to other calls. Calls `onLateReply` if a reply arrives after that.
   */
  send(request: Request, timeout: number, handler: ReplyHandler): void {
    const call = new Call(request, timeout, handler, this.#servers.default, this)
    if (this.pending >= MAX_PENDING) {
      return this.#fail(call, new OverloadedError(`${MAX_PENDING} commands are waiting for Redis`))
    }
    this.#deadlines.add(call, timeout)
    this.#sendOrQueue(call)
  }

  #sendOrQueue(call: Call): void {
    if (this.#state === 'closed') return this.#fail(call, new ClosedError('The connection is closed'))
    const { status } = this.#client
    if (status === 'end')
      return this.#fail(call, new UnavailableError('The Redis client was closed', { sent: false }))
    if (status === 'ready' && this.#clientErrors.wrongDatabase)
      return this.#fail(call, refusedError(this.#clientErrors.last))
    if (status === 'wait') this.#client.connect().catch(() => {})
    call.server = this.#servers.for(call.request.key)
    if (this.#maySend(call)) this.#transmit(call)
    else this.#enqueue(call)
  }

  #maySend(call: Call): boolean {
    if (this.#client.status !== 'ready' || this.#clientErrors.wrongDatabase) return false
    return call.server.maySend(call)
  }

  #enqueue(call: Call): void {
    const { server } = call
    if (this.#client.status !== 'ready') server.breaker.onDisconnected(this.#clock.now())
    server.queueOf(call).add(call)
    this.#limitWait(server, call.timeout)
  }

  /** Fails the queued calls with this timeout once the outage has lasted that long. */
  #limitWait(server: Server<Call>, timeout: number): void {
    const left = server.breaker.remainingWait(timeout, this.#clock.now())
    if (left === Number.POSITIVE_INFINITY || server.timedWaits.has(timeout)) return
    server.timedWaits.add(timeout)
    const check = () => {
      server.timedWaits.delete(timeout)
      const waiting = [...server.suspectQueue, ...server.queue].filter((call) => call.timeout === timeout)
      if (waiting.length === 0) return
      if (server.breaker.remainingWait(timeout, this.#clock.now()) > 0)
        return this.#limitWait(server, timeout)
      for (const call of waiting) this.#giveUp(call)
    }
    // In the next turn: replies that have arrived are read before that.
    if (left === 0) nextTurn(check)
    else this.#clock.after(left, () => nextTurn(check), true)
  }

  #sendQueued(server: Server<Call>): void {
    if (server.suspectQueue.size === 0 && server.queue.size === 0) return
    for (const queue of [server.suspectQueue, server.queue]) {
      for (const call of queue) {
        if (server.blocked) return
        if (!this.#maySend(call)) continue
        queue.delete(call)
        this.#transmit(call)
      }
    }
  }

  #transmit(call: Call): void {
    call.server.onSend(call)
    const attempt = call.start()
    this.#request(call).then(
      (reply) => {
        if (attempt === call.attempt) this.#onReply(call, reply)
      },
      (error) => {
        if (attempt === call.attempt) this.#onErrorReply(call, error)
      },
    )
  }

  /** A client may throw instead of rejecting. */
  #request(call: Call): Promise<unknown> {
    try {
      return call.request.send(call)
    } catch (error) {
      return Promise.reject(error)
    }
  }

  dispatch(call: Call, name: CommandName, args: (string | Buffer | number)[]): Promise<unknown> {
    const command = new OneConnectionCommand(name, args, this.#client.options?.keyPrefix, call)
    call.command = command
    this.#client.sendCommand(command)
    return command.promise
  }

  #onReply(call: Call, reply: unknown): void {
    const { server } = call
    server.onAttemptEnded(call)
    // Only the placeholder was written.
    if (call.command?.socket === undefined) return call.endAttempt()
    if (this.#clientErrors.last) this.#clientErrors.last = undefined
    this.#onFirstReply?.()
    this.#onFirstReply = undefined
    server.onReply()
    server.breaker.onReply()
    this.#sendQueued(server)
    if (call.awaited) this.#deadlines.delete(call, call.timeout)
    call.deliver(reply)
  }

  #onErrorReply(call: Call, error: unknown): void {
    const { server } = call
    const message = messageOf(error)
    const socket = call.command?.socket
    if (socket?.destroyed) return this.onConnectionLost(call)
    server.onAttemptEnded(call)
    call.endAttempt()
    const answered = socket !== undefined && !NO_REPLY.test(message)
    call.unanswered = !answered || OUTAGE_REPLY.test(message)
    if (answered) server.onReply()
    if (!call.unanswered) server.breaker.onReply()
    this.#sendQueued(server)
    if (server.breaker.state.kind === 'half-open') this.#openBreaker(server, call)
    if (!call.awaited) return
    const transient = TRANSIENT_ERROR.test(message) && this.#clock.now() + call.retryDelay < call.deadline
    if (!transient) {
      if (call.unanswered) this.#openBreaker(server, call)
      return this.#fail(call, refusedError(error))
    }
    call.lastError = safeCopy(error)
    this.#pausing++
    this.#clock.after(call.pause(), () => {
      this.#pausing--
      if (!call.awaited) return
      call.resume()
      this.#sendOrQueue(call)
    })
  }

  onConnectionLost(call: Call): void {
    const { server, command, largestCommand, lostConnections } = call
    // Outcomes of that attempt are ignored from now on.
    call.attempt++
    call.command = undefined
    server.onAttemptEnded(call)
    call.endAttempt()
    if (server.breaker.state.kind === 'half-open') this.#openBreaker(server, call)
    if (!call.awaited) return
    if (command?.socket && lostConnections + 1 === MAX_LOST_CONNECTIONS) {
      const message = `Redis did not answer: sent on ${MAX_LOST_CONNECTIONS} connections that each ended before a reply; the ${largestCommand} bytes sent, or the reply, may be larger than they allow`
      const options = { cause: this.#clientErrors.last, lostConnections: MAX_LOST_CONNECTIONS }
      return this.#fail(call, new UnavailableError(message, options))
    }
    if (command?.socket) call.lostConnections++
    call.unanswered = true
    this.#enqueue(call)
    if (this.#cluster) this.#clock.after(CLUSTER_RETRY_MS, () => this.#sendQueued(server), true)
  }

  onDeadline(call: Call): void {
    if (!call.awaited) return
    const now = this.#clock.now()
    // A server replies in order. While it replies to earlier calls, it will reply to this one.
    const left = this.#cluster ? 0 : call.timeout - call.server.silentFor()
    const extended = now < call.deadline + MAX_DEADLINE_EXTENSIONS * call.timeout
    if (call.state === 'sent' && left > 0 && extended)
      return void this.#clock.after(left, () => this.onDeadline(call), true)
    // After a blocked event loop, replies may lie unread in the socket. They are read before the next turn ends.
    const stalled = now - call.deadline > EVENT_LOOP_STALL_MS
    const readUntil = stalled ? now + call.timeout : 0
    this.#giveUpAfterReading(call, call.server.replies, readUntil)
  }

  /** Gives a call up in the next turn, or later, until `readUntil`, while replies are still being read. */
  #giveUpAfterReading(call: Call, replies: number, readUntil: number): void {
    nextTurn(() => {
      if (!call.awaited) return
      const reading = call.server.replies !== replies && this.#clock.now() < readUntil
      if (reading) this.#giveUpAfterReading(call, call.server.replies, readUntil)
      else this.#giveUp(call)
    })
  }

  #giveUp(call: Call): void {
    const { server, timeout, lastError } = call
    const { status } = this.#client
    if (call.state === 'sent' || call.unanswered || status !== 'ready') this.#openBreaker(server, call)
    if (this.#clientErrors.wrongDatabase) return this.#fail(call, refusedError(this.#clientErrors.last))
    const disconnected = status !== 'ready'
    const what = disconnected ? `Redis is not connected (client status: ${status})` : 'Redis did not answer'
    const { why, cause } = this.#clientErrors.explain(lastError, disconnected)
    const sent = call.state === 'sent' || call.lostConnections > 0
    this.#fail(call, new UnavailableError(`${what} within ${timeout} ms${why}`, { cause, sent }))
  }

  /** The server is silent: calls fail immediately until it replies to a probe. */
  #openBreaker(server: Server<Call>, { request }: Call): void {
    server.breaker.onUnavailable(server.silentSince)
    if (request.key !== undefined) server.probeKey = request.key
    for (const { timeout } of server.queue) this.#limitWait(server, timeout)
    this.#probeLater(server)
  }

  #probeLater(server: Server<Call>): void {
    const probe = () => {
      server.probeTimer = undefined
      // If the client is not ready, the probe is sent when it is.
      if (this.#state === 'closed' || server.breaker.state.kind !== 'open') return
      if (this.#client.status !== 'ready') return
      if (server.sent.size > 0) return this.#probeLater(server)
      server.breaker.onProbe()
      this.#probe(server)
    }
    server.probeTimer ??= this.#clock.after(PROBE_INTERVAL_MS, probe, true)
  }

  #probe(server: Server<Call>): void {
    const { probeKey: key } = server
    const request: Request = { key, send: (sender) => sender.send('hget', [key, 'v']) }
    this.#transmit(new Call(request, SOCKET_TIMEOUT_MS, undefined, server, this))
  }

  #fail(call: Call, error: Error): void {
    if (!call.awaited) return
    call.server.queueOf(call).delete(call)
    call.server.onUnwanted(call)
    this.#deadlines.delete(call, call.timeout)
    call.fail(error)
  }

  /** Fails queued and later calls with ClosedError. Does not close the client. */
  close(): void {
    this.#state = 'closed'
    const error = new ClosedError('The connection was closed')
    for (const { suspectQueue, queue } of this.#servers.all)
      for (const call of [...suspectQueue, ...queue]) this.#fail(call, error)
    this.#clientErrors.close()
    this.#servers.default.close()
    this.#client.off('connect', this.#onConnect)
    this.#client.off('ready', this.#onReady)
    this.#client.off('close', this.#onClose)
  }
}
