import { checkDuration } from '../kernel/options.ts'
import type { WaitNode } from '../kernel/work-scheduler.ts'
import type { HeldLease } from './processor/held-lease.ts'
import { createToken } from './processor/lease-token.ts'

/** Options of `publish` and `fail`. */
export interface PublishOptions {
  /** How long the result is kept, ms. Default: the locker's `ttl`; for `fail`, its `errorTtl`. */
  ttl?: number | undefined
}

/**
 * The right to be the processor of one key, granted by `request`. It is renewed in the background until it ends: once, by
 * `publish`, `fail` or `release`. With `await using`, the end of the scope releases a lease that was not settled.
 */
export class Lease implements AsyncDisposable {
  /** Distinguishes a lease from `{ status: 'done' }`. */
  readonly status = 'locked'
  readonly #held: HeldLease

  /** @internal Leases are granted by `request`. */
  constructor(held: HeldLease) {
    this.#held = held
  }

  /** The key to compute. */
  get key(): string {
    return this.#held.call.key
  }

  /** Fencing token of this grant. It only grows, so a store can refuse writes with an older one. 0 when unshared. */
  get fence(): number {
    return this.#held.grant.fence
  }

  /** False when Redis is unavailable and `onUnavailable` is 'local' or 'cached-local': only this process gets the result. */
  get shared(): boolean {
    return this.#held.shared
  }

  /**
   * Names the lease for {@link Locker.held}, in any process; '' when unshared. A secret: anyone who has it can settle the lease.
   * This process goes on renewing the lease, and learns of an outcome that was published by the token after a third of `lease` at
   * most.
   */
  get token(): string {
    const { call, grant } = this.#held
    return this.shared ? createToken(call.key, grant, call.locker.store.inbox) : ''
  }

  /** Aborts with LeaseLostError when the lease is lost or was held for `maxHold`, and with ClosedError at the end of `close`. */
  get signal(): AbortSignal {
    return this.#held.signal
  }

  /** @internal The node of the deadlock graph that the waiters of this lease wait for. */
  get node(): WaitNode {
    return this.#held.node
  }

  /**
   * Gives the result to all waiters, and keeps it for `ttl`.
   * @throws LeaseLostError when the lease was lost, settled or released before; CodecError when the result cannot be
   * encoded (all waiters receive that error too); UnavailableError when Redis gave no reply. After UnavailableError call
   * it again: the result is accepted once.
   */
  async publish(result: unknown, { ttl }: PublishOptions = {}): Promise<void> {
    if (ttl !== undefined) checkDuration('ttl', ttl)
    await this.#held.publish(result, ttl)
  }

  /**
   * Gives the failure to all waiters, as RemoteError, and keeps it for `ttl`.
   * @throws LeaseLostError, UnavailableError as `publish`.
   */
  async fail(error: unknown, { ttl }: PublishOptions = {}): Promise<void> {
    if (ttl !== undefined) checkDuration('ttl', ttl)
    await this.#held.fail(error, ttl)
  }

  /**
   * Gives the lease up without a result: the next waiter becomes the processor.
   * @throws LeaseLostError when the lease was settled or released before.
   */
  async release(): Promise<void> {
    await this.#held.release()
  }

  /** Sends a value to the `onProgress` of all waiters. @throws CodecError when it cannot be encoded, or is too large. */
  progress(value: unknown): void {
    this.#held.progress(value)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#held.isEnding) await this.#held.release()
  }
}
