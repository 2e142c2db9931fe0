import { ClosedError, type SoloflightError } from '../errors.ts'
import type { Timer } from '../kernel/clock.ts'
import { newId } from '../kernel/ids.ts'
import { Attempt, type AttemptSurroundings, type Result } from './attempt.ts'
import type { Handler } from './running-job.ts'
import type { Delivery, WorkerListener, WorkerName } from './store.ts'

/** What happens to attempts, as the queue tells it. */
export interface WorkerEvents {
  started(attempt: Attempt): void
  /** Its outcome was accepted. */
  ended(attempt: Attempt, result: Result, ms: number): void
  /** It was lost to another worker, cancelled, or its outcome was not accepted. */
  lost(attempt: Attempt, reason: unknown): void
  /** Something is due in `ms`. */
  due(ms: number): void
}

/** What a worker says again after so long, ms: a store that has lost everything knows it no more. */
const OFFER_EVERY = 5 * 60_000

/** Between two tries to tell the store of an outcome, ms. */
const TELL_AGAIN = 200

/** How often leases are looked after, ms, at most. */
const KEEP_EVERY = 250

/** Does the jobs of one command in this process: so many at once. */
export class Worker implements WorkerListener {
  readonly name: WorkerName
  readonly #handler: Handler
  readonly #concurrency: number
  readonly #about: AttemptSurroundings
  readonly #events: WorkerEvents
  /** Everything that was delivered and has not ended, by name. */
  readonly #attempts = new Map<string, Attempt>()
  /** Delivered, while all places are taken. */
  readonly #backlog: Attempt[] = []
  /** What is being given back. */
  readonly #handing = new Set<Promise<unknown>>()
  /** Handlers that run. */
  #running = 0
  /** Deliveries above what was offered: so many places are not given back. */
  #debt = 0
  #keeping: Timer | undefined
  #offering: Timer | undefined
  #reoffer = false
  #closed = false
  readonly #unlisten: () => void
  /** Called when nothing runs any more. */
  #idle: (() => void) | undefined

  constructor(
    command: string,
    handler: Handler,
    concurrency: number,
    about: Omit<AttemptSurroundings, 'worker'>,
    events: WorkerEvents,
  ) {
    this.name = { nonce: newId(), command }
    this.#handler = handler
    this.#concurrency = concurrency
    this.#about = { ...about, worker: this.name }
    this.#events = events
    this.#unlisten = about.store.listen({ up: () => this.forgotten(), down: () => {} })
    void this.#offer()
  }

  /** Attempts that run or wait for a place. */
  get busy(): number {
    return this.#running + this.#backlog.length
  }

