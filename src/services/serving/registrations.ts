import { hostname } from 'node:os'
import process from 'node:process'
import { type Clock, lossMargin, RENEW_AFTER, renewalRetryPause, type Timer } from '../../kernel/time.ts'
import type { ServicesContext } from '../options.ts'
import type { Registration } from '../store/store.ts'

/** A process that serves a service, as `up` and `down` announce it. */
export interface ServingInfo {
  /** Id of its Services object. */
  readonly id: string
  readonly host: string
  readonly pid: number
  readonly service: string
  readonly version: string
}

/** What a registration says about this process. */
export function describe(id: string, service: string, version: string): string {
  const info: ServingInfo = { id, host: hostname(), pid: process.pid, service, version }
  return JSON.stringify(info)
}

/** What an announcement says about a process; undefined if somebody forged it. */
export function parseInfo(text: string): ServingInfo | undefined {
  try {
    const { id, host, pid, service, version } = JSON.parse(text)
    const valid = [id, host, service, version].every((value) => typeof value === 'string')
    return valid && typeof pid === 'number' ? { id, host, pid, service, version } : undefined
  } catch {
    return undefined
  }
}

/** One service that this process is registered for. */
interface Held {
  readonly registration: () => Registration
  /** Until when the lease surely holds, by the clock, ms. */
  holdsUntil: number
  /** How often the lease has ended before it was renewed. */
  lapses: number
  /** Whether calls that were delivered before such an end may still be unread. */
  behind: boolean
}

export interface RegistrationsListener {
  /** All leases were renewed. */
  onRenewed(): void
  /** A mark about the service is to be sent. */
  onBehind(service: string): void
}

/**
 * The leases of this process on the services that it serves. All are renewed together, a third of a lease after the last
 * renewal. A renewal registers the process anew if Redis has lost its record, or another process has struck it off.
 *
 * After the end of a lease, a renewal alone does not make it hold: its reply may overtake calls that were delivered while the
 * process stood still. A mark is sent after them; the lease holds again when that has arrived too.
 */
export class Registrations {
  readonly #context: ServicesContext
  readonly #clock: Clock
  readonly #held = new Map<string, Held>()
  readonly #listener: RegistrationsListener
  #timer: Timer | undefined
  /** 'outdated': one is under way, and was to be sent again since: the process may have been struck off behind it. */
  #renewal: 'none' | 'underWay' | 'outdated' = 'none'

  constructor(context: ServicesContext, listener: RegistrationsListener) {
    this.#context = context
    this.#clock = context.clock
    this.#listener = listener
  }

  get services(): readonly string[] {
    return [...this.#held.keys()]
  }

  /** What is left of the lease on a service, ms; 0 when it does not surely hold. */
  leaseLeft(service: string): number {
    const held = this.#held.get(service)
    return held && !held.behind ? this.#left(held) : 0
  }

  #left({ holdsUntil }: Held): number {
    return Math.max(0, holdsUntil - this.#clock.now())
  }

  /** How often the lease on a service has ended. */
  lapsesOf(service: string): number {
    return this.#held.get(service)?.lapses ?? 0
  }

  /** All that was delivered before the mark that was sent after so many lapses has been read. */
  onMark(service: string, lapses: number): void {
    const held = this.#held.get(service)
    if (held?.lapses === lapses) held.behind = false
  }

  /** Registers a service. Rejects if Redis does not answer; then it is not registered. */
  async add(service: string, registration: () => Registration): Promise<void> {
    const held: Held = { registration, holdsUntil: Number.NEGATIVE_INFINITY, lapses: 0, behind: false }
    this.#held.set(service, held)
    const [error] = await this.#register([held])
    if (error) {
      this.#held.delete(service)
      throw error
    }
    this.#renewLater(this.#context.options.lease * RENEW_AFTER)
  }

  /** Stops renewing. */
  remove(service: string): void {
    this.#held.delete(service)
    if (this.#held.size === 0) this.#stopTimer()
  }

  /** Resolves with the error of each, undefined where the lease holds. */
  async #register(held: readonly Held[]): Promise<readonly (Error | undefined)[]> {
    const { store, options, storeTimeout } = this.#context
    const sentAt = this.#clock.now()
    const errors = await store.register(
      held.map(({ registration }) => registration()),
      storeTimeout,
    )
    const holdsUntil = sentAt + options.lease - lossMargin(options.lease)
    for (const [index, each] of held.entries()) if (!errors[index]) each.holdsUntil = holdsUntil
    return errors
  }

  /** Renews all leases now. */
  async renew(): Promise<void> {
    if (this.#held.size === 0) return
    if (this.#renewal !== 'none') {
      this.#renewal = 'outdated'
      return
    }
    this.#renewal = 'underWay'
    this.#stopTimer()
    const { lease } = this.#context.options
    for (const held of this.#held.values()) if (this.#left(held) === 0) this.#onLapse(held)
    const renewed = this.#register([...this.#held.values()])
    for (const [service, { behind }] of this.#held) if (behind) this.#listener.onBehind(service)
    const errors = await renewed
    if (errors.includes(undefined)) this.#listener.onRenewed()
    const isOutdated = this.#isOutdated
    this.#renewal = 'none'
    if (isOutdated) return this.renew()
    const allHold = errors.every((error) => error === undefined)
    this.#renewLater(allHold ? lease * RENEW_AFTER : renewalRetryPause(lease))
  }

  get #isOutdated(): boolean {
    return this.#renewal === 'outdated'
  }

  #onLapse(held: Held): void {
    if (!held.behind) held.lapses++
    held.behind = true
  }

  #renewLater(pause: number): void {
    if (this.#timer || this.#renewal !== 'none' || this.#held.size === 0) return
    this.#timer = this.#clock.after(
      pause,
      () => {
        this.#timer = undefined
        void this.renew()
      },
      true,
    )
  }

  #stopTimer(): void {
    this.#timer?.cancel()
    this.#timer = undefined
  }
}
