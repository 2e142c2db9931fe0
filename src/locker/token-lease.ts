import { LeaseLostError } from '../errors.ts'
import { encodeProgress, encodeWith } from '../kernel/codec/codec.ts'
import { encodeFailure, exposedFailure } from '../kernel/codec/failure.ts'
import { checkDuration, checkLease } from '../kernel/options.ts'
import { emit } from '../kernel/telemetry.ts'
import type { JoinedCall } from './call.ts'
import type { PublishOptions } from './lease.ts'
import { track } from './locker-context.ts'
import { outcomeRetention } from './processor/lease-state.ts'
import { createToken, type TokenGrant } from './processor/lease-token.ts'
import type { Settlement } from './store/store.ts'

/**
 * A lease that is held by its token, in any process. Nobody renews it in the background: it runs out unless {@link renew} is
 * called, and can still be settled for as long again, until another process takes over. It has no state: the store decides
 * whether it is held. All methods reject with ClosedError when the locker that it was asked of is closed.
 */
export class TokenLease {
  /** Distinguishes a lease from `{ status: 'done' }`. */
  readonly status = 'locked'
  readonly #call: JoinedCall
  readonly #grant: TokenGrant

  /** @internal Granted by `request`, or named by `held`. `inbox`: of the process that it was granted to. */
  constructor(call: JoinedCall, { record, nonce, attempt, fence, lease }: TokenGrant, inbox: string) {
    this.#call = call
    this.#grant = { record, inbox, nonce, attempt, fence, lease }
  }

  /** The key to compute. */
  get key(): string {
    return this.#call.key
  }

  /** Fencing token of this grant. It only grows, so a store can refuse writes with an older one. */
  get fence(): number {
    return this.#grant.fence
  }

  /** Duration of the lease from its grant, and from a renewal without a duration of its own, ms. */
  get lease(): number {
    return this.#grant.lease
  }

  /** Names the lease for `locker.held`, in any process. A secret: anyone who has it can settle the lease. */
  get token(): string {
    return createToken(this.key, this.#grant, this.#grant.inbox ?? '')
  }

  /**
   * Gives the result to all waiters, and keeps it for `ttl`.
   * @throws LeaseLostError when the lease is lost, released, or settled with another outcome; CodecError when the result
   * cannot be encoded: the lease is held as before; UnavailableError when Redis gave no reply. After UnavailableError call it
   * again: the result is accepted once.
   */
  async publish(result: unknown, { ttl }: PublishOptions = {}): Promise<void> {
    if (ttl !== undefined) checkDuration('ttl', ttl)
    const { codec, locker, ttl: standard } = this.#call
    const jittered = standard * (1 - Math.random() * locker.ttlJitter)
    await this.#settle('value', encodeWith(codec, result), Math.round(ttl ?? jittered))
  }

  /**
   * Gives the failure to all waiters, as RemoteError, and keeps it for `ttl`.
   * @throws LeaseLostError, UnavailableError as `publish`.
   */
  async fail(error: unknown, { ttl }: PublishOptions = {}): Promise<void> {
    if (ttl !== undefined) checkDuration('ttl', ttl)
    const { locker, context, errorTtl } = this.#call
    await this.#settle(
      'error',
      encodeFailure(exposedFailure(locker.exposeError, context, error)),
      ttl ?? errorTtl,
    )
  }

  async #settle(kind: 'value' | 'error', bytes: Buffer, ttl: number): Promise<void> {
    const { locker, keepStale } = this.#call
    const settlement: Settlement = {
      ...this.#grant,
      kind,
      bytes,
      ttl,
      keepStale: kind === 'value' ? keepStale : 0,
      tags: '',
      bypassFor: 0,
      outcomeRetention: outcomeRetention(this.#grant.lease),
    }
    const { accepted } = await this.#tracked(() => locker.store.settle(settlement, locker.unavailableAfter))
    if (!accepted) throw this.#lost()
    locker.counters.settled++
    emit('settle', { key: this.key, fence: this.fence, failed: kind === 'error' })
  }

  /**
   * Gives the lease up without a result: a waiter becomes the processor.
   * @throws LeaseLostError when the lease is lost, or was settled before; UnavailableError.
   */
  async release(): Promise<void> {
    const { store, unavailableAfter } = this.#call.locker
    const release = {
      ...this.#grant,
      outcomeRetention: outcomeRetention(this.#grant.lease),
      asExpired: false,
      regrant: undefined,
    }
    const { released } = await this.#tracked(() => store.release(release, unavailableAfter))
    if (!released) throw this.#lost()
  }

  /**
   * The lease lasts `lease` ms from now on. Returns false when it is lost, released or settled.
   * @throws UnavailableError; TypeError when `lease` is less than 100.
   */
  async renew(lease: number = this.#grant.lease): Promise<boolean> {
    checkLease('lease', lease)
    const { store, unavailableAfter } = this.#call.locker
    const renewal = { ...this.#grant, lease: Math.ceil(lease) }
    return (await this.#tracked(() => store.renew(renewal, unavailableAfter))).held
  }

  /**
   * Sends a value to the `onProgress` of all waiters. Returns false when the lease is lost, released or settled.
   * @throws CodecError when it cannot be encoded, or is too large; UnavailableError.
   */
  async progress(value: unknown): Promise<boolean> {
    const { codec, key, locker } = this.#call
    const bytes = encodeProgress(codec, value, key)
    const progress = { ...this.#grant, bytes }
    return await this.#tracked(() => locker.store.progress(progress, locker.unavailableAfter))
  }

  /** `close` waits for the reply. */
  #tracked<T>(request: () => Promise<T>): Promise<T> {
    this.#call.locker.checkOpen(this.key)
    const reply = request()
    track(this.#call.locker, reply)
    return reply
  }

  #lost(): LeaseLostError {
    return new LeaseLostError('Not accepted: the lease is lost, released or settled', { key: this.key })
  }
}