  /** Says what it can take. */
  async #offer(): Promise<void> {
    if (this.#closed) return
    const { store, options, clock } = this.#about
    this.#reoffer = false
    this.#debt = 0
    this.#offering?.cancel()
    const places = Math.max(0, this.#concurrency - this.busy)
    let again = OFFER_EVERY * (0.9 + Math.random() / 5)
    try {
      await store.offer(this.name, places, this, { within: options.unavailableAfter })
    } catch {
      again = TELL_AGAIN * (1 + Math.random())
    }
    if (this.#closed) return
    this.#offering?.cancel()
    this.#offering = clock.after(again, () => void this.#offer(), true)
  }

  forgotten(): void {
    if (this.#reoffer || this.#closed) return
    this.#reoffer = true
    // All workers may have been told at once, and each of them several times.
    this.#about.clock.after(Math.random() * 10, () => void this.#offer(), true)
  }

  due(ms: number): void {
    this.#events.due(ms)
  }

  deliver(delivery: Delivery): void {
    const attempt = new Attempt(delivery, this.#about)
    if (this.#attempts.has(attempt.name)) return
    if (this.#closed) return this.#handBack(attempt)
    if (this.busy >= this.#concurrency) this.#debt++
    this.#attempts.set(attempt.name, attempt)
    this.#keepOn()
    if (attempt.fresh) this.#admit(attempt)
    else void this.#accept(attempt)
  }

  /** Its lease may have run out on the way: the store must say that it is still ours. */
  async #accept(attempt: Attempt): Promise<void> {
    await attempt.renew()
    if (attempt.lost) return this.#drop(attempt)
    if (attempt.fresh) this.#admit(attempt)
    else this.#drop(attempt)
  }

  #admit(attempt: Attempt): void {
    if (this.#closed) {
      this.#attempts.delete(attempt.name)
      return this.#handBack(attempt)
    }
    if (this.#running >= this.#concurrency) this.#backlog.push(attempt)
    else void this.#run(attempt)
  }

  /** It never started. Its place was taken all the same. */
  #drop(attempt: Attempt): void {
    this.#attempts.delete(attempt.name)
    this.#events.lost(attempt, attempt.signal.reason)
    this.forgotten()
  }

  async #run(attempt: Attempt): Promise<void> {
    const { clock } = this.#about
    this.#running++
    this.#events.started(attempt)
    const startedAt = clock.now()
    const result = await attempt.run(this.#handler)
    this.#running--
    const next = this.#next()
    if (next) void this.#run(next)
    const accepted = await this.#tell(attempt, result)
    this.#attempts.delete(attempt.name)
    if (accepted) {
      this.#events.ended(attempt, result, clock.now() - startedAt)
      if (result.kind === 'retry') this.#events.due(result.delay)
    } else {
      this.#events.lost(attempt, attempt.signal.reason ?? result.error)
      // What was lost does not give its place back.
      this.forgotten()
    }
    if (this.#attempts.size === 0) this.#idle?.()
  }

  #next(): Attempt | undefined {
    for (;;) {
      const next = this.#backlog.shift()
      if (!next?.lost) return next
      this.#drop(next)
    }
  }

  /** Tells the store, again and again while the lease may hold. False: it was lost. */
  async #tell(attempt: Attempt, result: Result): Promise<boolean> {
    const frees = this.#debt === 0 && !this.#closed
    if (this.#debt > 0) this.#debt--
    while (!attempt.lost) {
      try {
        return await attempt.finish(result, frees)
      } catch {
        await new Promise<void>((resume) => this.#about.clock.after(TELL_AGAIN, resume))
      }
    }
    return false
  }

  cancelled(id: string, fence: number): void {
    this.#attempts.get(`${fence} ${id}`)?.cancel()
  }

  /** Looks after the leases while there are any. */
  #keepOn(): void {
    if (this.#keeping) return
    const every = Math.min(this.#about.options.lease / 10, KEEP_EVERY)
    this.#keeping = this.#about.clock.after(
      every,
      () => {
        this.#keeping = undefined
        for (const attempt of this.#attempts.values()) attempt.keep()
        if (this.#attempts.size > 0) this.#keepOn()
      },
      true,
    )
  }

  #handBack(attempt: Attempt): void {
    const nothing = { kind: 'handBack', bytes: Buffer.alloc(0), ttl: 0, delay: 0 } as const
    // If this fails, the lease ends by itself.
    this.#handing.add(attempt.finish(nothing, false).catch(() => {}))
  }

  /** Takes no more. */
  async withdraw(): Promise<void> {
    this.#closed = true
    this.#offering?.cancel()
    this.#unlisten()
    const { store, options } = this.#about
    await store.withdraw(this.name, { within: options.unavailableAfter }).catch(() => {})
    for (const attempt of this.#backlog.splice(0)) {
      this.#attempts.delete(attempt.name)
      this.#handBack(attempt)
    }
  }

  /** Resolves when nothing runs, or after `grace` ms. */
  async drained(grace: number): Promise<void> {
    if (this.#attempts.size === 0) return
    await new Promise<void>((resume) => {
      this.#idle = resume
      if (grace !== Number.POSITIVE_INFINITY) this.#about.clock.after(grace, resume)
    })
  }

  /** Stops what still runs, and hands it to other workers. */
  async handOver(reason: SoloflightError = new ClosedError('The queue was closed')): Promise<void> {
    for (const attempt of this.#attempts.values()) {
      if (!attempt.lost) this.#handBack(attempt)
      attempt.lose(reason)
    }
    await Promise.all(this.#handing)
    this.#keeping?.cancel()
    this.#about.store.ignore(this.name.nonce)
  }
}
