import { CodecError, LeaseLostError, type RemoteFailure, type SoloflightError } from '../errors.ts'
import type { Timer } from '../kernel/clock.ts'
import { encodeWith, messageOf } from '../kernel/codec.ts'
import { tell } from '../kernel/telemetry.ts'
import { describeFailure, encodeFailure } from './failure.ts'
import { MESSAGE_LIMIT, type Outcome } from './store.ts'
import type { Call } from './waiter.ts'

/** The flight, as far as its holding tells it how things went. */
export interface HoldingFlight {
  readonly nonce: string
  /** Number of the last waiter that has joined. */
  readonly seq: number
  /** Accepted. `sentSeq` and `sentAt`: when it went out. `original`: the thrown value, of a failure. */
  settled(outcome: Outcome, sentSeq: number, sentAt: number, original: unknown): void
  lost(holding: Holding): void
  released(holding: Holding): Promise<void>
  /** Until that waiter, nothing can have been invalidated before it joined. */
  vouch(seq: number): void
  /** The key was invalidated while this is held. */
  doomed(): void
  showProgress(bytes: Buffer): void
}

/** A grant, as the flight received it. */
export interface HoldingGrant {
  attempt: number
  fence: number
  /** When the claim went out: the lease counts from there. */
  sentAt: number
  /** False when there is no lease at all, because Redis is away. */
  shared: boolean
}

/** Progress is told this often at most, ms. */
const PROGRESS_EVERY = 50

/** A lease is renewed after this part of it. */
const RENEW_AFTER = 1 / 3

/** How long before its end a lease counts as lost, ms: what the signal needs to be heard. */
export function marginOf(lease: number): number {
  return Math.min(200, lease / 10)
}

/** What was settled is remembered for longer than anybody waits before looking again, ms. */
export function lingerOf(lease: number): number {
  return Math.ceil(lease * 1.25 + 1000)
}

/**
 * One grant in the hands of this process: renews the lease, knows when it is lost, and ends it once, by settling or
 * releasing. Never reused: the next grant is another object.
 */
export class Holding {
  readonly call: Call
  readonly grant: HoldingGrant
  readonly #flight: HoldingFlight
  readonly #abort = new AbortController()
  #renewal: Timer | undefined
  #loss: Timer | undefined
  #limit: Timer | undefined
  /** When that went out which last extended the lease. */
  #renewedAt = 0
  /** What could not be published, because the store did not answer. */
  unaccepted: Outcome | undefined
  /** Settled or released, or on the way there. */
  #ending = false
  /** On the way: resolves when it is known whether it was settled. */
  #settling: Promise<void> | undefined
  #ended = false
  #lost = false
  /** The progress that is still to be told, and when it may be. */
  #unsaid: Buffer | undefined
  #saying: Timer | undefined

  constructor(call: Call, grant: HoldingGrant, flight: HoldingFlight) {
    this.call = call
    this.grant = grant
    this.#flight = flight
    this.#register()
    this.#limit = call.caller.clock.after(call.caller.maxHold, () => this.#letGo(), true)
    if (!grant.shared) return
    this.#expect(grant.sentAt)
    this.#renewLater(call.lease * RENEW_AFTER)
  }

  get signal(): AbortSignal {
    return this.#abort.signal
  }

  /** Whether the flight has moved on without it. */
  get lost(): boolean {
    return this.#lost
  }

  /** Whether it was settled or released, or is about to be. */
  get ended(): boolean {
    return this.#ending
  }

