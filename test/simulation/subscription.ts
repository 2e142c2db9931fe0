import type { SimProcess } from './process.ts'
import type { Random } from './random.ts'
import type { Scheduler } from './scheduler.ts'
import type { CommonPlan } from './world.ts'

/** A lost subscription is detected within this time, ms. */
export const DETECTED_WITHIN = 2000

/** The subscription of a process. It delays, loses, repeats and reorders messages, and is lost itself. */
export class Subscription {
  readonly #process: SimProcess
  readonly #scheduler: Scheduler
  readonly #random: Random
  readonly #plan: CommonPlan
  readonly #listeners: ReadonlySet<{ up(): void; down(): void }>
  /** Whether the process believes that messages arrive. */
  #subscribed = false
  /** Whether the server sends; whether messages are lost on the way. */
  #connected = false
  #silent = false
  /** Number of the connection. Messages of an earlier one are lost. */
  #epoch = 0
  #closed = false
  #faulty = true
  #last = 0
  /** Messages that have not arrived, if they arrive in order. */
  readonly #underWay: { epoch: number; deliver: () => void }[] = []

  constructor(
    process: SimProcess,
    world: { scheduler: Scheduler; random: Random; plan: CommonPlan },
    listeners: ReadonlySet<{ up(): void; down(): void }>,
  ) {
    this.#process = process
    this.#scheduler = world.scheduler
    this.#random = world.random
    this.#plan = world.plan
    this.#listeners = listeners
  }

  get subscribed(): boolean {
    return this.#subscribed
  }

  /** Sends a message. Returns whether it is received, as far as the server knows. `hint`: it may be lost or repeated alone. */
  send(deliver: () => void, hint: boolean): boolean {
    if (!this.#connected || this.#closed) return false
    if (this.#silent) return true
    const { lost, repeated } = this.#plan
    if (hint && this.#faulty && this.#random.chance(lost)) return true
    this.#carry(deliver)
    while (hint && this.#faulty && this.#random.chance(repeated)) this.#carry(deliver)
    return true
  }

  #carry(deliver: () => void): void {
    const { latency, spikes, spike, ordered } = this.#plan
    const slow = this.#faulty && this.#random.chance(spikes)
    const delay = slow
      ? this.#random.between(latency, spike)
      : Math.min(this.#random.exponential(latency), 5 * latency)
    const arrival = this.#scheduler.now + delay
    this.#last = ordered ? Math.max(arrival, this.#last) : arrival
    const message = { epoch: this.#epoch, deliver }
    if (ordered) this.#underWay.push(message)
    this.#process.at(this.#last, () => {
      // Also when the process stood still, and goes on with its events in another order.
      const next = ordered ? this.#underWay.shift() : message
      if (next?.epoch === this.#epoch) next.deliver()
    })
  }

  /** Loses the connection. `silently`: the server does not know. The process detects it later and connects again. */
  lose(silently: boolean, noticedAfter: number, downFor: number): void {
    if (!this.#connected || this.#closed) return
    if (silently) this.#silent = true
    else this.#connected = false
    const epoch = this.#epoch
    this.#process.at(this.#scheduler.now + noticedAfter, () => {
      if (epoch === this.#epoch) this.#notice(downFor)
    })
  }

  #notice(downFor: number): void {
    this.#epoch++
    this.#connected = false
    this.#silent = false
    if (this.#subscribed) {
      this.#subscribed = false
      for (const listener of this.#listeners) listener.down()
    }
    this.connect(downFor)
  }

  /** Subscribes after a while. The process knows a little later. */
  connect(after: number): void {
    this.#process.at(this.#scheduler.now + after, () => {
      if (this.#connected || this.#closed) return
      this.#connected = true
      this.#process.at(this.#scheduler.now + this.#random.exponential(this.#plan.latency), () => this.#up())
    })
  }

  #up(): void {
    if (!this.#connected || this.#silent || this.#closed) return
    if (this.#subscribed) return
    this.#subscribed = true
    for (const listener of this.#listeners) listener.up()
  }

  /** Ends all faults: a lost connection is detected. */
  heal(): void {
    this.#faulty = false
    this.#process.at(this.#scheduler.now, () => {
      if (this.#silent || !this.#connected) this.#notice(1)
    })
  }

  /** The process is dead. `known`: the server knows it. */
  forsake(known: boolean): void {
    if (known) this.#connected = false
    else this.#silent = true
  }

  close(): void {
    this.#closed = true
    this.#connected = false
    this.#subscribed = false
  }
}
