import { AbortedError, TimeoutError } from '../../errors.ts'
import { shown } from '../../kernel/options.ts'
import type { Deadlines, Timer } from '../../kernel/time.ts'
import { BaseWaiter } from '../../kernel/waiter.ts'
import type { JoinedCall } from '../call.ts'
import type { Lease } from '../lease.ts'
import type { BatchRun } from '../processor/batch-run.ts'

/** Those among whom a waiter waits. */
export interface WaiterOwner {
  /** It was settled. */
  remove(waiter: Waiter): void
  /** It has waited for its `softTimeout`. */
  onSoftTimeout(waiter: Waiter): void
}

/** One caller that waits in a flight. */
export class Waiter extends BaseWaiter {
  readonly call: JoinedCall
  /** The keys of one `runMany` that are claimed together, if this is one of them. */
  readonly batch: BatchRun | undefined
  /** Order of arrival in its flight. */
  seq = 0
  /** Those among whom it waits. */
  #waiters: WaiterOwner | undefined
  readonly #softTimer: Timer | undefined
  /** It has waited for its `softTimeout`: something that is over would do. */
  softTimedOut = false
  /** Called when it waits no longer. */
  onEnd: (() => void) | undefined

  constructor(call: JoinedCall, deadlines: Deadlines, batch: BatchRun | undefined) {
    const { timeout, softTimeout, locker } = call
    super(call, locker.clock, deadlines, call.background)
    this.call = call
    this.batch = batch
    if (softTimeout < timeout)
      this.#softTimer = locker.clock.after(softTimeout, () => this.#onSoftTimeout(), true)
  }

  /** Whether it must not receive anything that an acknowledged invalidation might have preceded. */
  get strict(): boolean {
    return this.call.locker.strict
  }

  /** Leaves `among` when it waits no longer. */
  joined(waiters: WaiterOwner): void {
    this.#waiters = waiters
  }

  #onSoftTimeout(): void {
    this.softTimedOut = true
    this.#waiters?.onSoftTimeout(this)
  }

  expire(): void {
    const { key, timeout, locker } = this.call
    locker.counters.timeouts++
    this.reject(new TimeoutError(`No outcome of ${shown(key)} within ${timeout} ms`, { key }))
  }

  protected onAborted(cause: unknown): void {
    const { key, locker } = this.call
    locker.counters.aborts++
    this.reject(new AbortedError('The caller aborted its waiting', { key, cause }))
  }

  /** There is a result. `request` is given a Done. */
  override resolve(result: unknown): void {
    super.resolve(this.call.work ? result : { status: 'done', result })
  }

  /** It is the processor: of `request` only. */
  grant(lease: Lease): void {
    super.resolve(lease, 'lease')
  }

  protected onEnded(): void {
    this.#softTimer?.cancel()
    this.#waiters?.remove(this)
    this.onEnd?.()
  }
}
