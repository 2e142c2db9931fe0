import { ClosedError, LeaseLostError, type SoloflightError, UnavailableError } from '../../errors.ts'
import { assertTransition, TransientMap, TransientSet, type Transitions } from '../../kernel/collections.ts'
import { newId } from '../../kernel/keys.ts'
import { AsyncContext, type Timer } from '../../kernel/time.ts'
import { type Slot, WorkScheduler } from '../../kernel/work-scheduler.ts'
import type { EventReporter } from '../events.ts'
import { acceptTimeout, type QueueContext } from '../options.ts'
import type { QueueCensusItem } from '../store/census-item.ts'
import type { Delivery, WorkerListener, WorkerRef } from '../store/store.ts'
import { Attempt, type AttemptDeps } from './attempt.ts'
import { type AttemptResult, tooLargeResult } from './attempt-result.ts'
import { CapacityAnnouncer } from './capacity-announcer.ts'
import type { Handler } from './running-job.ts'

/** What a worker tells its queue. */
export interface WorkerHooks {
  /** A job is due in `ms`. */
  dueIn(ms: number): void
  /** Several announcements of the capacity in a row have failed. */
  announcementsFail(error: unknown): void
}

/** Delay before a report that got no reply is repeated, ms. */
const RETRY_AFTER = 200

/** Longest time between two checks of the leases, ms. */
const MAX_LEASE_CHECK_INTERVAL = 100

/** After so many handlers in a row that did not block the event loop, the next is expected not to block it either. */
const NON_BLOCKING_HANDLERS = 10

/**
 * | state   | deliveries, attempts without a slot | report of an attempt  | stopDeliveries() | cancelAndRequeue()           |
 * | ------- | ----------------------------------- | --------------------- | ---------------- | ---------------------------- |
 * | open    | are accepted and run                | releases its slot     | closing          |                              |
 * | closing | are requeued                        | releases no slot      |                  | closed: all are requeued     |
 * | closed  | are requeued                        | releases no slot      |                  |                              |
 */
type WorkerState = 'open' | 'closing' | 'closed'

const WORKER_TRANSITIONS: Transitions<WorkerState> = { open: ['closing'], closing: ['closed'], closed: [] }

/**
 * Processes the jobs of one command in this process, up to `concurrency` at once.
 *
 * delivery → accept by the store, unless handlers do not block → wait for a slot → run the handler → report the result
 */
export class Worker implements WorkerListener {
  readonly name: WorkerRef
  readonly #handler: Handler
  readonly #concurrency: number
  readonly #deps: AttemptDeps
  readonly #events: EventReporter
  readonly #hooks: WorkerHooks
  /** Attempts that were delivered and have not ended, by key. */
  readonly #attempts = new TransientMap<string, Attempt>()
  readonly #scheduler: WorkScheduler
  /** Number of handlers in a row that did not block the event loop. Then a delivery can be accepted while others run. */
  #nonBlocking = 0
  /** Requeues that are under way. */
  readonly #requeues = new TransientSet<Promise<unknown>>()
  /** Number of attempts that are being accepted. */
  #accepting = 0
  #leaseCheckTimer: Timer | undefined
  readonly #announcer: CapacityAnnouncer
  #state: WorkerState = 'open'
  readonly #unlisten: () => void
  /** Resolves `drained`. Called when no attempt is left. */
  #onIdle: (() => void) | undefined

