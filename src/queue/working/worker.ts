import { ClosedError, type SoloflightError, UnavailableError } from '../../errors.ts'
import { TransientMap, TransientSet } from '../../kernel/collections/churn.ts'
import { newId } from '../../kernel/ids.ts'
import type { Timer } from '../../kernel/time/clock.ts'
import { AsyncContext } from '../../kernel/work/user-code.ts'
import { type Slot, WorkScheduler } from '../../kernel/work/work-scheduler.ts'
import { acceptWithin } from '../options.ts'
import type { Delivery, WorkerListener, WorkerRef } from '../store/store.ts'
import { Attempt, type AttemptSurroundings, type Result } from './attempt.ts'
import type { Handler } from './running-job.ts'

/** What happens to attempts, as the queue tells it. */
export interface WorkerEvents {
  started(attempt: Attempt): void
  /** Its outcome was accepted. */
  ended(attempt: Attempt, result: Result, ms: number): void
  /** It was lost to another worker, cancelled, or its outcome was not accepted. */
  lost(attempt: Attempt, reason: unknown): void
  /** Something is due in `ms`. */
  due(ms: number): void
  /** The store has gone on refusing what it is told of this worker. */
  refused(error: unknown): void
}

/** What a worker says again after so long, ms: a store that has lost everything knows it no more. */
const OFFER_EVERY = 5 * 60_000

/** Between two offers that it was called on for, ms at least. */
const OFFER_PAUSE = 20

/** Between two tries to tell the store of an outcome, ms. */
const TELL_AGAIN = 200

/** So many offers in a row have failed until it is worth a warning. */
const REFUSALS = 3

/** How often leases are looked after, ms, at most. */
const KEEP_EVERY = 100

/** So many handlers must have been quick in a row until the next is thought to be. */
const QUICK = 10

/** Does the jobs of one command in this process: so many at once. */
export class Worker implements WorkerListener {
  readonly name: WorkerRef
  readonly #handler: Handler
  readonly #concurrency: number
  readonly #about: AttemptSurroundings
  readonly #events: WorkerEvents
  /** Everything that was delivered and has not ended, by name. */
  readonly #attempts = new TransientMap<string, Attempt>()
  readonly #scheduler: WorkScheduler
  /** Handlers in a row that have left the event loop alone: then a lease may be accepted while they run. */
  #quick = 0
  /** What is being given back. */
  readonly #handing = new TransientSet<Promise<unknown>>()
  /** What the store is asked about before it may start. */
  #accepting = 0
  #keeping: Timer | undefined
  #offering: Timer | undefined
  /** Counts what was said. */
  #offers = 0
  /** Offers in a row that came to nothing. */
  #refusals = 0
  #reoffer = false
  #offeredAt = Number.NEGATIVE_INFINITY
  #closed = false
  readonly #unlisten: () => void
  /** Called when nothing runs any more. */
  #idle: (() => void) | undefined

  constructor(
    command: string,
    handler: Handler,
    concurrency: number,
    about: Omit<AttemptSurroundings, 'worker' | 'context'>,
    events: WorkerEvents,
  ) {
    this.name = { nonce: newId(), command }
    this.#handler = handler
    this.#concurrency = concurrency
    this.#about = { ...about, worker: this.name, context: new AsyncContext() }
    this.#events = events
    this.#scheduler = new WorkScheduler(concurrency, about.clock, { together: true })
    this.#unlisten = about.store.listen({ up: () => this.onCapacityRequested(), down: () => {} })
    void this.#offer()
  }

  /** Handlers that run, or are about to. */
  get busy(): number {
    return this.#scheduler.running + this.#accepting
  }

