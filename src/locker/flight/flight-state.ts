import type { Transitions } from '../../kernel/collections.ts'
import { callHook } from '../../kernel/hooks.ts'
import { MAX_TRACE_LENGTH } from '../../kernel/keys.ts'
import type { Clock, Timer } from '../../kernel/time.ts'
import type { JoinedCall } from '../call.ts'
import type { HeldLease } from '../processor/held-lease.ts'
import { ANY_STALENESS, type Claim, type Outcome, WAIT_POLL } from '../store/store.ts'
import type { Waiter } from './waiter-set.ts'

/**
 * A flight asks the store through its claimant, or processes the key itself:
 *
 *   from        event                                                            to
 *   asking      granted; Redis is unavailable; it begins as a bypass             processing
 *   asking      granted too late to be used, or to a caller that hands it on     asking
 *   processing  released, and granted anew in the same step                      processing
 *   processing  the lease is lost or released; granted anew as in the line above asking
 *   both        an outcome that some waiters may not receive                     asking
 *   both        an outcome for all waiters; failed for all; no waiter is left    closed
 *
 * A waiter may not receive an outcome that was last known to be valid before the waiter joined. While a work runs under a
 * lease, a flight without waiters closes when the work or the lease ends.
 */
export type FlightState = typeof ASKING | Processing | typeof CLOSED

export const FLIGHT_TRANSITIONS: Transitions<FlightState['kind']> = {
  asking: ['processing', 'closed'],
  // Processing again: released, and granted anew in the same step.
  processing: ['asking', 'processing', 'closed'],
  closed: [],
}

/** The claimant of the flight asks the store. */
export const ASKING = { kind: 'asking' } as const

/** Every waiter is settled, or waits in another flight. */
export const CLOSED = { kind: 'closed' } as const

/** A work of this process runs, or a caller of this process has the lease. */
export class Processing {
  readonly kind = 'processing'
  readonly held: HeldLease
  /** Of a bypass: the last fence when it began. */
  readonly bypassFence: number

  constructor(held: HeldLease, bypassFence: number) {
    this.held = held
    this.bypassFence = bypassFence
  }
}

/**
 * The states of a claimant: what it asks the store on behalf of its flight.
 *
 *   from               event                                                     to
 *   idle               the flight begins                                         reading; claiming when it refreshes
 *   idle               the lease of the flight is lost or released               claiming
 *   reading            there is no value that the policy accepts                 claiming
 *   claiming           granted                                                   idle
 *   claiming           another process holds the lease, or the flight only waits parked
 *   claiming           the reply is a stale value, a bypass or a dead processor  claiming
 *   parked             the lease ends; the record is free; a message was missed  claiming
 *   parked             it was to claim again when the reply came                 claiming
 *   reading, claiming, the result has an invalidated tag, or cannot be decoded   claiming
 *   parked
 *   reading, claiming  Redis is unavailable                                      idle
 *   all but done       an outcome that some waiters may not receive              reading; claiming if it was not stored,
 *                                                                                or when it refreshes
 *   all but done       the flight is closed                                      done
 *
 * A flight that begins as a bypass has an idle claimant.
 */
export type ClaimantState = typeof IDLE | typeof READING | Claiming | Parked | typeof DONE

export const CLAIMANT_TRANSITIONS: Transitions<ClaimantState['kind']> = {
  idle: ['reading', 'claiming', 'done'],
  reading: ['reading', 'claiming', 'idle', 'done'],
  claiming: ['reading', 'claiming', 'parked', 'idle', 'done'],
  parked: ['reading', 'claiming', 'done'],
  done: [],
}

/** Asks nothing: before the flight begins, and while it processes. */
export const IDLE = { kind: 'idle' } as const

/** The value is being read, which costs the server a tenth of a claim. */
export const READING = { kind: 'reading' } as const

export const DONE = { kind: 'done' } as const

// Made by constructors: see kernel/collections.ts.

export class Claiming {
  readonly kind = 'claiming'
  /** The grant whose outcome the flight waits for, so that it may read it even if it was not stored; 0: none. */
  readonly awaitedFence: number
  /** Something happened that the reply may not show. If the reply parks the flight, it claims again. */
  mustClaimAgain = false
  #hasProgress = false

  constructor(awaitedFence: number) {
    this.awaitedFence = awaitedFence
  }

  /** A message brought progress. The reply was made before that, as far as is known. Nothing up to `afterFence` is awaited. */
  onProgress(afterFence: number): void {
    if (this.awaitedFence > afterFence) this.#hasProgress = true
    else this.mustClaimAgain = true
  }

