import {
  COMMAND_SAMPLE,
  type Delivery,
  type JobNotice,
  type JobState,
  MAX_KNOWN_COMMANDS,
  PENDING_JOB_TTL,
  type Retention,
} from '../store.ts'
import { noTotals, type QueueTotals } from '../totals.ts'
import type { JobRecord } from './job-record.ts'
import { ReadyList } from './ready-list.ts'
import { FinishedList, TimeIndex } from './time-index.ts'

/** How long a worker is known after it last set its capacity, ms. */
const WORKER_TTL = 15 * 60_000

/** Estimated memory of a known post, in bytes. */
const POST_BYTES = 512

/** A message to a worker, other than a delivery. */
export type WorkerNotice =
  | { kind: 'cancelled'; id: string; fence: number }
  | { kind: 'due'; ms: number }
  | { kind: 'capacityRequested' }

/** What a transition reads and calls besides the state. Parks and workers are named by inbox and nonce together. */
export interface TransitionContext {
  /** ms since the epoch. */
  now: number
  /** µs since the epoch: fences and generations are numbered by it. */
  micros: number
  /** The highest fence that the caller has seen. */
  highestFence: number
  /** The lease of an attempt until its worker accepts it, ms. */
  acceptWithin: number
  /** How many may park on one record. */
  maxParked: number
  /** Position of the submission among those of one call. */
  batchIndex: number
  /** Sends attempts to a worker. False: its process does not listen any more. */
  deliver(worker: string, deliveries: Delivery[]): boolean
  /** Deliveries of a transition are sent after its notices. */
  notifyWaiter(park: string, notice: JobNotice): void
  notifyWorker(worker: string, notice: WorkerNotice): void
  /** Requests the capacity of all workers: a job is ready and no worker is known for its command. */
  broadcastWork(): void
}

/** What a queue knows of one command: its ready jobs, and the workers that could run them. */
export class CommandState {
  readonly name: string
  readonly ready: ReadyList = new ReadyList()
  /** Free slots, first in, first out: each entry names the worker that has the slot. */
  freeSlots: string[] = []
  /** While true, no slot is taken. */
  paused = false
  /** The workers, each with the capacity that it set last. */
  readonly workers: Map<string, number> = new Map()
  /** When the set of workers expires, ms since the epoch. */
  workersUntil = 0

  constructor(name: string) {
    this.name = name
  }

  get isEmpty(): boolean {
    return this.ready.length === 0 && this.freeSlots.length === 0 && this.workers.size === 0 && !this.paused
  }

  /** Returns how many of the former slots were used: those of a worker that is not known were removed. */
  setCapacity(worker: string, slots: number, former: number | undefined, now: number): number {
    const left = this.dropSlots(worker)
    this.sweep(now)
    const used = former !== undefined && this.workers.has(worker) ? Math.max(0, former - left) : 0
    const count = Math.max(0, slots - used)
    for (let slot = 0; slot < count; slot++) this.freeSlots.push(worker)
    this.workers.set(worker, count)
    this.workersUntil = now + WORKER_TTL
    return used
  }

  /** The workers that are known, in the order in which they became known. */
  knownWorkers(now: number): string[] {
    return this.workersUntil > now ? [...this.workers.keys()] : []
  }

  /** Whether a slot may be taken. */
  get hasFreeSlot(): boolean {
    return !this.paused && this.freeSlots.length > 0
  }

  /** Takes the first free slot: the worker that has it. */
  takeSlot(): string | undefined {
    return this.hasFreeSlot ? this.freeSlots.shift() : undefined
  }

  /** Returns how many it had. */
  dropSlots(worker: string): number {
    const { length } = this.freeSlots
    this.freeSlots = this.freeSlots.filter((slot) => slot !== worker)
    return length - this.freeSlots.length
  }

  forgetWorker(worker: string): void {
    this.dropSlots(worker)
    this.workers.delete(worker)
  }

  sweep(now: number): void {
    if (this.workersUntil <= now) this.workers.clear()
  }
}

