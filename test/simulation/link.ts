import { ClosedError, UnavailableError } from '../../src/errors.ts'
import type { SimProcess } from './process.ts'
import type { Random } from './random.ts'
import type { Scheduler } from './scheduler.ts'
import type { CommonPlan, FaultyServer } from './world.ts'

/** A request without a reply. */
interface Request {
  name: string
  /** Called each time that it is sent: what `execute` is given. */
  prepare: () => unknown
  /** Runs it at the server. May run twice, if its reply was lost: `isRepeated`, it was sent before. */
  execute: (isRepeated: boolean, prepared: unknown) => Promise<unknown>
  answer: (reply: unknown) => void
  refuse: (error: Error) => void
  /** Whether its time limit is over. */
  isOver: () => boolean
  /** How often it was sent. */
  sent: number
}

/**
 * The command connection of a process. It delays requests, and may be cut. Unanswered requests are then sent again, as
 * ioredis does after a reconnect, or rejected. In both cases their effect at the server stands.
 */
export class Link {
  readonly #process: SimProcess
  readonly #scheduler: Scheduler
  readonly #server: FaultyServer
  readonly #random: Random
  readonly #plan: CommonPlan
  readonly #say: (line: () => string) => void
  readonly #resendsLate: boolean
  /** Sent without a reply, in the order of sending. */
  readonly #unanswered = new Set<Request>()
  /** Not sent, because the connection is down. */
  readonly #waiting = new Set<Request>()
  /** Number of the connection. Replies on an earlier one are lost. */
  #epoch = 0
  #up = true
  #closed = false
  #faulty = true
  #lastArrival = 0
  #lastReply = 0
  /** Arrived while the server was frozen, in order. */
  readonly #held: (() => void)[] = []

  /** `resendsLate`: requests are sent again also after their time limit. */
  constructor(
    process: SimProcess,
    world: { scheduler: Scheduler; server: FaultyServer; random: Random; plan: CommonPlan },
    say: (line: () => string) => void,
    { resendsLate = true }: { resendsLate?: boolean } = {},
  ) {
    this.#resendsLate = resendsLate
    this.#process = process
    this.#scheduler = world.scheduler
    this.#server = world.server
    this.#random = world.random
    this.#plan = world.plan
    this.#say = say
  }

  /**
   * Sends a request and resolves to its reply, or rejects after `within`. `late` receives a reply that came after that. `prepare`: is
   * called each time that it is sent; `execute` is given its result.
   */
  call<T>(
    name: string,
    execute: (isRepeated: boolean, prepared: unknown) => Promise<T>,
    within: number,
    late?: (reply: T) => void,
    prepare: () => unknown = () => undefined,
  ): Promise<T> {
    return new Promise((resolve, reject) => {
      if (this.#closed) return reject(new ClosedError('The connection is closed'))
      let given = false
      const request: Request = {
        name,
        prepare,
        execute,
        answer: (reply) => {
          timer.cancel()
          if (given) late?.(reply as T)
          else resolve(reply as T)
        },
        refuse: (error) => {
          timer.cancel()
          given = true
          reject(error)
        },
        isOver: () => given,
        sent: 0,
      }
      const timer = this.#process.clock.after(within, () => {
        given = true
        const sent = !this.#waiting.delete(request)
        reject(new UnavailableError(`No answer within ${within} ms`, { sent }))
      })
      if (this.#faulty && this.#random.chance(this.#plan.refused)) {
        const refuse = () => request.refuse(new UnavailableError('Refused'))
        this.#process.at(this.#scheduler.now + this.#delay(), refuse)
      } else if (this.#up) this.#send(request)
      else this.#waiting.add(request)
    })
  }

  #delay(): number {
    const { latency, spikes, spike } = this.#plan
    if (this.#faulty && this.#random.chance(spikes)) return this.#random.between(latency, spike)
    return Math.min(this.#random.exponential(latency), latency * 5)
  }

  #send(request: Request): void {
    this.#unanswered.add(request)
    const isRepeated = ++request.sent > 1
    const epoch = this.#epoch
    const prepared = request.prepare()
    const run = () => this.#run(request, epoch, isRepeated, prepared)
    const arrival = this.#scheduler.now + this.#delay()
    this.#lastArrival = this.#plan.ordered ? Math.max(arrival, this.#lastArrival) : arrival
    this.#arrive(run, this.#lastArrival)
  }

  #arrive(run: () => void, at: number): void {
    this.#scheduler.at(at, () => {
      const { frozenUntil } = this.#server
      if (frozenUntil <= this.#scheduler.now && this.#held.length === 0) return run()
      if (this.#held.push(run) === 1) this.#scheduler.at(frozenUntil, this.#thaw)
    })
  }

  /** Runs the first request that is held. The server may have been frozen for longer meanwhile. */
  readonly #thaw = (): void => {
    const { frozenUntil } = this.#server
    if (frozenUntil <= this.#scheduler.now) this.#held.shift()?.()
    if (this.#held.length > 0) this.#scheduler.at(frozenUntil, this.#thaw)
  }

  #run(request: Request, epoch: number, isRepeated: boolean, prepared: unknown): void {
    // A request of an earlier connection may still arrive; its reply is lost.
    if (epoch < this.#epoch && this.#random.chance(0.5)) return
    this.#say(() => `    ${request.name} runs${epoch < this.#epoch ? ', its connection is gone' : ''}`)
    void request.execute(isRepeated, prepared).then((reply) => this.#reply(request, epoch, reply))
  }

  #reply(request: Request, epoch: number, reply: unknown): void {
    const arrival = this.#scheduler.now + this.#delay()
    this.#lastReply = this.#plan.ordered ? Math.max(arrival, this.#lastReply) : arrival
    this.#process.at(this.#lastReply, () => {
      if (epoch !== this.#epoch || !this.#unanswered.delete(request)) return
      request.answer(reply)
    })
  }

  /** Cuts the connection for a while. `resend`: unanswered requests are sent again; otherwise they are rejected. */
  cut(downFor: number, resend: boolean): void {
    if (!this.#up || this.#closed) return
    this.#up = false
    this.#epoch++
    if (!resend) this.#refuseAll()
    this.#process.at(this.#scheduler.now + downFor, () => this.reconnect())
  }

  #refuseAll(): void {
    const lost = [...this.#unanswered]
    this.#unanswered.clear()
    for (const request of lost) {
      this.#process.at(this.#scheduler.now, () =>
        request.refuse(new UnavailableError('Connection is closed')),
      )
    }
  }

  reconnect(): void {
    if (this.#up || this.#closed) return
    this.#up = true
    const again = [...this.#unanswered, ...this.#waiting]
    this.#unanswered.clear()
    this.#waiting.clear()
    for (const request of again) if (this.#resendsLate || !request.isOver()) this.#send(request)
  }

  /** No more faults. */
  heal(): void {
    this.#faulty = false
    this.#process.at(this.#scheduler.now, () => this.reconnect())
  }

  close(): void {
    this.#closed = true
    this.#epoch++
    this.#refuseAll()
    for (const request of this.#waiting) request.refuse(new ClosedError('The connection is closed'))
    this.#waiting.clear()
  }
}
