import type { StoreListener } from '../../../src/locker/store/store.ts'
import type { Plan } from './plan.ts'
import type { SimProcess } from './process.ts'
import type { Random } from './random.ts'
import type { Scheduler } from './scheduler.ts'

/** A lost subscription is noticed after this long at the latest, ms. */
export const DETECTED_WITHIN = 2000

/** The subscription of a process: delays, loses, repeats and reorders messages, and is lost itself. */
export class Subscription {
  readonly #process: SimProcess
  readonly #scheduler: Scheduler
  readonly #random: Random
  readonly #plan: Plan
  readonly #listeners: ReadonlySet<StoreListener>
  /** Whether the process believes that messages arrive. */
  #subscribed = false
  /** Whether the server sends, and whether what it sends arrives. */
  #connected = false
  #silent = false
  /** Counts connections: what was under way on an earlier one is lost. */
  #epoch = 0
  #closed = false
  #faulty = true
  #last = 0

  constructor(
    process: SimProcess,
    world: { scheduler: Scheduler; random: Random; plan: Plan },
    listeners: ReadonlySet<StoreListener>,
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

  /** Carries a message to the process; false when nobody receives it. `hint`: it may be lost alone, and repeated. */
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
    const epoch = this.#epoch
    this.#process.at(this.#last, () => {
      if (epoch === this.#epoch) deliver()
    })
  }

  /** The connection is lost; `silently`: the server does not know. The process notices later and connects again. */
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

  /** Subscribes, after a while; is told so a little later than it is true. */
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

  /** No more faults: what is lost is noticed. */
  heal(): void {
    this.#faulty = false
    this.#process.at(this.#scheduler.now, () => {
      if (this.#silent || !this.#connected) this.#notice(1)
    })
  }

  /** The process is dead: the server knows it now, or does not for a while. */
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