  constructor(
    command: string,
    handler: Handler,
    concurrency: number,
    queue: QueueContext,
    events: EventReporter,
    hooks: WorkerHooks,
  ) {
    this.name = { nonce: newId(), command }
    this.#handler = handler
    this.#concurrency = concurrency
    this.#deps = { ...queue, worker: this.name, context: new AsyncContext() }
    this.#events = events
    this.#hooks = hooks
    this.#scheduler = new WorkScheduler(concurrency, queue.clock, { batchable: true })
    this.#unlisten = queue.store.listen({ up: () => this.onCapacityRequested(), down: () => {} })
    this.#announcer = new CapacityAnnouncer({
      clock: queue.clock,
      announce: () => this.#announce(),
      onFailing: (error) => hooks.announcementsFail(error),
    })
  }

  /** Number of handlers that run or are about to. */
  get busy(): number {
    return this.#scheduler.running + this.#accepting
  }

  /** The worker and its running jobs, for a census. */
  *census(now: number): Generator<QueueCensusItem> {
    const { command } = this.name
    const { queue, options } = this.#deps
    const common = { queue, prefix: options.prefix, command }
    yield { ...common, kind: 'worker', concurrency: this.#concurrency, busy: this.busy }
    for (const { id, number, startedAt, delivery } of this.#attempts.values()) {
      if (startedAt === undefined) continue
      yield { ...common, kind: 'running', id, fence: delivery.fence, attempt: number, age: now - startedAt }
    }
  }

  /** Tells the store how many jobs this worker can take. */
  async #announce(): Promise<void> {
    const { store, within } = this.#deps
    // Jobs delivered without a subscription would be lost until their leases end. `up` announces again.
    if (!store.subscribed) throw new UnavailableError('Not subscribed yet')
    await store.setCapacity(this.name, () => Math.max(0, this.#concurrency - this.busy), this, within)
    this.#deps.registration.keep()
    // The worker was not told of jobs that were delayed before the store knew it.
    this.#hooks.dueIn(0)
  }

  onCapacityRequested(): void {
    this.#announcer.request()
  }

  onDue(ms: number): void {
    this.#hooks.dueIn(ms)
  }

  onDelivery(delivery: Delivery): void {
    const attempt = new Attempt(delivery, this.#deps)
    if (this.#attempts.has(attempt.key)) return
    if (this.#state !== 'open') return this.#requeue(attempt, closedError())
    this.#attempts.set(attempt.key, attempt)
    this.#scheduleLeaseChecks()
    // A shorter lease could be lost before it is renewed.
    const isLasting = delivery.leaseLeft > 6 * leaseCheckInterval(this.#deps.options.lease)
    if (attempt.ready && isLasting && this.#nonBlocking >= NON_BLOCKING_HANDLERS) this.#admit(attempt)
    else void this.#accept(attempt)
  }

  /**
   * Asks the store whether the lease is still held: it may have ended on the way. This also extends the lease, in case the
   * handler blocks the event loop for longer than an unaccepted lease lasts.
   */
  async #accept(attempt: Attempt): Promise<void> {
    this.#accepting++
    await attempt.accept()
    this.#accepting--
    if (attempt.ready) this.#admit(attempt)
    else this.#drop(attempt)
  }

  #admit(attempt: Attempt): void {
    if (this.#state !== 'open') return this.#giveBack(attempt, closedError())
    if (this.#scheduler.running < this.#concurrency)
      return this.#scheduler.schedule((slot) => this.#start(attempt, slot))
    // An announcement and a delivery crossed, so one slot was counted twice. Another worker may have a free slot.
    this.#giveBack(attempt, new LeaseLostError('No slot was free', { key: attempt.id }))
  }

  #start(attempt: Attempt, slot: Slot): void {
    if (attempt.ready && this.#state === 'open') {
      const { clock } = this.#deps
      const startedAt = clock.now()
      void this.#run(attempt, slot)
      this.#nonBlocking++
      return this.#onEventLoopStall(clock.now() - startedAt)
    }
    slot.release()
    if (attempt.lost) return this.#drop(attempt)
    if (this.#state === 'open') return void this.#accept(attempt)
    this.#giveBack(attempt, closedError())
  }

  /** The event loop was blocked for `ms`. A delivery that is not accepted yet might not survive a longer block. */
  #onEventLoopStall(ms: number): void {
    if (ms >= acceptTimeout(this.#deps.options.lease) / 8) this.#nonBlocking = 0
  }

  /** Removes an attempt that has ended. */
  #forget(attempt: Attempt): void {
    this.#attempts.delete(attempt.key)
    if (this.#attempts.size === 0) this.#onIdle?.()
  }

  /** Requeues an attempt that never started. */
  #giveBack(attempt: Attempt, reason: SoloflightError): void {
    this.#requeue(attempt, reason)
    this.#forget(attempt)
  }

  /** Ends an attempt that was lost, or not accepted in time, before it started. The store still counts its slot as used. */
  #drop(attempt: Attempt): void {
    attempt.lose(
      new LeaseLostError('The delivery was not accepted before its lease ended', { key: attempt.id }),
    )
    this.#forget(attempt)
    this.#events.lost(attempt, attempt.lossReason)
    this.#announcer.request()
  }

  async #run(attempt: Attempt, slot: Slot): Promise<void> {
    const { clock } = this.#deps
    this.#events.started(attempt)
    const startedAt = clock.now()
    const result = await attempt.run(this.#handler)
    slot.release()
    const accepted = await this.#report(attempt, result)
    if (accepted) {
      this.#events.ended(attempt, accepted, clock.now() - startedAt)
      if (accepted.kind === 'retry') this.#hooks.dueIn(accepted.delay)
    } else {
      // An attempt that ended at `maxHold` has emitted its outcome already.
      if (attempt.lost) this.#events.lost(attempt, attempt.lossReason)
      // A lost attempt does not release its slot in the store.
      this.#announcer.request()
    }
    this.#forget(attempt)
  }

  /** Reports an attempt that exceeded `maxHold`. Its handler still runs; its result will be ignored. */
  async #reportOverdue(attempt: Attempt, result: AttemptResult): Promise<void> {
    if (!(await attempt.reportOverdue(result))) return
    this.#events.ended(attempt, result, this.#deps.options.maxHold)
    if (result.kind === 'retry') this.#hooks.dueIn(result.delay)
  }

  /** Reports the result to the store until it answers or the lease is lost. Returns the accepted result, if any. */
  async #report(attempt: Attempt, result: AttemptResult): Promise<AttemptResult | undefined> {
    // An attempt that exceeded `maxHold` ends with that report, unless the store refuses it.
    if (attempt.overdueReport) await attempt.overdueReport
    let reported = result
    while (!attempt.ended) {
      try {
        const reply = await attempt.report(reported, this.#state === 'open')
        return reply === 'lost' ? undefined : reported
      } catch (error) {
        const tooLarge = error instanceof UnavailableError && error.lostConnections > 0
        if (tooLarge && reported === result) reported = tooLargeResult(attempt, error)
        else await new Promise<void>((resume) => this.#deps.clock.after(RETRY_AFTER, resume))
      }
    }
    return undefined
  }

  onCancelled(id: string, fence: number): void {
    this.#attempts.get(`${fence} ${id}`)?.cancel()
  }

  #scheduleLeaseChecks(): void {
    if (this.#leaseCheckTimer) return
    const { clock, options } = this.#deps
    const every = leaseCheckInterval(options.lease)
    const at = clock.now() + every
    this.#leaseCheckTimer = clock.after(
      every,
      () => {
        this.#leaseCheckTimer = undefined
        this.#onEventLoopStall(clock.now() - at)
        for (const attempt of this.#attempts.values()) {
          const overrun = attempt.checkLease()
          if (overrun) void this.#reportOverdue(attempt, overrun)
        }
        if (this.#attempts.size > 0) this.#scheduleLeaseChecks()
      },
      true,
    )
  }

  #requeue(attempt: Attempt, reason: SoloflightError): void {
    const requeue = attempt.requeue(reason)
    this.#requeues.add(requeue)
    void requeue.finally(() => this.#requeues.delete(requeue))
  }

  #enter(state: WorkerState): void {
    assertTransition('worker', WORKER_TRANSITIONS, this.#state, state)
    this.#state = state
  }

  /** Stops deliveries to this worker. */
  async stopDeliveries(): Promise<void> {
    this.#enter('closing')
    this.#announcer.stop()
    this.#unlisten()
    const { store, within } = this.#deps
    await store.removeWorker(this.name, within).catch(() => {})
  }

  /** Resolves when no attempt is left, or after `grace` ms. */
  async drained(grace: number): Promise<void> {
    if (this.#attempts.size === 0) return
    let timer: Timer | undefined
    await new Promise<void>((resume) => {
      this.#onIdle = resume
      if (grace !== Number.POSITIVE_INFINITY) timer = this.#deps.clock.after(grace, resume)
    })
    // The timer would keep the process alive.
    timer?.cancel()
  }

  /** Aborts the attempts that still run, and requeues their jobs for other workers. */
  async cancelAndRequeue(): Promise<void> {
    this.#enter('closed')
    for (const attempt of this.#attempts.values()) {
      if (!attempt.ended) this.#requeue(attempt, closedError())
    }
    await Promise.all(this.#requeues)
    this.#leaseCheckTimer?.cancel()
    this.#deps.store.unregister(this.name.nonce)
  }
}

function closedError(): ClosedError {
  return new ClosedError('The queue was closed')
}

/** Time between two checks of the leases, ms. Shorter than the margin of a lease, so that a loss is noticed in time. */
function leaseCheckInterval(lease: number): number {
  return Math.min(lease / 20, MAX_LEASE_CHECK_INTERVAL)
}
