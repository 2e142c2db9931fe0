import { ClosedError, OverloadedError, UnavailableError } from '../../errors.ts'
import { messageOf } from '../codec/codec.ts'
import type { Clock } from '../time/clock.ts'
import { Deadlines } from '../time/deadlines.ts'
import { nextTurn } from '../time/timers.ts'
import { Call, type CallHost, type ReplyHandler } from './call.ts'
import { isCluster, type RedisClient, safeCopy, slotOf } from './client.ts'
import { type CommandName, OneConnectionCommand, type Request } from './command.ts'
import { Server } from './server.ts'
import { ClientErrors } from './trouble.ts'

/** Commands that may wait for Redis, sent or not, at a time. */
const MAX_PENDING = 100_000

/** Replies that say «not now» to whatever is asked. Redis 6 puts those of a script behind its own words. */
const OUTAGE_REPLY = /(^|: -?)(LOADING|BUSY|MASTERDOWN|CLUSTERDOWN)\b/

/** What the client says when nobody has answered it. */
const NO_REPLY = new RegExp(
  [
    '^Connection is closed',
    "^Stream isn't writeable",
    '^Reached the max retries per request limit',
    '^Too many Cluster redirections',
    "^Cluster isn't ready",
    '^Failed to refresh slots cache',
  ].join('|'),
)

/** What says «not now»: tried again until the deadline. */
const TRANSIENT_ERROR = new RegExp(
  [
    OUTAGE_REPLY.source,
    NO_REPLY.source,
    '(^|: -?)(READONLY|TRYAGAIN|NOREPLICAS|UNBLOCKED)\\b',
    'max number of clients',
  ].join('|'),
)

/** As long as others are answered, a call is waited for up to so many times longer than it was given. */
const MAX_DEADLINE_EXTENSIONS = 4

/** A timer that fires so much too late (ms) tells that the event loop stood still. */
const EVENT_LOOP_STALL_MS = 20

/** A connection of our own that has been silent for so long (ms) although it was asked is given up and made anew. */
const SOCKET_TIMEOUT_MS = 2000

/** A call that was on so many connections that ended is refused: they may end because of it. */
const MAX_LOST_CONNECTIONS = 3

/** Pause before what was lost with the connection to a node is sent to whoever has its slot then, ms. */
const CLUSTER_RETRY_MS = 50

/** While nothing tells that a server is back, it is asked this often, ms. */
const PROBE_INTERVAL_MS = 500

/** What a probe is answered concerns nobody: that it is answered is all. */
const IGNORE_REPLY: ReplyHandler = { onReply() {}, onError() {} }

/** What a command, or a script for one of its items, was refused with. */
export function refusedError(thrown: unknown): UnavailableError {
  const cause = safeCopy(thrown)
  return new UnavailableError(`Redis refused: ${cause.message}`, { cause })
}

/**
 * The command client, and a gate before it: while Redis is away or silent, calls wait here, bounded in number and
 * time, and not in the client's own queues, which know no deadline. A call whose connection ends comes back here: it is
 * sent again as long as somebody waits for it, but not for ever, since connections may end because of it.
 */
export class CommandGate implements CallHost {
  readonly #client: RedisClient
  /** Whether the client is ours, and so are its silent connections. */
  readonly #owned: boolean
  readonly #clock: Clock
  readonly #deadlines: Deadlines
  /** Redis; of a cluster, what is not known to be on one of its nodes. */
  readonly #defaultServer = new Server<Call>()
  /** The nodes of a cluster: the silence of one says nothing of the others. */
  readonly #nodes = new Map<string, Server<Call>>()
  /** By slot: who had it last. */
  readonly #slotOwners = new Map<number, Server<Call>>()
  /** Pausing before they are sent again. */
  #retrying = 0
  readonly #clientErrors: ClientErrors
  /** Called with the first reply. */
  #onFirstReply: (() => void) | undefined
  /** Connections made so far. */
  #connections = 0
  #watching = false
  #closed = false