/** A post that was made, until it is not known any more. */
export class KnownPost {
  readonly key: string
  readonly digest: string
  readonly nonce: string
  /** Of its jobs. */
  readonly generation: number
  /** ms since the epoch. */
  readonly expiresAt: number

  constructor(key: string, digest: string, nonce: string, generation: number, expiresAt: number) {
    this.key = key
    this.digest = digest
    this.nonce = nonce
    this.generation = generation
    this.expiresAt = expiresAt
  }

  /** Estimated memory. */
  get bytes(): number {
    return POST_BYTES
  }
}

export class QueueState {
  readonly totals: QueueTotals
  readonly jobs: Map<string, JobRecord> = new Map()
  /** The posts that are known, by key. */
  readonly posts: Map<string, KnownPost> = new Map()
  /** Called with what a transition reads, adds or removes, and may change. Set by the broker, which counts bytes. */
  onTouched: ((entry: JobRecord | KnownPost) => void) | undefined
  readonly #commands = new Map<string, CommandState>()
  /** When the lease of each active job and the delay of each delayed job ends. */
  readonly deadlines: TimeIndex = new TimeIndex()
  /** The delayed jobs among them. */
  readonly delayed: TimeIndex = new TimeIndex()
  readonly failed: FinishedList = new FinishedList()
  readonly completed: FinishedList = new FinishedList()
  /** Paused commands; '' means all. */
  readonly paused: Set<string> = new Set()
  readonly #commandNames = new Set<string>()
  /** When the set of known commands expires, ms since the epoch. */
  commandsUntil = 0

  constructor(totals: QueueTotals = noTotals()) {
    this.totals = totals
  }

  get isEmpty(): boolean {
    return this.jobs.size + this.posts.size === 0 && this.#commands.size === 0 && this.paused.size === 0
  }

  /** A record that has not expired. */
  job(id: string, now: number): JobRecord | undefined {
    const job = this.jobs.get(id)
    if (!job || job.expiresAt <= now) return undefined
    this.onTouched?.(job)
    return job
  }

  /** Adds the record of a job that is submitted, or submitted again. */
  add(job: JobRecord): void {
    this.jobs.set(job.id, job)
    this.onTouched?.(job)
  }

  /** Forgets a finished job. */
  forget(job: JobRecord): void {
    this.removeFromListing(job)
    this.jobs.delete(job.id)
  }

  /** A post that is still known. */
  post(key: string, now: number): KnownPost | undefined {
    const post = this.posts.get(key)
    return post && post.expiresAt > now ? post : undefined
  }

  addPost(post: KnownPost): void {
    this.forgetPost(post.key)
    this.posts.set(post.key, post)
    this.onTouched?.(post)
  }

  forgetPost(key: string): void {
    const post = this.posts.get(key)
    if (!post) return
    this.posts.delete(key)
    this.onTouched?.(post)
  }

  command(name: string): CommandState {
    const found = this.#commands.get(name)
    if (found) return found
    const command = new CommandState(name)
    this.#commands.set(name, command)
    return command
  }

