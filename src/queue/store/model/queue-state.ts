import { type Delivery, type JobNotice, PENDING_JOB_TTL, type Retention } from '../store.ts'
import { CommandBook } from './command-state.ts'
import { Times } from './due-times.ts'
import type { JobRecord } from './job-record.ts'
import { Listing } from './listing.ts'

/** What a worker is told, besides what is delivered to it. */
export type WorkerNotice =
  | { kind: 'cancelled'; id: string; fence: number }
  | { kind: 'due'; ms: number }
  | { kind: 'forgotten' }

/** The surroundings of a transition. */
export interface QueueSurroundings {
  /** Now, ms. */
  now: number
  /** A number for the next fence or generation: µs since the epoch. */
  micros: number
  /** The highest fence that the caller has ever seen. */
  seen: number
  /** How long a delivery may take to be accepted, ms. */
  accept: number
  /** How many may park on one record. */
  maxParked: number
  /** Which it is of the submissions that are made at once. */
  turn: number
  /** Hands attempts to a worker; false when it is not there any more. */
  deliver(worker: string, deliveries: Delivery[]): boolean
  /** Sends messages. What a transition hands out goes behind them. */
  tell(park: string, notice: JobNotice): void
  warn(worker: string, notice: WorkerNotice): void
  /** Tells all workers that something waits and none is known for it. */
  call(): void
}

/** Everything that is known of one queue. */
export class BookState {
  readonly jobs: Map<string, JobRecord> = new Map()
  /** Told of every job that a transition comes upon: it may change. Set by whoever counts what they hold. */
  touched: ((job: JobRecord) => void) | undefined
  readonly #commands = new Map<string, CommandBook>()
  /** When leases of attempts end, and delays. */
  readonly times: Times = new Times()
  /** What of it is delayed. */
  readonly delayed: Times = new Times()
  readonly failed: Listing = new Listing()
  readonly completed: Listing = new Listing()
  /** Commands that are paused; '' is all of them. */
  readonly paused: Set<string> = new Set()
  readonly #known = new Set<string>()
  /** Until when the names of commands are known. */
  knownUntil = 0

  get empty(): boolean {
    return this.jobs.size === 0 && this.#commands.size === 0 && this.paused.size === 0
  }

  /** A record, unless it is forgotten by now. */
  job(id: string, now: number): JobRecord | undefined {
    const job = this.jobs.get(id)
    if (!job || job.expiresAt <= now) return undefined
    this.touched?.(job)
    return job
  }

  /** Adds the record of a new job, or of one that is submitted again. */
  add(job: JobRecord): void {
    this.jobs.set(job.id, job)
    this.touched?.(job)
  }

  /** Forgets a job that is over. */
  forget(job: JobRecord): void {
    this.unlist(job)
    this.jobs.delete(job.id)
  }

  command(name: string): CommandBook {
    const found = this.#commands.get(name)
    if (found) return found
    const command = new CommandBook(name)
    this.#commands.set(name, command)
    return command
  }

  know(command: string, now: number): void {
    if (this.knownUntil <= now) this.#known.clear()
    this.#known.add(command)
    this.knownUntil = now + PENDING_JOB_TTL
  }

  /** Puts a job in line. Where nothing waited, the command may be unknown by now. */
  line(job: JobRecord, lifo: boolean, now: number): void {
    const { line } = this.command(job.command)
    line.add(job, lifo)
    job.expiresAt = now + PENDING_JOB_TTL
    if (line.length === 1) this.know(job.command, now)
  }

  /** Puts a job before all others. */
  putFirst(job: JobRecord, now: number): void {
    this.command(job.command).line.putFirst(job.id)
    job.expiresAt = now + PENDING_JOB_TTL
  }

  /** The commands that are known, in the order in which they became so. */
  commands(now: number): string[] {
    return this.knownUntil > now ? [...this.#known] : []
  }

  /** Puts a job off. */
  delay(job: JobRecord, due: number): void {
    job.due = due
    job.expiresAt = due + PENDING_JOB_TTL
    this.times.set(job.id, due)
    this.delayed.set(job.id, due)
  }

  /** Adds a finished job to a listing. Those that leave it are forgotten with what else they are kept for. */
  list(
    job: JobRecord,
    listing: 'failed' | 'completed',
    retain: Retention,
    outcomeRetention: number,
    now: number,
  ): void {
    job.listed = listing
    for (const id of this[listing].add(job.id, retain, now)) {
      const old = this.job(id, now)
      if (!old?.over) continue
      old.listed = undefined
      old.expiresAt = now + Math.max(outcomeRetention, (old.outcome?.freshUntil ?? 0) - now)
    }
  }

  unlist(job: JobRecord): void {
    if (job.listed) this[job.listed].finished.delete(job.id)
    job.listed = undefined
  }

  isPaused(command: string): boolean {
    return this.paused.has('') || this.paused.has(command)
  }

  #expire(job: JobRecord): void {
    const { id, command, over } = job
    this.jobs.delete(id)
    this.touched?.(job)
    if (over) return
    this.command(command).line.remove(id)
    this.times.delete(id)
    this.delayed.delete(id)
  }

  /** Drops what is forgotten by now. */
  sweep(now: number): void {
    for (const job of this.jobs.values()) if (job.expiresAt <= now) this.#expire(job)
    for (const [name, command] of this.#commands) {
      command.sweep(now)
      if (command.idle) this.#commands.delete(name)
    }
    this.failed.sweep(now)
    this.completed.sweep(now)
    if (this.knownUntil <= now) this.#known.clear()
  }
}