  /** Whether a message brought progress of this grant: what the reply holds may be older. */
  hasProgressOf(fence: number): boolean {
    return this.#hasProgress && this.awaitedFence === fence
  }
}

/** Polls of parked flights are late by this at most, so that those of all processes do not coincide, ms. */
const POLL_JITTER = 25

/** How often a parked flight polls while no messages arrive, ms. */
const POLL_WHILE_DISCONNECTED = 500

/**
 * How long a flight may be parked before it asks again, ms: until the lease that it waits for ends. A flight that only waits
 * is also parked where there is no lease.
 */
export function parkedFor(leaseLeft: number, { kind }: JoinedCall): number {
  if (kind !== 'wait') return leaseLeft
  return leaseLeft > 0 ? Math.min(leaseLeft, WAIT_POLL) : WAIT_POLL
}

/** A message will tell the outcome of another process. */
export class Parked {
  readonly kind = 'parked'
  /** The grant whose outcome the flight waits for. */
  readonly awaitedFence: number
  /** When it polls at the latest, by the clock. */
  readonly #pollAt: number
  readonly #clock: Clock
  readonly #poll: () => void
  #timer: Timer | undefined

  /** Messages are hints: it also calls `poll` after `pause` ms. */
  constructor(awaitedFence: number, pause: number, clock: Clock, poll: () => void) {
    this.awaitedFence = awaitedFence
    this.#pollAt = clock.now() + pause
    this.#clock = clock
    this.#poll = poll
  }

  /** Calls `poll` at its time; soon, when no messages arrive. */
  schedulePoll(subscribed: boolean): void {
    const left = this.#pollAt - this.#clock.now()
    const pause = subscribed ? left : Math.min(left, POLL_WHILE_DISCONNECTED)
    this.stopPolling()
    this.#timer = this.#clock.after(pause + 1 + Math.random() * POLL_JITTER, this.#poll)
  }

  stopPolling(): void {
    this.#timer?.cancel()
  }
}

/** What a flight is told by its claimant. */
export interface ClaimantListener {
  /** A request is sent. Its result may be older than calls made from now on. */
  onSent(): void
  onOutcome(outcome: Outcome, from: 'reply' | 'message'): void
  /** This process is the processor. The lease counts from when the claim was sent. */
  onGranted(attempt: number, fence: number, sentAt: number): void
  /** Redis is unavailable. Waiters that do not accept a result of this process alone were settled. */
  onUnavailable(): void
  /** No waiter can be served. Makes the error of each. */
  onFailed(error: (key: string) => unknown): void
  /** This waiter runs its own work. `fence`: the last one. */
  onBypass(waiter: Waiter, fence: number): void
  /** Nobody waits for a reply any more. */
  onLastWaiterGone(): void
  /** To the holder: nobody is parked any more. */
  onUnwanted(): void
}

/** What the next claim accepts as its answer. Changed by its claimant. */
export class ClaimPolicy {
  /** Only results of grants after this fence. */
  afterFence: number
  /** Only a result that begins after the claim. */
  refresh: boolean
  /** While another process holds the lease, a value that has been stale for less than this, ms, answers the claim. */
  acceptStale: number
  /** Whether waiters may be told to run their own works. A caller that asked for a lease needs one. */
  allowBypass: boolean

  constructor({ afterFence, refresh, staleWhileRevalidate, work }: JoinedCall) {
    this.afterFence = afterFence
    this.refresh = refresh
    this.acceptStale = staleWhileRevalidate
    this.allowBypass = work !== undefined
  }

  /** Nothing up to `fence` is accepted any more. */
  rejectUpTo(fence: number): void {
    this.afterFence = Math.max(this.afterFence, fence)
  }

  /** `awaitedFence`: see {@link Claiming}. `takeover`: whether the flight may replace a processor that died. */
  claim(call: JoinedCall, nonce: string, attempt: number, awaitedFence: number, takeover: boolean): Claim {
    return {
      record: call.record,
      nonce,
      attempt,
      lease: call.lease,
      afterFence: this.afterFence,
      parkedFence: awaitedFence,
      refresh: this.refresh,
      takeover,
      maxStaleness: ANY_STALENESS,
      acceptStaleWhileHeld: this.acceptStale,
      allowBypass: this.allowBypass,
      expectedFence: 0,
      waitOnly: call.kind === 'wait',
      trace: traceOf(call),
    }
  }
}

/** The trace context that the hook of the user returns, if it returns one. */
function traceOf({ locker, context }: JoinedCall): string {
  const trace: unknown = locker.trace && callHook(context, 'trace', locker.trace)
  return typeof trace === 'string' ? trace.slice(0, MAX_TRACE_LENGTH) : ''
}