  registerCommand(command: string, now: number): void {
    if (this.commandsUntil <= now) this.#commandNames.clear()
    const isNew = !this.#commandNames.has(command)
    this.#commandNames.add(command)
    this.commandsUntil = now + PENDING_JOB_TTL
    if (isNew && this.#commandNames.size > MAX_KNOWN_COMMANDS) this.#forgetCommands(command, now)
  }

  /** Forgets some of the commands that are not needed. The script takes any; here each has its turn. */
  #forgetCommands(added: string, now: number): void {
    const sample: string[] = []
    for (const name of this.#commandNames) if (sample.push(name) === COMMAND_SAMPLE) break
    for (const name of sample) {
      this.#commandNames.delete(name)
      if (this.#isNeeded(name, now) || name === added) this.#commandNames.add(name)
    }
  }

  #isNeeded(name: string, now: number): boolean {
    const known = this.#commands.get(name)
    const isUsed = known !== undefined && known.ready.length + known.knownWorkers(now).length > 0
    return isUsed || this.paused.has(name)
  }

  removeWorker(worker: string, name: string, now: number): void {
    this.command(name).forgetWorker(worker)
    const areTooMany = this.#commandNames.size > MAX_KNOWN_COMMANDS
    if (areTooMany && !this.#isNeeded(name, now)) this.#commandNames.delete(name)
  }

  /** Takes a job out of the index of its state. */
  unindex({ id, command, state }: JobRecord): void {
    switch (state.kind) {
      case 'ready':
        return this.command(command).ready.remove(id)
      case 'delayed':
        this.delayed.delete(id)
        return this.deadlines.delete(id)
      case 'assigned':
      case 'active':
        return this.deadlines.delete(id)
    }
  }

  /** Makes a job ready. Registers its command if the list was empty: the command may have expired. */
  pushReady(job: JobRecord, lifo: boolean, now: number): void {
    const { ready } = this.command(job.command)
    this.unindex(job)
    job.moveTo({ kind: 'ready' })
    ready.push(job, lifo)
    job.expiresAt = now + PENDING_JOB_TTL
    if (ready.length === 1) this.registerCommand(job.command, now)
  }

  /** Makes a job ready before all others. */
  requeueFirst(job: JobRecord, now: number): void {
    this.unindex(job)
    job.moveTo({ kind: 'ready' })
    this.command(job.command).ready.requeueFirst(job.id)
    job.expiresAt = now + PENDING_JOB_TTL
  }

  /** The known commands, in the order in which they became known. */
  commands(now: number): string[] {
    return this.commandsUntil > now ? [...this.#commandNames] : []
  }

  /** Delays a job until a time, ms since the epoch. */
  delay(job: JobRecord, until: number): void {
    this.unindex(job)
    job.moveTo({ kind: 'delayed', until })
    job.expiresAt = until + PENDING_JOB_TTL
    this.deadlines.set(job.id, until)
    this.delayed.set(job.id, until)
  }

  /** Adds a job to a list of finished jobs. Jobs that the list has no room for expire with their outcome. */
  addToListing(
    job: JobRecord,
    listing: 'failed' | 'completed',
    retain: Retention,
    outcomeRetention: number,
    now: number,
  ): void {
    job.listedIn = listing
    for (const id of this[listing].add(job.id, retain, now)) {
      const old = this.job(id, now)
      if (!old?.finished) continue
      old.listedIn = undefined
      old.expiresAt = now + Math.max(outcomeRetention, (old.outcome?.freshUntil ?? 0) - now)
    }
  }

  removeFromListing(job: JobRecord): void {
    if (job.listedIn) this[job.listedIn].expiries.delete(job.id)
    job.listedIn = undefined
  }

  /** Ids in a state, in the order in which they will run, fall due or expire. */
  idsIn(state: JobState, now: number): string[] {
    switch (state) {
      case 'waiting':
        return this.commands(now).flatMap((name) => this.command(name).ready.ids())
      case 'active':
        return this.deadlines.ids().filter((id) => this.delayed.timeOf(id) === undefined)
      case 'delayed':
        return this.delayed.ids()
      case 'completed':
        return this.completed.ids(now)
      case 'failed':
        return this.failed.ids(now)
    }
  }

  isPaused(command: string): boolean {
    return this.paused.has('') || this.paused.has(command)
  }

  #expire(job: JobRecord): void {
    this.jobs.delete(job.id)
    this.onTouched?.(job)
    this.unindex(job)
  }

  /** Drops everything that has expired. */
  sweep(now: number): void {
    for (const job of this.jobs.values()) if (job.expiresAt <= now) this.#expire(job)
    for (const { key, expiresAt } of this.posts.values()) if (expiresAt <= now) this.forgetPost(key)
    for (const [name, command] of this.#commands) {
      command.sweep(now)
      if (command.isEmpty) this.#commands.delete(name)
    }
    this.failed.sweep(now)
    this.completed.sweep(now)
    if (this.commandsUntil <= now) this.#commandNames.clear()
  }
}
