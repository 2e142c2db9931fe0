import { checkDuration } from '../kernel/options.ts'
import type { WaitNode } from './flight/deadlock.ts'
import type { HeldLease } from './processor/held-lease.ts'

/** How long what is published is kept. */
export interface PublishOptions {
  /** ms; the locker's `ttl` (of `fail`: `errorTtl`) when absent. */
  ttl?: number | undefined
}

/**
 * The right to be the processor of one key, as `request` grants it. It is renewed in the background until it is settled
 * once, by `publish`, `fail` or `release`. With `await using`, leaving the scope releases what was not settled.
 */
export class Lease implements AsyncDisposable {
  /** Tells it from `{ status: 'done' }`: you are the processor. */
  readonly status = 'locked'
  readonly #held: HeldLease

  /** @internal Leases are granted by `request`. */
  constructor(held: HeldLease) {
    this.#held = held
  }

  /** The key that is to be computed. */
  get key(): string {
    return this.#held.call.key
  }

  /** Number of this grant: only grows, so a store that you write to can refuse an older one. 0 when unshared. */
  get fence(): number {
    return this.#held.grant.fence
  }

  /** False when Redis is away and `onUnavailable` is 'local' or 'cached-local': what is published reaches this process alone. */
  get shared(): boolean {
    return this.#held.shared
  }

  /** Aborts with LeaseLostError when the lease is lost or was held for `maxHold`, with ClosedError at the end of `close`. */
  get signal(): AbortSignal {
    return this.#held.signal
  }

  /** @internal What those wait for who wait for it: a stream's work runs under it. */
  get node(): WaitNode {
    return this.#held.node
  }

  /**
   * Hands the result to everyone who waits and keeps it for `ttl`.
   * @throws LeaseLostError when the lease was superseded or settled before; CodecError when the result cannot be carried
   * (everyone who waits receives that as the failure); UnavailableError when Redis did not answer: call it again, it is
   * accepted once.
   */
  async publish(result: unknown, { ttl }: PublishOptions = {}): Promise<void> {
    await this.#held.publish(result, ttl === undefined ? undefined : checkDuration('ttl', ttl))
  }

  /**
   * Hands the failure to everyone who waits, as RemoteError, and keeps it for `ttl`.
   * @throws LeaseLostError, UnavailableError as `publish`.
   */
  async fail(error: unknown, { ttl }: PublishOptions = {}): Promise<void> {
    await this.#held.fail(error, ttl === undefined ? undefined : checkDuration('ttl', ttl))
  }

  /**
   * Gives the lease up unsettled: the next who waits becomes the processor.
   * @throws LeaseLostError when it was settled before.
   */
  async release(): Promise<void> {
    await this.#held.release()
  }

  /** Shows a value to everyone who waits. Throws CodecError when it cannot be carried. */
  progress(value: unknown): void {
    this.#held.progress(value)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#held.isEnding) await this.#held.release()
  }
}