  /** `greeted` is called when Redis has answered for the first time. */
  constructor(client: RedisClient, owned: boolean, clock: Clock, greeted: () => void) {
    this.#client = client
    this.#owned = owned
    this.#clock = clock
    this.#deadlines = new Deadlines(clock)
    this.#clientErrors = new ClientErrors(client)
    this.#onFirstReply = greeted
    client.on('connect', this.#onConnect)
    client.on('ready', this.#onReady)
    client.on('close', this.#onClose)
  }

  /** Why Redis is of no use, as far as is known. */
  get lastError(): Error | undefined {
    return this.#clientErrors.last
  }

  /** Waiting for Redis: sent, or not yet. */
  get pending(): number {
    let pending = this.#retrying + this.#defaultServer.size
    for (const node of this.#nodes.values()) pending += node.size
    return pending
  }

  readonly #onConnect = (): void => {
    if (!this.#owned) return
    const connection = ++this.#connections
    // A server that accepts connections and says nothing: the next attempt may find another.
    const check = () => {
      if (connection === this.#connections && this.#client.status === 'connect') this.#client.disconnect(true)
    }
    this.#clock.after(SOCKET_TIMEOUT_MS, check, true)
  }

  readonly #onReady = (): void => {
    const now = this.#clock.now()
    for (const server of this.#servers) {
      server.markAlive(now)
      server.breaker.onConnected(now)
      if (server.breaker.state.kind === 'half-open') this.#probe(server)
      this.#sendQueued(server)
    }
  }

  readonly #onClose = (): void => {
    const now = this.#clock.now()
    for (const server of this.#servers) {
      server.breaker.onDisconnected(now)
      for (const call of server.sent) this.onConnectionLost(call)
    }
  }

  get #servers(): Server<Call>[] {
    return [this.#defaultServer, ...this.#nodes.values()]
  }

  /** Whom a key is asked of. */
  #serverOf(key: string | undefined): Server<Call> {
    if (key === undefined || !isCluster(this.#client)) return this.#defaultServer
    const { slot, node } = slotOf(this.#client, key)
    // While nobody has a slot, it is as its last owner was.
    if (node === undefined) return this.#slotOwners.get(slot) ?? this.#defaultServer
    let server = this.#nodes.get(node)
    if (!server) {
      server = new Server<Call>()
      this.#nodes.set(node, server)
    }
    this.#slotOwners.set(slot, server)
    return server
  }

  /**
   * Asks, and calls back exactly once, by `within` ms; as long as the server answers others, by five times that. Then once
   * more if a reply comes after all.
   */
  send(request: Request, within: number, asker: ReplyHandler): void {
    const call = new Call(request, within, asker, this.#defaultServer, this)
    if (this.pending >= MAX_PENDING) {
      return this.#fail(call, new OverloadedError(`${MAX_PENDING} commands wait for Redis already`))
    }
    this.#deadlines.add(call, within)
    this.#sendOrQueue(call)
  }

  #sendOrQueue(call: Call): void {
    if (this.#closed) return this.#fail(call, new ClosedError('The connection is closed'))
    const { status } = this.#client
    if (status === 'end') return this.#fail(call, new UnavailableError('The Redis client was closed'))
    if (status === 'ready' && this.#clientErrors.wrongDatabase)
      return this.#fail(call, refusedError(this.#clientErrors.last))
    if (status === 'wait') this.#client.connect().catch(() => {})
    call.server = this.#serverOf(call.request.key)
    if (this.#maySend(call)) this.#transmit(call)
    else this.#enqueue(call)
  }

  #maySend(call: Call): boolean {
    const { breaker, sent, suspectQueue: suspects, suspectSent: alone } = call.server
    if (this.#client.status !== 'ready' || this.#clientErrors.wrongDatabase) return false
    if (breaker.state.kind !== 'closed' || alone) return false
    if (call.suspect) return sent.size === 0
    if (suspects.size > 0) return false
    // If it has not answered for so long, more commands would only pile up behind the silence.
    return sent.size === 0 || call.server.silentFor(this.#clock.now()) < call.timeout
  }

  #enqueue(call: Call): void {
    const { server } = call
    if (this.#client.status !== 'ready') server.breaker.onDisconnected(this.#clock.now())
    server.queueOf(call).add(call)
    this.#limitWait(server, call.timeout)
  }

  /** Refuses the calls at the gate that were given so long, once the outage has lasted for that. */
  #limitWait(server: Server<Call>, within: number): void {
    const left = server.breaker.remainingWait(within, this.#clock.now())
    if (left === Number.POSITIVE_INFINITY || server.timedWaits.has(within)) return
    server.timedWaits.add(within)
    const check = () => {
      server.timedWaits.delete(within)
      const waiting = [...server.suspectQueue, ...server.queue].filter((call) => call.timeout === within)
      if (waiting.length === 0) return
      if (server.breaker.remainingWait(within, this.#clock.now()) > 0) return this.#limitWait(server, within)
      for (const call of waiting) this.#giveUp(call)
    }
    // In the next turn: what has arrived meanwhile is read before that.
    if (left === 0) nextTurn(check)
    else this.#clock.after(left, () => nextTurn(check), true)
  }

  #sendQueued(server: Server<Call>): void {
    if (server.suspectQueue.size === 0 && server.queue.size === 0) return
    for (const gate of [server.suspectQueue, server.queue]) {
      for (const call of gate) {
        if (server.breaker.state.kind !== 'closed' || server.suspectSent) return
        if (!this.#maySend(call)) continue
        gate.delete(call)
        this.#transmit(call)
      }
    }
  }

  #transmit(call: Call): void {
    const { server } = call
    // What was silent before is so still.
    if (server.sent.size === 0 && !call.unanswered) server.markAlive(this.#clock.now())
    server.sent.add(call)
    server.suspectSent = call.suspect
    call.sent = true
    const attempt = ++call.attempt
    this.#request(call).then(
      (reply) => {
        if (attempt === call.attempt) this.#onReply(call, reply)
      },
      (error) => {
        if (attempt === call.attempt) this.#onErrorReply(call, error)
      },
    )
    this.#watchSocket()
  }

  /** A client that throws refuses the command, as one whose promise rejects does. */
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

  /** It is not on its way any more. */
  #onAttemptEnded(call: Call): void {
    const { server } = call
    call.sent = false
    // A probe is not sent again.
    if (call.handler === IGNORE_REPLY) call.notified = true
    server.sent.delete(call)
    if (server.sent.size === 0) server.suspectSent = false
    server.onUnwanted(call)
  }

  #onReply(call: Call, reply: unknown): void {
    this.#onAttemptEnded(call)
    if (call.command?.socket === undefined) return
    this.#clientErrors.onReply()
    this.#onFirstReply?.()
    this.#onFirstReply = undefined
    this.#markAlive(call.server)
    call.server.breaker.onReply()
    this.#sendQueued(call.server)
    if (call.notified) call.handler.onLateReply?.(reply)
    else if (this.#notifyOnce(call)) call.handler.onReply(reply)
  }

  #markAlive(server: Server<Call>): void {
    server.replies++
    server.markAlive(this.#clock.now())
  }

  #onErrorReply(call: Call, error: unknown): void {
    const { server } = call
    const message = messageOf(error)
    const socket = call.command?.socket
    if (socket?.destroyed) return this.onConnectionLost(call)
    this.#onAttemptEnded(call)
    const answered = socket !== undefined && !NO_REPLY.test(message)
    call.unanswered = !answered || OUTAGE_REPLY.test(message)
    if (answered) this.#markAlive(server)
    if (!call.unanswered) server.breaker.onReply()
    this.#sendQueued(server)
    if (server.breaker.state.kind === 'half-open') this.#openBreaker(server, call)
    if (call.notified) return
    const passing = TRANSIENT_ERROR.test(message) && this.#clock.now() + call.pause < call.deadline
    if (!passing) {
      if (call.unanswered) this.#openBreaker(server, call)
      return this.#fail(call, refusedError(error))
    }
    call.lastError = safeCopy(error)
    this.#retrying++
    this.#clock.after(call.nextRetryDelay(), () => {
      this.#retrying--
      if (!call.notified) this.#sendOrQueue(call)
    })
  }

  onConnectionLost(call: Call): void {
    const { server, command, largestCommand: size, lostConnections: losses } = call
    // What comes of that time is of no interest any more.
    call.attempt++
    call.command = undefined
    this.#onAttemptEnded(call)
    if (server.breaker.state.kind === 'half-open') this.#openBreaker(server, call)
    if (call.notified) return
    if (command?.socket && losses + 1 === MAX_LOST_CONNECTIONS) {
      const message = `Redis did not answer: sent on ${MAX_LOST_CONNECTIONS} connections that each ended before an answer; the ${size} bytes sent, or the answer, may be more than they carry`
      const options = { cause: this.#clientErrors.last, lostConnections: MAX_LOST_CONNECTIONS }
      return this.#fail(call, new UnavailableError(message, options))
    }
    if (command?.socket) call.lostConnections++
    call.unanswered = true
    this.#enqueue(call)
    if (isCluster(this.#client)) this.#clock.after(CLUSTER_RETRY_MS, () => this.#sendQueued(server), true)
  }

  onDeadline(call: Call): void {
    if (call.notified) return
    const now = this.#clock.now()
    // It was sent, and others are answered: one server answers in order, so this one's turn will come.
    const left = isCluster(this.#client) ? 0 : call.timeout - call.server.silentFor(now)
    if (call.sent && left > 0 && now < call.deadline + MAX_DEADLINE_EXTENSIONS * call.timeout)
      return void this.#clock.after(left, () => this.onDeadline(call), true)
    // If the event loop stood still, replies may lie in the socket, unread: they are read before the next turn ends.
    const late = now - call.deadline > EVENT_LOOP_STALL_MS
    const patience = late ? now + call.timeout : 0
    this.#giveUpAfterReading(call, call.server.replies, patience)
  }

  /** Gives a call up in the next turn, or later as long as replies still come in. */
  #giveUpAfterReading(call: Call, answers: number, patience: number): void {
    nextTurn(() => {
      if (call.notified) return
      const reading = call.server.replies !== answers && this.#clock.now() < patience
      if (reading) this.#giveUpAfterReading(call, call.server.replies, patience)
      else this.#giveUp(call)
    })
  }

  #giveUp(call: Call): void {
    const { server, timeout: within, lastError: refusal } = call
    const { status } = this.#client
    if (call.sent || call.unanswered || status !== 'ready') this.#openBreaker(server, call)
    if (this.#clientErrors.wrongDatabase) return this.#fail(call, refusedError(this.#clientErrors.last))
    const away = status !== 'ready'
    const what = away ? `Redis is not connected (client status: ${status})` : 'Redis did not answer'
    const { why, cause } = this.#clientErrors.explain(refusal, away)
    this.#fail(call, new UnavailableError(`${what} within ${within} ms${why}`, { cause }))
  }

  /** The server is silent: calls are refused at once, until it answers a probe. */
  #openBreaker(server: Server<Call>, { request }: Call): void {
    server.breaker.onUnavailable(server.silentSince)
    if (request.key !== undefined) server.probeKey = request.key
    for (const { timeout: within } of server.queue) this.#limitWait(server, within)
    this.#probeLater(server)
  }

  #probeLater(server: Server<Call>): void {
    if (server.probeScheduled) return
    server.probeScheduled = true
    const probe = () => {
      server.probeScheduled = false
      // Once the client is ready again, it is asked then.
      if (this.#closed || server.breaker.state.kind !== 'open' || this.#client.status !== 'ready') return
      if (server.sent.size > 0) return this.#probeLater(server)
      server.breaker.onProbe()
      this.#probe(server)
    }
    this.#clock.after(PROBE_INTERVAL_MS, probe, true)
  }

  #probe(server: Server<Call>): void {
    const { probeKey: key } = server
    const request: Request = { key, send: (sender) => sender.send('hget', [key, 'v']) }
    const call = new Call(request, SOCKET_TIMEOUT_MS, IGNORE_REPLY, server, this)
    this.#transmit(call)
  }

  /** Gives up connections of our own that are silent. */
  #watchSocket(): void {
    if (!this.#owned || this.#watching) return
    this.#watching = true
    this.#checkSocketAfter(SOCKET_TIMEOUT_MS)
  }

  #checkSocketAfter(ms: number): void {
    const due = this.#clock.now() + ms
    const check = () => {
      const now = this.#clock.now()
      const left = SOCKET_TIMEOUT_MS - this.#defaultServer.silentFor(now)
      this.#watching = this.#defaultServer.sent.size > 0 && !this.#closed
      if (!this.#watching) return
      if (left > 0) return this.#checkSocketAfter(left)
      // If the event loop stood still, replies may lie in the socket, unread.
      if (now - due > EVENT_LOOP_STALL_MS) return this.#checkSocketAfter(0)
      this.#watching = false
      this.#defaultServer.destroySocket(
        new Error(`Socket timeout: nothing has come for ${SOCKET_TIMEOUT_MS} ms`),
      )
    }
    this.#clock.after(ms, check, true)
  }

  #fail(call: Call, error: Error): void {
    if (this.#notifyOnce(call)) call.handler.onError(error)
  }

  /** Whether the asker is to be told now; at most once. */
  #notifyOnce(call: Call): boolean {
    if (call.notified) return false
    call.notified = true
    call.server.queueOf(call).delete(call)
    call.server.onUnwanted(call)
    this.#deadlines.delete(call, call.timeout)
    return true
  }

  /** Refuses further calls, and those at the gate, with ClosedError. Leaves the client as it is. */
  close(): void {
    this.#closed = true
    const error = new ClosedError('The connection was closed')
    for (const { suspectQueue: suspects, queue: gate } of this.#servers)
      for (const call of [...suspects, ...gate]) this.#fail(call, error)
    this.#clientErrors.close()
    this.#client.off('connect', this.#onConnect)
    this.#client.off('ready', this.#onReady)
    this.#client.off('close', this.#onClose)
  }
}
