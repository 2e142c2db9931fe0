import { ClosedError, OverloadedError, UnavailableError } from '../errors.ts'
import type { RedisClient } from './client.ts'
import type { Clock, Timer } from './clock.ts'
import type { Script } from './script.ts'
import { tell } from './telemetry.ts'

/** What a call may be told. */
export interface CallOptions {
  /** Longest wait for the reply, ms. */
  within: number
  /** Called with a reply that came after the call had been rejected: what it did still stands. */
  late?: ((reply: unknown) => void) | undefined
}

/** Commands that may wait for Redis, sent or not, at a time. */
const MAX_PENDING = 100_000

/** Replies that say «not now»: tried again until the deadline. */
const PASSING =
  /^(LOADING|BUSY|READONLY|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|NOREPLICAS|UNBLOCKED|-?LOADING)\b|max number of clients/

/** Pause before a passing refusal is tried again, ms; doubles up to the second. */
const RETRY_FIRST = 20
const RETRY_LAST = 320

/**
 * The command client, and a gate before it: while Redis is away or silent, calls wait here, bounded in number and
 * time, and not in the client's own queues, which know no deadline.
 */
export class Commands {
  readonly #client: RedisClient
  readonly #clock: Clock
  /** Calls at the gate. Each is called once, when the gate may have opened. */
  readonly #waiting = new Set<() => void>()
  /** Sent and unanswered, also when the caller has given up. */
  #unanswered = 0
  /** When the client last showed life: a reply, or the first command after silence. */
  #lifeAt = 0
  #closed = false

  constructor(client: RedisClient, clock: Clock) {
    this.#client = client
    this.#clock = clock
    // An 'error' event without a listener would end the process. What failed is told by the calls themselves.
    client.on('error', this.#onError)
    client.on('ready', this.#onReady)
    client.on('close', this.#onClose)
  }

  /** Sent and not yet answered. */
  get pending(): number {
    return this.#unanswered + this.#waiting.size
  }

  readonly #onError = (error: Error): void => tell('connection', { link: 'commands', up: false, error })

  readonly #onReady = (): void => {
    this.#lifeAt = this.#clock.now()
    tell('connection', { link: 'commands', up: true })
    this.#openGate()
  }

  readonly #onClose = (): void => tell('connection', { link: 'commands', up: false })

  /**
   * Runs a script. Rejects with UnavailableError when there was no usable reply in time, with OverloadedError when too
   * many calls wait already, with ClosedError after `close`.
   */
  async call(
    script: Script,
    keys: readonly string[],
    args: readonly (string | Buffer)[],
    options: CallOptions,
  ): Promise<unknown> {
    if (this.pending >= MAX_PENDING)
      throw new OverloadedError(`${MAX_PENDING} commands wait for Redis already`)
    const deadline = this.#clock.now() + options.within
    for (let pause = RETRY_FIRST; ; pause = Math.min(pause * 2, RETRY_LAST)) {
      if (!this.#isOpen(options.within)) await this.#pass(deadline, options.within)
      try {
        return await this.#send(script, keys, args, deadline, options.late)
      } catch (error) {
        if (error instanceof UnavailableError || error instanceof ClosedError) throw error
        const passing = error instanceof Error && PASSING.test(error.message)
        if (!passing || this.#clock.now() + pause >= deadline) {
          throw new UnavailableError(`Redis refused: ${messageOf(error)}`, { cause: error })
        }
        await new Promise<void>((resume) => this.#clock.after(pause, resume))
      }
    }
  }

  #isOpen(patience: number): boolean {
    if (this.#closed) throw new ClosedError('The connection is closed')
    if (this.#client.status !== 'ready') return false
    // Ready, but has not answered for so long that more commands would only pile up behind the silence.
    return this.#unanswered === 0 || this.#clock.now() - this.#lifeAt < patience
  }

  /** Waits until the gate may be open. */
  async #pass(deadline: number, patience: number): Promise<void> {
    const status = this.#client.status
    if (status === 'wait') this.#client.connect().catch(() => {})
    if (status === 'end') throw new UnavailableError('The Redis client was closed')
    while (!this.#isOpen(patience)) {
      const left = deadline - this.#clock.now()
      if (left <= 0) throw new UnavailableError(`Redis is not there (client status: ${this.#client.status})`)
      await this.#change(left)
    }
  }

  /** Resolves when the gate may have opened, or after `ms`. */
  #change(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const wake = () => {
        timer.cancel()
        this.#waiting.delete(wake)
        resolve()
      }
      const timer: Timer = this.#clock.after(ms, wake)
      this.#waiting.add(wake)
    })
  }

  #openGate(): void {
    for (const wake of [...this.#waiting]) wake()
  }

  /** One attempt. The reply, or what the client rejects with, or UnavailableError at the deadline. */
  #send(
    script: Script,
    keys: readonly string[],
    args: readonly (string | Buffer)[],
    deadline: number,
    late: ((reply: unknown) => void) | undefined,
  ): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const sentAt = this.#clock.now()
      let given = false
      const timer = this.#clock.after(deadline - sentAt, () => {
        given = true
        reject(new UnavailableError(`Redis did not answer within ${Math.round(deadline - sentAt)} ms`))
      })
      if (this.#unanswered++ === 0) this.#lifeAt = sentAt
      script.run(this.#client, keys, args).then(
        (reply) => {
          this.#answered()
          timer.cancel()
          if (given) late?.(reply)
          else resolve(reply)
        },
        (error) => {
          this.#answered()
          timer.cancel()
          if (!given) reject(error)
        },
      )
    })
  }

  #answered(): void {
    this.#unanswered--
    this.#lifeAt = this.#clock.now()
    if (this.#waiting.size > 0) this.#openGate()
  }

  /** Refuses further calls, and lets those at the gate go with ClosedError. Leaves the client as it is. */
  close(): void {
    this.#closed = true
    this.#openGate()
    this.#client.off('ready', this.#onReady)
    this.#client.off('close', this.#onClose)
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