  #register(): void {
    const { holdings } = this.call.caller
    const held = holdings.get(this.call.record)
    if (held) held.add(this)
    else holdings.set(this.call.record, new Set([this]))
  }

  /** Publishes a value. What cannot be carried fails the flight instead, and throws CodecError. */
  async publish(value: unknown, ttl: number = this.call.ttl): Promise<void> {
    let bytes: Buffer
    try {
      bytes = encodeWith(this.call.caller.codec, value)
    } catch (cause) {
      const { key } = this.call
      const error = new CodecError(`The result cannot be published: ${messageOf(cause)}`, { key, cause })
      await this.fail(error, 0)
      throw error
    }
    const { ttlJitter } = this.call.caller
    await this.#settle('value', bytes, Math.round(ttl * (1 - Math.random() * ttlJitter)))
  }

  /** Publishes a failure. */
  async fail(error: unknown, ttl: number = this.call.errorTtl): Promise<void> {
    await this.#settle('error', encodeFailure(this.#exposed(error)), ttl, error)
  }

  /** What of a failure leaves the process; nothing but that it happened, if the hook that decides it fails. */
  #exposed(error: unknown): RemoteFailure {
    try {
      return this.call.caller.exposeError(describeFailure(error), error)
    } catch {
      return { name: 'Error', message: 'The work failed' }
    }
  }

  #settle(kind: Outcome['kind'], bytes: Buffer, ttl: number, original?: unknown): Promise<void> {
    const settled = this.#trySettle(kind, bytes, ttl, original)
    if (!this.#settling) this.#settling = settled.catch(() => {}).finally(() => (this.#settling = undefined))
    return settled
  }

  async #trySettle(kind: Outcome['kind'], bytes: Buffer, ttl: number, original: unknown): Promise<void> {
    this.#begin()
    const { caller, key, record, lease } = this.call
    const { fence, attempt, shared } = this.grant
    const sentSeq = this.#flight.seq
    const sentAt = caller.clock.now()
    let doomed = false
    if (shared) {
      const settlement = {
        key: record,
        nonce: this.#flight.nonce,
        attempt,
        fence,
        kind,
        bytes,
        ttl,
        linger: lingerOf(lease),
      }
      const reply = await caller.store.settle(settlement, this.#limits()).catch((error) => {
        this.unaccepted = { kind, fence: 0, bytes, fresh: 0, doomed: false }
        this.#resume()
        throw error
      })
      if (!reply.accepted) throw this.#refused()
      doomed = reply.doomed
      caller.counters.settled++
      tell('settle', { key, fence, failed: kind === 'error' })
    }
    this.#end()
    const fresh = doomed || !shared ? 0 : ttl
    this.#flight.settled({ kind, fence, bytes, fresh, doomed }, sentSeq, sentAt, original)
  }

  /** Gives the lease up: the next waiter becomes the processor. */
  async release(): Promise<void> {
    this.#begin()
    this.#stop()
    try {
      await this.#flight.released(this)
    } finally {
      this.#end()
    }
  }

  /** It was lost before anything was done under it. */
  forsake(): void {
    this.#end()
  }

  /** What was to end it failed: it is held as before, as far as it still is. */
  #resume(): void {
    this.#ending = false
    if (this.#lost) return this.#flight.lost(this)
    this.#expect(this.#renewedAt)
    this.#renewLater(0)
  }

  #begin(): void {
    const { key } = this.call
    if (this.#ending) throw new LeaseLostError('The lease is settled or released already', { key })
    this.#ending = true
  }

  #refused(): LeaseLostError {
    this.#ending = false
    if (this.#lost) this.#flight.lost(this)
    else this.#lose('The lease was lost: another holds it, or it ran out too long ago')
    this.#end()
    return new LeaseLostError('Not accepted: the lease was lost', { key: this.call.key })
  }

  /** Nothing more is to be expected of it. */
  #end(): void {
    this.#ending = true
    this.#ended = true
    this.#stop()
    this.#limit?.cancel()
    const { holdings } = this.call.caller
    const held = holdings.get(this.call.record)
    if (held?.delete(this) && held.size === 0) holdings.delete(this.call.record)
  }

  #stop(): void {
    this.#renewal?.cancel()
    this.#loss?.cancel()
    this.#saying?.cancel()
  }

  /** The lease was extended by what went out at `sentAt`: it is lost a margin before a lease after that. */
  #expect(sentAt: number): void {
    const { lease, caller } = this.call
    this.#renewedAt = sentAt
    this.#loss?.cancel()
    const left = sentAt + lease - marginOf(lease) - caller.clock.now()
    this.#loss = caller.clock.after(
      left,
      () => this.#lose('The lease ran out: it could not be renewed in time'),
      true,
    )
  }

  #renewLater(ms: number): void {
    this.#renewal?.cancel()
    this.#renewal = this.call.caller.clock.after(ms, () => this.#renew(), true)
  }

  #renew(): void {
    const { caller, lease, record } = this.call
    const { attempt, fence } = this.grant
    const sentAt = caller.clock.now()
    const sentSeq = this.#flight.seq
    caller.store
      .renew({ key: record, nonce: this.#flight.nonce, attempt, fence, lease }, this.#limits())
      .then(
        ({ held, doomed }) => {
          if (this.#ending || this.#lost) return
          if (!held) return this.#lose('The lease was lost: another holds it')
          if (doomed) this.#flight.doomed()
          else this.#flight.vouch(sentSeq)
          this.#expect(sentAt)
          this.#renewLater(lease * RENEW_AFTER)
        },
        () => {
          if (!this.#ended && !this.#lost) this.#renewLater(Math.min(lease / 10, 500))
        },
      )
  }

  #limits(): { within: number } {
    return { within: this.call.caller.unavailableAfter }
  }

  #lose(message: string): void {
    if (this.#lost) return
    this.#lost = true
    this.#stop()
    const { key, caller } = this.call
    caller.counters.lost++
    tell('lost', { key, fence: this.grant.fence })
    this.#abort.abort(new LeaseLostError(message, { key }))
    // While a publish is under way, it may still be accepted: what comes of that decides.
    if (!this.#ending) this.#flight.lost(this)
  }

  /** Held for the longest time allowed, or until `close` would wait no longer: stops the work and hands over. */
  async handOver(reason: SoloflightError): Promise<void> {
    while (this.#settling) await this.#settling
    if (this.#ending) return
    this.#abort.abort(reason)
    await this.release().catch(() => {})
  }

  #letGo(): void {
    const { key, caller } = this.call
    if (this.#lost) this.#end()
    else
      void this.handOver(
        new LeaseLostError(`The lease was held for ${caller.maxHold} ms and is let go`, { key }),
      )
  }

  /** Shows a value to all who wait. Throws CodecError when it cannot be carried or is too large for a message. */
  progress(value: unknown): void {
    if (this.#ending || this.#lost) return
    const { key, caller } = this.call
    const bytes = encodeWith(caller.codec, value)
    if (bytes.length > MESSAGE_LIMIT)
      throw new CodecError(`Progress of ${bytes.length} bytes is too large`, { key })
    this.#flight.showProgress(bytes)
    this.#unsaid = bytes
    if (this.grant.shared && !this.#saying) this.#say()
  }

  #say(): void {
    const bytes = this.#unsaid
    this.#saying = undefined
    if (!bytes) return
    this.#unsaid = undefined
    const { caller, record } = this.call
    const { attempt, fence } = this.grant
    // Progress is a courtesy: if it cannot be told, the work goes on.
    caller.store
      .progress({ key: record, nonce: this.#flight.nonce, attempt, fence, bytes }, this.#limits())
      .catch(() => {})
    this.#saying = caller.clock.after(PROGRESS_EVERY, () => this.#say(), true)
  }
}