  /** Says what it can take. */
  async #offer(): Promise<void> {
    if (this.#closed) return
    const { store, options, clock } = this.#about
    const number = ++this.#offers
    this.#reoffer = false
    this.#offeredAt = clock.now()
    this.#offering?.cancel()
    const places = Math.max(0, this.#concurrency - this.busy)
    let again = OFFER_EVERY * (0.9 + Math.random() / 5)
    try {
      // What is handed to one who does not hear comes back. It is said when the subscription is up.
      if (!store.subscribed) throw new UnavailableError('Not subscribed yet')
      await store.setCapacity(this.name, places, this, { within: options.unavailableAfter })
      // Of what was put off before this worker was known, nobody was told.
      this.#events.due(0)
      this.#refusals = 0
    } catch (error) {
      if (++this.#refusals === REFUSALS) this.#events.refused(error)
      again = TELL_AGAIN * (1 + Math.random())
    }
    // A later one knows better when to say it again: perhaps soon, since it has failed.
    if (this.#closed || number !== this.#offers) return
    this.#offering = clock.after(again, () => void this.#offer(), true)
  }

  onCapacityRequested(): void {
    if (this.#reoffer || this.#closed) return
    this.#reoffer = true
    const { clock } = this.#about
    // All workers may have been told at once, and each of them again and again, by whomever.
    const pause = Math.max(0, this.#offeredAt + OFFER_PAUSE - clock.now())
    clock.after(pause + Math.random() * 10, () => void this.#offer(), true)
  }

  onDue(ms: number): void {
    this.#events.due(ms)
  }

  onDelivery(delivery: Delivery): void {
    const attempt = new Attempt(delivery, this.#about)
    if (this.#attempts.has(attempt.name)) return
    if (this.#closed) return this.#handBack(attempt)
    this.#attempts.set(attempt.name, attempt)
    this.#keepOn()
    // What is almost over would be lost before its lease is looked after for the first time.
    const isLasting = delivery.leaseLeft > 5 * keepEvery(this.#about.options.lease)
    if (attempt.ready && isLasting && this.#quick >= QUICK) this.#admit(attempt)
    else void this.#accept(attempt)
  }

  /**
   * Its lease may have run out on the way: the store must say that it is still ours. Nor is it long enough yet for a
   * handler that may keep the event loop from renewing it.
   */
  async #accept(attempt: Attempt): Promise<void> {
    this.#accepting++
    await attempt.accept()
    this.#accepting--
    if (attempt.lost) return this.#drop(attempt)
    if (attempt.ready) this.#admit(attempt)
    else this.#drop(attempt)
  }

  #admit(attempt: Attempt): void {
    // An offer and a delivery have crossed: that place was there twice. Another worker may have one.
    const excess = this.#scheduler.running >= this.#concurrency
    if (!this.#closed && !excess) return this.#scheduler.schedule((slot) => this.#start(attempt, slot))
    this.#handBack(attempt)
    this.#forget(attempt)
  }

  #start(attempt: Attempt, slot: Slot): void {
    if (!attempt.lost && attempt.ready && !this.#closed) {
      const { clock } = this.#about
      const startedAt = clock.now()
      void this.#run(attempt, slot)
      this.#quick++
      return this.#stood(clock.now() - startedAt)
    }
    slot.release()
    if (attempt.lost) return this.#drop(attempt)
    if (!this.#closed) return void this.#accept(attempt)
    this.#handBack(attempt)
    this.#forget(attempt)
  }

  /** The event loop stood still for so long, ms: perhaps for longer than a lease that is not accepted. */
  #stood(ms: number): void {
    if (ms >= acceptWithin(this.#about.options.lease) / 8) this.#quick = 0
  }

  /** It is in our hands no more. */
  #forget(attempt: Attempt): void {
    this.#attempts.delete(attempt.name)
    if (this.#attempts.size === 0) this.#idle?.()
  }

  /** It never started. Its place was taken all the same. */
  #drop(attempt: Attempt): void {
    this.#forget(attempt)
    this.#events.lost(attempt, attempt.reason)
    this.onCapacityRequested()
  }

  async #run(attempt: Attempt, slot: Slot): Promise<void> {
    const { clock } = this.#about
    this.#events.started(attempt)
    const startedAt = clock.now()
    const result = await attempt.run(this.#handler)
    slot.release()
    const accepted = await this.#tell(attempt, result)
    if (accepted) {
      this.#events.ended(attempt, accepted, clock.now() - startedAt)
      if (accepted.kind === 'retry') this.#events.due(accepted.delay)
    } else {
      this.#events.lost(attempt, attempt.reason ?? result.error)
      // What was lost does not give its place back.
      this.onCapacityRequested()
    }
    this.#forget(attempt)
  }

  /** Its handler still runs, and what comes of that is of no interest any more. */
  async #endEarly(attempt: Attempt, result: Result): Promise<void> {
    // If this fails, the lease ends by itself.
    const accepted = await attempt.finish(result, false).catch(() => false)
    if (!accepted) return
    this.#events.ended(attempt, result, this.#about.options.maxHold)
    if (result.kind === 'retry') this.#events.due(result.delay)
  }

  /** Tells the store, again and again while the lease may hold. Returns what was accepted; undefined: it was lost. */
  async #tell(attempt: Attempt, result: Result): Promise<Result | undefined> {
    let told = result
    while (!attempt.lost) {
      try {
        return (await attempt.finish(told, !this.#closed)) ? told : undefined
      } catch (error) {
        const tooLarge = error instanceof UnavailableError && error.lostConnections > 0
        if (tooLarge && told === result) told = attempt.uncarried(error)
        else await new Promise<void>((resume) => this.#about.clock.after(TELL_AGAIN, resume))
      }
    }
    return undefined
  }

  onCancelled(id: string, fence: number): void {
    this.#attempts.get(`${fence} ${id}`)?.cancel()
  }

  /** Looks after the leases while there are any. */
  #keepOn(): void {
    if (this.#keeping) return
    const { clock, options } = this.#about
    const every = keepEvery(options.lease)
    const at = clock.now() + every
    this.#keeping = clock.after(
      every,
      () => {
        this.#keeping = undefined
        this.#stood(clock.now() - at)
        for (const attempt of this.#attempts.values()) {
          const overrun = attempt.keep()
          if (overrun) void this.#endEarly(attempt, overrun)
        }
        if (this.#attempts.size > 0) this.#keepOn()
      },
      true,
    )
  }

  #handBack(attempt: Attempt): void {
    const nothing = { kind: 'requeue', bytes: Buffer.alloc(0), ttl: 0, delay: 0 } as const
    // If this fails, the lease ends by itself.
    const handing = attempt.finish(nothing, false).catch(() => {})
    this.#handing.add(handing)
    void handing.finally(() => this.#handing.delete(handing))
  }

  /** Takes no more. */
  async withdraw(): Promise<void> {
    this.#closed = true
    this.#offering?.cancel()
    this.#unlisten()
    const { store, options } = this.#about
    await store.removeWorker(this.name, { within: options.unavailableAfter }).catch(() => {})
  }

  /** Resolves when nothing runs, or after `grace` ms. */
  async drained(grace: number): Promise<void> {
    if (this.#attempts.size === 0) return
    let timer: Timer | undefined
    await new Promise<void>((resume) => {
      this.#idle = resume
      if (grace !== Number.POSITIVE_INFINITY) timer = this.#about.clock.after(grace, resume)
    })
    // It would keep the process from ending.
    timer?.cancel()
  }

  /** Stops what still runs, and hands it to other workers. */
  async handOver(reason: SoloflightError = new ClosedError('The queue was closed')): Promise<void> {
    for (const attempt of this.#attempts.values()) {
      if (!attempt.lost) this.#handBack(attempt)
      attempt.lose(reason)
    }
    await Promise.all(this.#handing)
    this.#keeping?.cancel()
    this.#about.store.unregister(this.name.nonce)
  }
}

/** More often than in the margin before a lease's end in which it counts as lost: that is noticed before it is over. */
function keepEvery(lease: number): number {
  return Math.min(lease / 20, KEEP_EVERY)
}
