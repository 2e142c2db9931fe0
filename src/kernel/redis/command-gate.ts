import { ClosedError, OverloadedError, UnavailableError } from '../../errors.ts'
import { messageOf } from '../codec/codec.ts'
import type { Clock } from '../time/clock.ts'
import { Deadlines } from '../time/deadlines.ts'
import { nextTurn } from '../time/timers.ts'
import { type Asker, Call, type CallHost } from './call.ts'
import { causeOf, isCluster, placeOf, type RedisClient } from './client.ts'
import { type CommandName, OneConnectionCommand, type Request } from './command.ts'
import { Server } from './server.ts'
import { Trouble } from './trouble.ts'

/** Commands that may wait for Redis, sent or not, at a time. */
const MAX_PENDING = 100_000

/** Replies that say «not now» to whatever is asked. Redis 6 puts those of a script behind its own words. */
const OUTAGE = /(^|: -?)(LOADING|BUSY|MASTERDOWN|CLUSTERDOWN)\b/

/** What the client says when nobody has answered it. */
const UNANSWERED = new RegExp(
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
const PASSING = new RegExp(
  [
    OUTAGE.source,
    UNANSWERED.source,
    '(^|: -?)(READONLY|TRYAGAIN|NOREPLICAS|UNBLOCKED)\\b',
    'max number of clients',
  ].join('|'),
)

/** As long as others are answered, a call is waited for up to so many times longer than it was given. */
const MOST = 4

/** A timer that fires so much too late (ms) tells that the event loop stood still. */
const LATE = 20

/** A connection of our own that has been silent for so long (ms) although it was asked is given up and made anew. */
const SOCKET_TIMEOUT = 2000

/** A call that was on so many connections that ended is refused: they may end because of it. */
const MAX_LOSSES = 3

/** Pause before what was lost with the connection to a node is sent to whoever has its slot then, ms. */
const RETRY_LOST = 50

/** While nothing tells that a server is back, it is asked this often, ms. */
const PROBE_EVERY = 500

/** What a probe is answered concerns nobody: that it is answered is all. */
const NOBODY: Asker = { answered() {}, failed() {} }

/** What a command, or a script for one of its items, was refused with. */
export function refused(thrown: unknown): UnavailableError {
  const cause = causeOf(thrown)
  return new UnavailableError(`Redis refused: ${cause.message}`, { cause })
}

/**
 * The command client, and a gate before it: while Redis is away or silent, calls wait here, bounded in number and
 * time, and not in the client's own queues, which know no deadline. A call whose connection ends comes back here: it is
 * sent again as long as somebody waits for it, but not for ever, since connections may end because of it.
 */
export class Commands implements CallHost {
  readonly #client: RedisClient
  /** Whether the client is ours, and so are its silent connections. */
  readonly #owned: boolean
  readonly #clock: Clock
  readonly #deadlines: Deadlines
  /** Redis; of a cluster, what is not known to be on one of its nodes. */
  readonly #whole = new Server<Call>()
  /** The nodes of a cluster: the silence of one says nothing of the others. */
  readonly #nodes = new Map<string, Server<Call>>()
  /** By slot: who had it last. */
  readonly #owners = new Map<number, Server<Call>>()
  /** Pausing before they are sent again. */
  #pausing = 0
  readonly #trouble: Trouble
  /** Called with the first reply. */
  #greeted: (() => void) | undefined
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
    this.#trouble = new Trouble(client)
    this.#greeted = greeted
    client.on('connect', this.#onConnect)
    client.on('ready', this.#onReady)
    client.on('close', this.#onClose)
  }

  /** Why Redis is of no use, as far as is known. */
  get trouble(): Error | undefined {
    return this.#trouble.error
  }

  /** Waiting for Redis: sent, or not yet. */
  get pending(): number {
    let pending = this.#pausing + this.#whole.size
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
    this.#clock.after(SOCKET_TIMEOUT, check, true)
  }

  readonly #onReady = (): void => {
    const now = this.#clock.now()
    for (const server of this.#servers) {
      server.alive(now)
      server.breaker.connected(now)
      if (server.breaker.state.kind === 'half-open') this.#probe(server)
      this.#openGate(server)
    }
  }

  readonly #onClose = (): void => {
    const now = this.#clock.now()
    for (const server of this.#servers) {
      server.breaker.interrupted(now)
      for (const call of server.sent) this.lost(call)
    }
  }

  get #servers(): Server<Call>[] {
    return [this.#whole, ...this.#nodes.values()]
  }

  /** Whom a key is asked of. */
  #serverOf(key: string | undefined): Server<Call> {
    if (key === undefined || !isCluster(this.#client)) return this.#whole
    const { slot, node } = placeOf(this.#client, key)
    // While nobody has a slot, it is as its last owner was.
    if (node === undefined) return this.#owners.get(slot) ?? this.#whole
    let server = this.#nodes.get(node)
    if (!server) {
      server = new Server<Call>()
      this.#nodes.set(node, server)
    }
    this.#owners.set(slot, server)
    return server
  }

  /**
   * Asks, and calls back exactly once, by `within` ms; as long as the server answers others, by five times that. Then once
   * more if a reply comes after all.
   */
  ask(request: Request, within: number, asker: Asker): void {
    const call = new Call(request, within, asker, this.#whole, this)
    if (this.pending >= MAX_PENDING) {
      return this.#fail(call, new OverloadedError(`${MAX_PENDING} commands wait for Redis already`))
    }
    this.#deadlines.add(call, within)
    this.#attempt(call)
  }

  #attempt(call: Call): void {
    if (this.#closed) return this.#fail(call, new ClosedError('The connection is closed'))
    const { status } = this.#client
    if (status === 'end') return this.#fail(call, new UnavailableError('The Redis client was closed'))
    if (status === 'ready' && this.#trouble.misdirected) return this.#fail(call, refused(this.#trouble.error))
    if (status === 'wait') this.#client.connect().catch(() => {})
    call.server = this.#serverOf(call.request.key)
    if (this.#admits(call)) this.#send(call)
    else this.#wait(call)
  }

  #admits(call: Call): boolean {
    const { breaker, sent, suspects, alone } = call.server
    if (this.#client.status !== 'ready' || this.#trouble.misdirected) return false
    if (breaker.state.kind !== 'closed' || alone) return false
    if (call.suspect) return sent.size === 0
    if (suspects.size > 0) return false
    // If it has not answered for so long, more commands would only pile up behind the silence.
    return sent.size === 0 || call.server.silence(this.#clock.now()) < call.within
  }

  #wait(call: Call): void {
    const { server } = call
    if (this.#client.status !== 'ready') server.breaker.interrupted(this.#clock.now())
    server.gateOf(call).add(call)
    this.#timeGate(server, call.within)
  }

  /** Refuses the calls at the gate that were given so long, once the outage has lasted for that. */
  #timeGate(server: Server<Call>, within: number): void {
    const left = server.breaker.left(within, this.#clock.now())
    if (left === Number.POSITIVE_INFINITY || server.timed.has(within)) return
    server.timed.add(within)
    const check = () => {
      server.timed.delete(within)
      const waiting = [...server.suspects, ...server.gate].filter((call) => call.within === within)
      if (waiting.length === 0) return
      if (server.breaker.left(within, this.#clock.now()) > 0) return this.#timeGate(server, within)
      for (const call of waiting) this.#giveUp(call)
    }
    // In the next turn: what has arrived meanwhile is read before that.
    if (left === 0) nextTurn(check)
    else this.#clock.after(left, () => nextTurn(check), true)
  }

  #openGate(server: Server<Call>): void {
    if (server.suspects.size === 0 && server.gate.size === 0) return
    for (const gate of [server.suspects, server.gate]) {
      for (const call of gate) {
        if (server.breaker.state.kind !== 'closed' || server.alone) return
        if (!this.#admits(call)) continue
        gate.delete(call)
        this.#send(call)
      }
    }
  }

  #send(call: Call): void {
    const { server } = call
    // What was silent before is so still.
    if (server.sent.size === 0 && !call.silent) server.alive(this.#clock.now())
    server.sent.add(call)
    server.alone = call.suspect
    call.sent = true
    const attempt = ++call.attempt
    this.#request(call).then(
      (reply) => {
        if (attempt === call.attempt) this.#answered(call, reply)
      },
      (error) => {
        if (attempt === call.attempt) this.#refused(call, error)
      },
    )
    this.#watch()
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
  #leave(call: Call): void {
    const { server } = call
    call.sent = false
    // A probe is not sent again.
    if (call.asker === NOBODY) call.told = true
    server.sent.delete(call)
    if (server.sent.size === 0) server.alone = false
    server.unawaited(call)
  }

  #answered(call: Call, reply: unknown): void {
    this.#leave(call)
    if (call.command?.socket === undefined) return
    this.#trouble.answered()
    this.#greeted?.()
    this.#greeted = undefined
    this.#alive(call.server)
    call.server.breaker.answered()
    this.#openGate(call.server)
    if (call.told) call.asker.late?.(reply)
    else if (this.#tells(call)) call.asker.answered(reply)
  }

  #alive(server: Server<Call>): void {
    server.answers++
    server.alive(this.#clock.now())
  }

  #refused(call: Call, error: unknown): void {
    const { server } = call
    const message = messageOf(error)
    const socket = call.command?.socket
    if (socket?.destroyed) return this.lost(call)
    this.#leave(call)
    const answered = socket !== undefined && !UNANSWERED.test(message)
    call.silent = !answered || OUTAGE.test(message)
    if (answered) this.#alive(server)
    if (!call.silent) server.breaker.answered()
    this.#openGate(server)
    if (server.breaker.state.kind === 'half-open') this.#open(server, call)
    if (call.told) return
    const passing = PASSING.test(message) && this.#clock.now() + call.pause < call.deadline
    if (!passing) {
      if (call.silent) this.#open(server, call)
      return this.#fail(call, refused(error))
    }
    call.refusal = causeOf(error)
    this.#pausing++
    this.#clock.after(call.nextPause(), () => {
      this.#pausing--
      if (!call.told) this.#attempt(call)
    })
  }

  lost(call: Call): void {
    const { server, command, size, losses } = call
    // What comes of that time is of no interest any more.
    call.attempt++
    call.command = undefined
    this.#leave(call)
    if (server.breaker.state.kind === 'half-open') this.#open(server, call)
    if (call.told) return
    if (command?.socket && losses + 1 === MAX_LOSSES) {
      const message = `Redis did not answer: sent on ${MAX_LOSSES} connections that each ended before an answer; the ${size} bytes sent, or the answer, may be more than they carry`
      const options = { cause: this.#trouble.error, lostConnections: MAX_LOSSES }
      return this.#fail(call, new UnavailableError(message, options))
    }
    if (command?.socket) call.losses++
    call.silent = true
    this.#wait(call)
    if (isCluster(this.#client)) this.#clock.after(RETRY_LOST, () => this.#openGate(server), true)
  }

  expired(call: Call): void {
    if (call.told) return
    const now = this.#clock.now()
    // It was sent, and others are answered: one server answers in order, so this one's turn will come.
    const left = isCluster(this.#client) ? 0 : call.within - call.server.silence(now)
    if (call.sent && left > 0 && now < call.deadline + MOST * call.within)
      return void this.#clock.after(left, () => this.expired(call), true)
    // If the event loop stood still, replies may lie in the socket, unread: they are read before the next turn ends.
    const late = now - call.deadline > LATE
    const patience = late ? now + call.within : 0
    this.#afterReading(call, call.server.answers, patience)
  }

  /** Gives a call up in the next turn, or later as long as replies still come in. */
  #afterReading(call: Call, answers: number, patience: number): void {
    nextTurn(() => {
      if (call.told) return
      const reading = call.server.answers !== answers && this.#clock.now() < patience
      if (reading) this.#afterReading(call, call.server.answers, patience)
      else this.#giveUp(call)
    })
  }

  #giveUp(call: Call): void {
    const { server, within, refusal } = call
    const { status } = this.#client
    if (call.sent || call.silent || status !== 'ready') this.#open(server, call)
    if (this.#trouble.misdirected) return this.#fail(call, refused(this.#trouble.error))
    const away = status !== 'ready'
    const what = away ? `Redis is not there (client status: ${status})` : 'Redis did not answer'
    const { why, cause } = this.#trouble.why(refusal, away)
    this.#fail(call, new UnavailableError(`${what} within ${within} ms${why}`, { cause }))
  }

  /** The server is silent: calls are refused at once, until it answers a probe. */
  #open(server: Server<Call>, { request }: Call): void {
    server.breaker.refused(server.silentSince)
    if (request.key !== undefined) server.key = request.key
    for (const { within } of server.gate) this.#timeGate(server, within)
    this.#probeLater(server)
  }

  #probeLater(server: Server<Call>): void {
    if (server.probesLater) return
    server.probesLater = true
    const probe = () => {
      server.probesLater = false
      // Once the client is ready again, it is asked then.
      if (this.#closed || server.breaker.state.kind !== 'open' || this.#client.status !== 'ready') return
      if (server.sent.size > 0) return this.#probeLater(server)
      server.breaker.probing()
      this.#probe(server)
    }
    this.#clock.after(PROBE_EVERY, probe, true)
  }

  #probe(server: Server<Call>): void {
    const { key } = server
    const request: Request = { key, send: (sender) => sender.send('hget', [key, 'v']) }
    const call = new Call(request, SOCKET_TIMEOUT, NOBODY, server, this)
    this.#send(call)
  }

  /** Gives up connections of our own that are silent. */
  #watch(): void {
    if (!this.#owned || this.#watching) return
    this.#watching = true
    this.#watchAfter(SOCKET_TIMEOUT)
  }

  #watchAfter(ms: number): void {
    const due = this.#clock.now() + ms
    const check = () => {
      const now = this.#clock.now()
      const left = SOCKET_TIMEOUT - this.#whole.silence(now)
      this.#watching = this.#whole.sent.size > 0 && !this.#closed
      if (!this.#watching) return
      if (left > 0) return this.#watchAfter(left)
      // If the event loop stood still, replies may lie in the socket, unread.
      if (now - due > LATE) return this.#watchAfter(0)
      this.#watching = false
      this.#whole.cut(new Error(`Socket timeout: nothing has come for ${SOCKET_TIMEOUT} ms`))
    }
    this.#clock.after(ms, check, true)
  }

  #fail(call: Call, error: Error): void {
    if (this.#tells(call)) call.asker.failed(error)
  }

  /** Whether the asker is to be told now; at most once. */
  #tells(call: Call): boolean {
    if (call.told) return false
    call.told = true
    call.server.gateOf(call).delete(call)
    call.server.unawaited(call)
    this.#deadlines.delete(call, call.within)
    return true
  }

  /** Refuses further calls, and those at the gate, with ClosedError. Leaves the client as it is. */
  close(): void {
    this.#closed = true
    const error = new ClosedError('The connection was closed')
    for (const { suspects, gate } of this.#servers)
      for (const call of [...suspects, ...gate]) this.#fail(call, error)
    this.#trouble.close()
    this.#client.off('connect', this.#onConnect)
    this.#client.off('ready', this.#onReady)
    this.#client.off('close', this.#onClose)
  }
}
