import { ClosedError, OverloadedError, UnavailableError } from '../errors.ts'
import { isCluster, type RedisClient } from './client.ts'
import type { Clock } from './clock.ts'
import { Deadlines, type Pending } from './deadlines.ts'
import { tell } from './telemetry.ts'

/** What is asked of Redis: one command, or one script. */
export interface Request {
  /** Sends it once. Rejects with whatever the client rejects with. */
  send(client: RedisClient): Promise<unknown>
}

/** Who asks, and is called back. */
export interface Asker {
  answered(reply: unknown): void
  /** With UnavailableError, OverloadedError or ClosedError. */
  failed(error: Error): void
  /** With a reply that came after `failed`: what it did still stands. */
  late?(reply: unknown): void
}

/** Commands that may wait for Redis, sent or not, at a time. */
const MAX_PENDING = 100_000

/** Replies that say «not now»: tried again until the deadline. Redis 6 puts those of a script behind its own words. */
const PASSING = new RegExp(
  [
    '(^|: -?)(LOADING|BUSY|READONLY|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|NOREPLICAS|UNBLOCKED)\\b',
    'max number of clients',
    '^Connection is closed',
    '^Too many Cluster redirections',
    "^Cluster isn't ready",
    '^Failed to refresh slots cache',
  ].join('|'),
)

/** Pause before a passing refusal is tried again, ms; doubles up to the last. */
const RETRY_FIRST = 20
const RETRY_LAST = 320

/** As long as others are answered, a call is waited for up to so many times longer than it was given. */
const MOST = 4

/** A timer that fires so much too late (ms) tells that the event loop stood still. */
const LATE = 20

/** One request on its way: at the gate, sent, or pausing before it is sent again. */
class Call implements Pending {
  deadline = 0
  pause = RETRY_FIRST
  /** On its way, and not refused yet. */
  sent = false
  /** Answered, failed or expired: the asker has been told. */
  told = false
  /** Why it is sent again. */
  refusal: unknown
  readonly request: Request
  readonly asker: Asker
  readonly within: number
  readonly #expired: (call: Call) => void

  constructor(request: Request, asker: Asker, within: number, expired: (call: Call) => void) {
    this.request = request
    this.asker = asker
    this.within = within
    this.#expired = expired
  }

  expire(): void {
    this.#expired(this)
  }
}

/**
 * The command client, and a gate before it: while Redis is away or silent, calls wait here, bounded in number and
 * time, and not in the client's own queues, which know no deadline.
 */
export class Commands {
  readonly #client: RedisClient
  readonly #clock: Clock
  readonly #deadlines: Deadlines
  /** Calls that wait for the gate to open. */
  readonly #gate = new Set<Call>()
  /** Sent and unanswered, also when the caller has given up. */
  #unanswered = 0
  /** Replies so far. */
  #answers = 0
  /** When the last of them came. */
  #answeredAt = Number.NEGATIVE_INFINITY
  /** Pausing before they are sent again. */
  #pausing = 0
  /** When the client last showed life: a reply, or the first command after silence. */
  #lifeAt = 0
  /** Why the client is not ready, as far as it said. */
  #trouble: Error | undefined
  #closed = false

