import { ExpiringMap, InMemoryHub, MemoryBudget } from '../../kernel/in-memory-store.ts'
import { MAX_LOG_LINES } from '../../kernel/keys.ts'
import { type Clock, wallMicros } from '../../kernel/time.ts'
import type { JobRecord } from './model/job-record.ts'
import { type ModelAttempt, QueueModel } from './model/queue-model.ts'
import { KnownPost, type TransitionContext, type WorkerNotice } from './model/queue-state.ts'
import type { NoticeListener, WorkerListener } from './store.ts'
import type { QueueTotals } from './totals.ts'

/** The part of a transition's context that a simulated server numbers itself. */
export type TransitionNumbers = Pick<TransitionContext, 'micros' | 'highestFence' | 'batchIndex'>

export interface BrokerOptions {
  /** Of the queue. */
  name: string
  clock: Clock
  /** Delivers a message: calls it at once or later. */
  deliver(message: () => void): void
  /** How many may be parked on one record. */
  maxParked: number
  /** The lease of an attempt until its worker accepts it, ms. */
  acceptWithin: number
  /** Called after each transition. */
  onChange(): void
  numbers?: (() => TransitionNumbers) | undefined
  /** The totals of the queue are counted on here. */
  totals?: QueueTotals | undefined
  /** Adds the queue to the register of its store, or removes it. */
  register?: { add(totals: QueueTotals): void; remove(): void } | undefined
  /** Counts the bytes of all queues of a store. Without it they are not bounded. */
  budget?: BrokerBudget | undefined
}

/** What counts in memory. */
export type BrokerBudget = MemoryBudget<JobRecord | KnownPost | JobLog>

export interface JobLog {
  readonly lines: string[]
  /** When it expires, ms since the epoch. */
  readonly expiresAt: number
}

/** The registrations of one client of a queue: what a process is to Redis. Written by the client. */
export interface BrokerClient {
  /** Waiters by nonce. */
  readonly waiters: Map<string, NoticeListener>
  /** Workers by nonce, including removed ones until they are unregistered. */
  readonly listeners: Map<string, WorkerListener>
  /** Nonces of the workers that take jobs. */
  readonly workers: Set<string>
  readonly watchers: Set<(event: string) => void>
}

/** How long a log is kept after its last line, ms. */
const LOG_TTL = 24 * 60 * 60_000

/** One queue in memory: its model, its clients and the messages between them. */
export class InMemoryBroker {
  readonly model: QueueModel
  readonly hub: InMemoryHub<BrokerClient>
  readonly #logs: ExpiringMap<JobLog>
  readonly #options: BrokerOptions
  readonly #budget: BrokerBudget
  /** Jobs and posts whose bytes are to be counted again after the transition. */
  readonly #touched = new Set<JobRecord | KnownPost>()

  constructor(options: BrokerOptions) {
    this.#options = options
    this.model = new QueueModel(options.totals)
    this.#budget = options.budget ?? new MemoryBudget(Number.POSITIVE_INFINITY)
    this.#logs = new ExpiringMap<JobLog>(options.clock, this.#budget)
    this.hub = new InMemoryHub(options.deliver)
    this.model.state.onTouched = (entry) => this.#touched.add(entry)
  }

  /** Of the queue. */
  get name(): string {
    return this.#options.name
  }

  get now(): number {
    return this.#options.clock.now()
  }

  get isEmpty(): boolean {
    return this.model.state.isEmpty && this.#logs.size === 0
  }

  /** Runs a transition. */
  apply<T>(transition: (model: QueueModel, context: TransitionContext) => T): T {
    const reply = transition(this.model, this.#context())
    this.#updateBudget()
    this.#options.onChange()
    return reply
  }

  /** Whether there is room for so many bytes more. */
  fits(bytes: number): boolean {
    return this.#budget.fits(bytes)
  }

  /** Counts the bytes of what was touched. The budget forgets the oldest finished jobs, and posts, when there are too many. */
  #updateBudget(): void {
    const { state } = this.model
    for (const entry of this.#touched) {
      const { bytes } = entry
      if (entry instanceof KnownPost) {
        if (state.posts.get(entry.key) !== entry) this.#budget.delete(entry)
        else this.#budget.set(entry, bytes, () => state.posts.delete(entry.key))
        continue
      }
      const inUse = !entry.finished || entry.waiters > 0
      if (state.jobs.get(entry.id) !== entry) this.#budget.delete(entry)
      else this.#budget.set(entry, bytes, inUse ? undefined : () => state.forget(entry))
    }
    this.#touched.clear()
  }

  #context(): TransitionContext {
    const { numbers, acceptWithin, maxParked } = this.#options
    return {
      now: this.now,
      acceptWithin,
      maxParked,
      ...(numbers?.() ?? this.#numbers()),
      deliver: (worker, deliveries) =>
        deliveries.every((delivery) =>
          this.hub.send(worker, ({ listeners }, nonce) => listeners.get(nonce)?.onDelivery(delivery)),
        ),
      notifyWaiter: (park, notice) =>
        this.hub.send(park, ({ waiters }, nonce) => waiters.get(nonce)?.onNotice(notice)),
      notifyWorker: (worker, notice) =>
        this.hub.send(worker, ({ listeners }, nonce) => notify(listeners.get(nonce), notice)),
      broadcastWork: () =>
        this.hub.broadcast(({ workers, listeners }) => {
          for (const nonce of workers) listeners.get(nonce)?.onCapacityRequested()
        }),
    }
  }

  #numbers(): TransitionNumbers {
    return { micros: wallMicros(this.now), highestFence: 0, batchIndex: 1 }
  }

  /** Resolves when all messages so far are delivered, or after `within` ms. */
  delivered(within: number): Promise<void> {
    const { clock, deliver } = this.#options
    return new Promise((resolve) => {
      const timer = clock.after(within, resolve, true)
      deliver(() => {
        timer.cancel()
        resolve()
      })
    })
  }

  /** Returns whether lines were appended. */
  appendLog(
    { worker, id, fence }: ModelAttempt,
    added: readonly string[],
    before: number | undefined,
  ): boolean {
    const job = this.model.state.job(id, this.now)
    if (!job?.isHeldBy(worker, fence)) return false
    const fresh = added.slice(job.acceptLogLines(before, added.length))
    if (fresh.length === 0) return false
    const lines = [...this.readLog(id), ...fresh].slice(-MAX_LOG_LINES)
    const bytes = lines.reduce((sum, { length }) => sum + length, 0)
    this.#logs.set(id, { lines, expiresAt: this.now + LOG_TTL }, bytes, false)
    return true
  }

  readLog(id: string): string[] {
    return this.#logs.get(id)?.lines ?? []
  }

  joinRegister(): void {
    this.#options.register?.add(this.model.state.totals)
  }

  leaveRegister(): void {
    this.#options.register?.remove()
  }

  publishEvent(event: string): void {
    this.hub.broadcast(({ watchers }) => {
      for (const onEvent of watchers) onEvent(event)
    })
  }

  get hasWatchers(): boolean {
    return this.hub.clients.some(({ watchers }) => watchers.size > 0)
  }

  /** Removes expired jobs. */
  sweep(): void {
    this.model.state.sweep(this.now)
    this.#updateBudget()
  }
}

function notify(listener: WorkerListener | undefined, notice: WorkerNotice): void {
  switch (notice.kind) {
    case 'cancelled':
      return listener?.onCancelled(notice.id, notice.fence)
    case 'due':
      return listener?.onDue(notice.ms)
    case 'capacityRequested':
      return listener?.onCapacityRequested()
  }
}
