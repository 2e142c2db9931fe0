import { MemoryBudget } from '../../kernel/collections/memory-budget.ts'
import { ID_LENGTH } from '../../kernel/ids.ts'
import type { Clock } from '../../kernel/time/clock.ts'
import { wallMicros } from '../../kernel/time/timers.ts'
import type { JobRecord } from './model/job-record.ts'
import { type BookAttempt, QueueBook } from './model/queue-model.ts'
import type { QueueSurroundings, WorkerNotice } from './model/queue-state.ts'
import type { Delivery, NoticeListener, WorkerListener } from './store.ts'

/** Numbers that a transition is given besides the time. */
export type BookNumbers = Pick<QueueSurroundings, 'micros' | 'seen' | 'turn'>

/** What a hub is made with. */
export interface HubOptions {
  clock: Clock
  /** Carries a message out. */
  carry(message: () => void): void
  maxParked: number
  accept: number
  /** Called whenever something has changed. */
  changed(): void
  numbers?: (() => BookNumbers) | undefined
  /** Counts the bytes of all hubs of a store. Without it they are not bounded. */
  budget?: MemoryBudget<JobRecord | JobLog> | undefined
}

/** What a job has logged. */
export interface JobLog {
  lines: string[]
  bytes: number
  until: number
}

/** One user of a queue: what a process is to Redis. */
export interface HubUser {
  readonly waiters: Map<string, NoticeListener>
  /** Its workers, also those that take no more. */
  readonly listeners: Map<string, WorkerListener>
  /** Nonces of workers that take jobs. */
  readonly workers: Set<string>
  readonly watchers: Set<(event: string) => void>
}

/** Lines that a job's log has at most, and how long it is kept, ms. */
const LOG_LINES = 1000
const KEEP_LOG = 24 * 60 * 60_000

/** One queue in memory: its book, and those who use it. */
export class BookHub {
  readonly book: QueueBook = new QueueBook()
  readonly users: Map<string, HubUser> = new Map()
  readonly #logs = new Map<string, JobLog>()
  readonly #options: HubOptions
  readonly #budget: MemoryBudget<JobRecord | JobLog>
  /** Jobs that have to be counted anew. */
  readonly #touched = new Set<JobRecord>()

  constructor(options: HubOptions) {
    this.#options = options
    this.#budget = options.budget ?? new MemoryBudget(Number.POSITIVE_INFINITY)
    this.book.state.touched = (job) => this.#touched.add(job)
  }

  get now(): number {
    return this.#options.clock.now()
  }

  get empty(): boolean {
    return this.book.state.empty && this.#logs.size === 0
  }

  /** Runs a transition. */
  change<T>(transition: (book: QueueBook, at: QueueSurroundings) => T): T {
    const reply = transition(this.book, this.#surroundings())
    this.#count()
    this.#options.changed()
    return reply
  }

  /** Whether there is room for a job of this id with so many bytes, or one already. */
  admits(id: string, bytes: number): boolean {
    return this.#budget.fits(bytes) || this.book.state.job(id, this.now) !== undefined
  }

  /** The oldest finished jobs are forgotten when there are too many bytes. */
  #count(): void {
    const { state } = this.book
    for (const job of this.#touched) {
      const inUse = !job.over || job.waiters > 0
      if (state.jobs.get(job.id) !== job) this.#budget.delete(job)
      else this.#budget.set(job, job.bytes, inUse ? undefined : () => state.forget(job))
    }
    this.#touched.clear()
  }

  #surroundings(): QueueSurroundings {
    const { numbers, accept, maxParked, carry } = this.#options
    return {
      now: this.now,
      accept,
      maxParked,
      ...(numbers?.() ?? this.#numbers()),
      deliver: (worker, deliveries) => this.#deliver(worker, deliveries),
      tell: (park, notice) =>
        carry(() => this.#user(park)?.waiters.get(park.slice(ID_LENGTH))?.onNotice(notice)),
      warn: (worker, notice) => carry(() => warn(this.#listener(worker), notice)),
      call: () => this.#call(),
    }
  }

  #numbers(): BookNumbers {
    return { micros: wallMicros(this.now), seen: 0, turn: 1 }
  }

  #user(name: string): HubUser | undefined {
    return this.users.get(name.slice(0, ID_LENGTH))
  }

  #listener(worker: string): WorkerListener | undefined {
    return this.#user(worker)?.listeners.get(worker.slice(ID_LENGTH))
  }

  #deliver(worker: string, deliveries: Delivery[]): boolean {
    if (!this.#user(worker)) return false
    for (const delivery of deliveries) this.#options.carry(() => this.#listener(worker)?.onDelivery(delivery))
    return true
  }

  #call(): void {
    for (const { workers, listeners } of this.users.values()) {
      for (const nonce of workers) this.#options.carry(() => listeners.get(nonce)?.onCapacityRequested())
    }
  }

  /** Resolves when what was said so far has arrived, or after `within` ms. */
  caughtUp(within: number): Promise<void> {
    const { clock, carry } = this.#options
    return new Promise((resolve) => {
      const timer = clock.after(within, resolve, true)
      carry(() => {
        timer.cancel()
        resolve()
      })
    })
  }

  log({ worker, id, fence }: BookAttempt, said: readonly string[], before: number): void {
    const job = this.book.state.job(id, this.now)
    if (!job?.isHeld(worker, fence)) return
    const fresh = said.slice(job.log(before, said.length))
    if (fresh.length === 0) return
    const lines = [...this.logs(id), ...fresh].slice(-LOG_LINES)
    this.#forgetLog(id)
    const log = {
      lines,
      bytes: lines.reduce((sum, { length }) => sum + length, 0),
      until: this.now + KEEP_LOG,
    }
    this.#logs.set(id, log)
    this.#budget.set(log, log.bytes, () => this.#logs.delete(id))
  }

  #forgetLog(id: string): void {
    const log = this.#logs.get(id)
    if (log) this.#budget.delete(log)
    this.#logs.delete(id)
  }

  logs(id: string): string[] {
    const log = this.#logs.get(id)
    return log && log.until > this.now ? log.lines : []
  }

  /** Tells an event to all who watch. */
  report(event: string): void {
    for (const { watchers } of this.users.values()) {
      for (const heard of watchers) this.#options.carry(() => heard(event))
    }
  }

  get watched(): boolean {
    return [...this.users.values()].some(({ watchers }) => watchers.size > 0)
  }

  sweep(): void {
    this.book.state.sweep(this.now)
    this.#count()
    for (const [id, { until }] of this.#logs) if (until <= this.now) this.#forgetLog(id)
  }
}

function warn(listener: WorkerListener | undefined, notice: WorkerNotice): void {
  switch (notice.kind) {
    case 'cancelled':
      return listener?.onCancelled(notice.id, notice.fence)
    case 'due':
      return listener?.onDue(notice.ms)
    case 'forgotten':
      return listener?.onCapacityRequested()
  }
}