  constructor(client: RedisClient, clock: Clock) {
    this.#client = client
    this.#clock = clock
    this.#deadlines = new Deadlines(clock)
    // An 'error' event without a listener would end the process. What failed is told by the calls themselves.
    client.on('error', this.#onError)
    client.on('ready', this.#onReady)
    client.on('close', this.#onClose)
  }

  /** Waiting for Redis: sent, or not yet. */
  get pending(): number {
    return this.#unanswered + this.#pausing + this.#gate.size
  }

  readonly #onError = (error: Error): void => {
    this.#trouble = error
    tell('connection', { link: 'commands', up: false, error })
  }

  readonly #onReady = (): void => {
    this.#lifeAt = this.#clock.now()
    this.#trouble = undefined
    tell('connection', { link: 'commands', up: true })
    this.#openGate()
  }

  readonly #onClose = (): void => tell('connection', { link: 'commands', up: false })

  /** Asks, and calls back exactly once by `within` ms; then once more if a reply comes after all. */
  ask(request: Request, within: number, asker: Asker): void {
    const call = new Call(request, asker, within, this.#expired)
    if (this.#closed) return this.#fail(call, new ClosedError('The connection is closed'))
    if (this.pending >= MAX_PENDING) {
      return this.#fail(call, new OverloadedError(`${MAX_PENDING} commands wait for Redis already`))
    }
    this.#deadlines.add(call, within)
    this.#attempt(call)
  }

  #attempt(call: Call): void {
    if (this.#isOpen(call.within)) return this.#send(call)
    const { status } = this.#client
    if (status === 'end') return this.#fail(call, new UnavailableError('The Redis client was closed'))
    if (status === 'wait') this.#client.connect().catch(() => {})
    this.#gate.add(call)
  }

  #isOpen(patience: number): boolean {
    if (this.#client.status !== 'ready') return false
    // The silence of one node says nothing of the others.
    if (isCluster(this.#client)) return true
    // Ready, but has not answered for so long that more commands would only pile up behind the silence.
    return this.#unanswered === 0 || this.#clock.now() - this.#lifeAt < patience
  }

  #openGate(): void {
    for (const call of [...this.#gate]) {
      this.#gate.delete(call)
      this.#attempt(call)
    }
  }

  #send(call: Call): void {
    if (this.#unanswered++ === 0) this.#lifeAt = this.#clock.now()
    call.sent = true
    call.request.send(this.#client).then(
      (reply) => {
        this.#showedLife()
        if (call.told) call.asker.late?.(reply)
        else if (this.#tells(call)) call.asker.answered(reply)
      },
      (error) => {
        this.#showedLife()
        if (!call.told) this.#refused(call, error)
      },
    )
  }

  #showedLife(): void {
    this.#unanswered--
    this.#answers++
    this.#lifeAt = this.#clock.now()
    this.#answeredAt = this.#lifeAt
    if (this.#gate.size > 0) this.#openGate()
  }

  #refused(call: Call, error: unknown): void {
    call.sent = false
    const message = error instanceof Error ? error.message : String(error)
    const passing = PASSING.test(message) && this.#clock.now() + call.pause < call.deadline
    if (!passing) return this.#fail(call, new UnavailableError(`Redis refused: ${message}`, { cause: error }))
    call.refusal = error
    this.#pausing++
    this.#clock.after(call.pause, () => {
      this.#pausing--
      if (!call.told) this.#attempt(call)
    })
    call.pause = Math.min(call.pause * 2, RETRY_LAST)
  }

  readonly #expired = (call: Call): void => {
    if (call.told) return
    const now = this.#clock.now()
    // It was sent, and others are answered: one server answers in order, so this one's turn will come.
    const silence = now - this.#answeredAt
    if (
      call.sent &&
      !isCluster(this.#client) &&
      silence < call.within &&
      now < call.deadline + MOST * call.within
    )
      return void this.#clock.after(call.within - silence, () => this.#expired(call), true)
    // If the event loop stood still, replies may lie in the socket, unread: they are read before the next turn ends.
    const late = now - call.deadline > LATE
    const patience = late ? now + call.within : 0
    this.#afterReading(call, this.#answers, patience)
  }

  /** Fails a call in the next turn, or later as long as replies still come in. */
  #afterReading(call: Call, answers: number, patience: number): void {
    setImmediate(() => {
      if (call.told) return
      const reading = this.#answers !== answers && this.#clock.now() < patience
      if (reading) this.#afterReading(call, this.#answers, patience)
      else this.#fail(call, this.#silence(call))
    })
  }

  #silence(call: Call): UnavailableError {
    const what = this.#gate.has(call)
      ? `Redis is not there (client status: ${this.#client.status})`
      : 'Redis did not answer'
    return new UnavailableError(`${what} within ${call.within} ms`, { cause: call.refusal ?? this.#trouble })
  }

  #fail(call: Call, error: Error): void {
    if (this.#tells(call)) call.asker.failed(error)
  }

  /** Whether the asker is to be told now; at most once. */
  #tells(call: Call): boolean {
    if (call.told) return false
    call.told = true
    this.#gate.delete(call)
    this.#deadlines.delete(call, call.within)
    return true
  }

  /** Refuses further calls, and those at the gate, with ClosedError. Leaves the client as it is. */
  close(): void {
    this.#closed = true
    for (const call of [...this.#gate]) this.#fail(call, new ClosedError('The connection was closed'))
    this.#client.off('error', this.#onError)
    this.#client.off('ready', this.#onReady)
    this.#client.off('close', this.#onClose)
  }
}
