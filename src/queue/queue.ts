import { AbortedError, ClosedError, DuplicateWorkerError } from '../errors.ts'
import { encodeFailure } from '../kernel/codec/failure.ts'
import {
  checkChoice,
  checkCount,
  checkDuration,
  checkFunction,
  shown,
  shownValue,
} from '../kernel/options.ts'
import { isErrorReply } from '../kernel/redis/client.ts'
import { connectionFor } from '../kernel/redis/connection.ts'
import { refProcess, unrefProcess } from '../kernel/redis/keep-alive.ts'
import { awaitReady, READY_TIMEOUT_MS } from '../kernel/redis/readiness.ts'
import type { Clock } from '../kernel/time/clock.ts'
import { Deadlines } from '../kernel/time/deadlines.ts'
import { warnOnce } from '../kernel/warnings.ts'
import { ContextEmitter } from '../kernel/work/context-emitter.ts'
import { AsyncContext, callHook } from '../kernel/work/user-code.ts'
import type { FeedEvent, QueueEvents } from './events/events.ts'
import { feedEventOf, type QueueCounters, Reports } from './events/reports.ts'
import { Job, type JobQueue, type ResultOptions } from './job.ts'
import {
  acceptWithin,
  checkSubmitOptions,
  type ProcessOptions,
  type QueueOptions,
  type ResolvedQueueOptions,
  resolveProcessOptions,
  resolveQueueOptions,
  type SubmitOptions,
} from './options.ts'
import { statusOf } from './status.ts'
import { MemoryQueueStore } from './store/memory-store.ts'
import { RedisQueueStore } from './store/redis/redis-store.ts'
import type { Counts, JobSnapshot, JobState, QueueStore } from './store/store.ts'
import { checkName, isJobId, QueueNames } from './submitting/dedupe-id.ts'
import { JobWaiter, type WaiterSurroundings } from './submitting/job-waiter.ts'
import { CANCELLED, LINGER, LOOK_AFTER, Waits } from './submitting/outcome-waits.ts'
import { closed, handIn, Submissions } from './submitting/submissions.ts'
import type {
  AnyJobs,
  CommandOf,
  HandlerOf,
  JobMap,
  JobPage,
  JobStatus,
  PayloadOf,
  ResultOf,
} from './types.ts'
import { Timekeeper } from './working/due-poller.ts'
import type { Handler } from './working/running-job.ts'
import { Worker } from './working/worker.ts'

/** One of several jobs that are handed in together. */
export type BulkJob<Jobs extends JobMap<Jobs>> = {
  [Command in CommandOf<Jobs>]: {
    command: Command
    payload?: PayloadOf<Jobs, Command>
    options?: Omit<SubmitOptions, 'signal' | 'onProgress' | 'timeout'>
  }
}[CommandOf<Jobs>]

/** What a queue does in this process. */
export interface QueueStats extends QueueCounters {
  /** Jobs that this process waits for. */
  waiting: number
  /** Jobs in its hands. */
  running: number
  /** Whether messages arrive. */
  subscribed: boolean
}

/** How long `close` waits for what runs, ms, unless told otherwise. */
const DEFAULT_GRACE = 5_000

/** What a job fails with when it loses its worker too often. */
const STALLED = encodeFailure({
  name: 'StalledError',
  message: 'The job lost its worker too often',
  code: 'E_STALLED',
})

/** What a TimeoutError says besides may take so long to be found out, ms. */
const EXPLAIN_WITHIN = 80

/** Jobs that `redrive` looks at together, and a page of jobs has. */
const PAGE = 100

/**
 * A queue of jobs in which identical jobs run once, and every submitter gets the result.
 *
 * A job is identical to another when queue, command and payload are the same, or the `dedupe` key. Jobs run at least
 * once: give `job.fence` to whatever they write to. Without `redis` the queue works within this process.
 *
 * @example
 * const queue = new RedisQueue<{ add: (items: number[]) => number }>('math', { redis: 'redis://localhost:6379' })
 * queue.process('add', (items) => items.reduce((a, b) => a + b), { concurrency: 50 })
 * await queue.submit('add', [2, 3, 4]) // 9
 */
export class RedisQueue<Jobs extends JobMap<Jobs> = AnyJobs>
  extends ContextEmitter<QueueEvents>
  implements JobQueue, AsyncDisposable
{
  readonly name: string
  readonly #options: ResolvedQueueOptions
  readonly #link: ReturnType<typeof connectionFor>
  readonly #store: QueueStore
  readonly #clock: Clock
  readonly #reports: Reports
  readonly #submissions: Submissions
  readonly #waits: Waits
  readonly #waiters: WaiterSurroundings
  readonly #workers = new Map<string, Worker>()
  /** What is being found out for waiters whose time is over, by command. */
  readonly #explanations = new Map<string, Promise<string>>()
  #timekeeper: Timekeeper | undefined
  #closing: Promise<void> | undefined

  /** @throws TypeError when the name or an option is not what it should be. Connects to nothing yet. */
  constructor(name: string, options: QueueOptions = {}) {
    super()
    checkName('name', name)
    this.name = name
    this.#options = resolveQueueOptions(options)
    const { prefix, lease, codec, unavailableAfter } = this.#options
    const link = connectionFor(options, 'RedisQueue')
    this.#link = link
    const memory = options.store ?? new MemoryQueueStore({ clock: options.clock })
    const accept = acceptWithin(lease)
    this.#store = link ? new RedisQueueStore(link.connection, prefix, name, { accept }) : memory.connect(name)
    this.#clock = link?.connection.clock ?? memory.clock
    this.#reports = new Reports(name, this, this.#store)
    this.#submissions = new Submissions(this.#options)
    this.#waiters = {
      clock: this.#clock,
      deadlines: new Deadlines(this.#clock),
      explain: (command) => this.#explainTimeout(command),
    }
    this.#waits = new Waits({
      store: this.#store,
      clock: this.#clock,
      codec,
      unavailableAfter,
      lookAfter: Math.min(lease, LOOK_AFTER),
      accepted: (...about) => this.#reports.submitted(...about),
    })
  }

  /**
   * Does the jobs of a command in this process, which stays alive until `close`.
   * @throws TypeError; DuplicateWorkerError when the command is processed here already; ClosedError.
   */
  process<Command extends CommandOf<Jobs>>(
    command: Command,
    handler: HandlerOf<Jobs, Command>,
    options: ProcessOptions = {},
  ): this {
    this.#check()
    checkName('command', command)
    checkFunction('handler', handler)
    const { concurrency } = resolveProcessOptions(options)
    if (this.#workers.has(command))
      throw new DuplicateWorkerError(`\`${command}\` is processed here already`, { key: command })
    const about = { queue: this.name, store: this.#store, clock: this.#clock, options: this.#options }
    const worker = new Worker(command, handler as Handler, concurrency, about, {
      ...this.#reports.worker(command),
      due: (ms) => this.#timekeeper?.due(ms),
      refused: (error) => this.#warnOfRefusal(command, error),
    })
    this.#workers.set(command, worker)
    this.#timekeeper ??= this.#startProcessing()
    return this
  }

  /** What all workers of this queue share, until `close`. */
  #startProcessing(): Timekeeper {
    refProcess(this.#clock)
    this.#link?.connection.warnIfUnreachable()
    const { lease, unavailableAfter, maxStalls, errorTtl, retain } = this.#options
    return new Timekeeper({
      store: this.#store,
      clock: this.#clock,
      lease,
      unavailableAfter,
      terms: { maxStalls, failure: STALLED, errorTtl, outcomeRetention: LINGER, retain: retain.failed },
      ticked: (ticks) => this.#reports.ticked(ticks),
    })
  }

  /**
   * Hands a job in, unless it is there already, and waits for its result.
   * @throws RemoteError when the job failed, with `remote.code` 'E_CANCELLED' when it was cancelled and 'E_STALLED' when it
   * lost its worker too often; RemovedError, ConflictError, UnknownCommandError; TimeoutError, AbortedError,
   * UnavailableError, OverloadedError, ClosedError; CodecError and TooLargeError for a payload that cannot be carried.
   */
  submit<Command extends CommandOf<Jobs>>(
    command: Command,
    payload?: PayloadOf<Jobs, Command>,
    options: SubmitOptions = {},
  ): Promise<ResultOf<Jobs, Command>> {
    return this.#submit(command, payload, options) as Promise<ResultOf<Jobs, Command>>
  }

  async #submit(command: string, payload: unknown, options: SubmitOptions): Promise<unknown> {
    this.#check()
    const submission = this.#submissions.make(command, payload, options, true)
    const { signal } = options
    if (signal?.aborted) throw abortedBefore(submission.id, signal)
    const waiter = this.#waiter(submission.id, command, options)
    this.#reports.counters.submitted++
    this.#waits.submit(submission, waiter)
    return waiter.promise
  }

  #waiter(id: string, command: string, { timeout, signal, onProgress }: ResultOptions): JobWaiter {
    const terms = { command, timeout: timeout ?? this.#options.timeout, signal, onProgress }
    return new JobWaiter(id, terms, this.#waiters)
  }

  /** Why nothing came of a command's jobs in time. Asked only then, once for all whose time ends together. */
  #explainTimeout(command: string): Promise<string> {
    const about = `of ${shown(command)} in the queue ${shown(this.name)}`
    const asked = this.#explanations.get(command)
    if (asked) return asked
    const explanation = this.#hasWorker(command).then((known) => {
      this.#explanations.delete(command)
      return known ? about : `${about}, and no worker is known that processes it`
    })
    this.#explanations.set(command, explanation)
    return explanation
  }

  /** True unless it is known within a moment that there is none. */
  #hasWorker(command: string): Promise<boolean> {
    if (this.#workers.has(command)) return Promise.resolve(true)
    return new Promise((resolve) => {
      const timer = this.#clock.after(EXPLAIN_WITHIN, () => resolve(true))
      this.#store
        .hasWorker(command, { within: EXPLAIN_WITHIN })
        .then(resolve, () => resolve(true))
        .finally(() => timer.cancel())
    })
  }

  /** A worker has no caller to whom it could be told that Redis refuses it. */
  #warnOfRefusal(command: string, error: unknown): void {
    const { connection } = this.#link ?? {}
    const cause = connection?.lastError ?? (error as Error).cause
    // Whoever is not even connected is warned of that.
    if (!connection?.connected || !isErrorReply(cause)) return
    const message = `The queue ${shown(this.name)} is handed no jobs of ${shown(command)} in this process: Redis refused: ${cause.message}`
    warnOnce('SOLOFLIGHT_WORKER_REFUSED', message)
  }

  /**
   * Hands a job in, unless it is there already, without waiting for it.
   * @throws as {@link submit} does before the job is handed in; `timeout`, `signal` and `onProgress` are for `job.result`.
   */
  async enqueue<Command extends CommandOf<Jobs>>(
    command: Command,
    payload?: PayloadOf<Jobs, Command>,
    options: SubmitOptions = {},
  ): Promise<Job<ResultOf<Jobs, Command>>> {
    this.#check()
    const submission = this.#submissions.make(command, payload, options, false)
    const { signal } = options
    if (signal?.aborted) throw abortedBefore(submission.id, signal)
    const { status, generation } = await handIn(this.#store, submission, this.#options.unavailableAfter)
    this.#reports.counters.submitted++
    const { id } = submission
    this.#reports.submitted(id, command, status)
    return new Job(id, command, status, generation, this)
  }

  /**
   * Hands jobs in, all in one round trip. All are checked before the first is handed in.
   * @throws as {@link enqueue} does, with the first that was refused; the others may be handed in.
   */
  async enqueueMany(jobs: readonly BulkJob<Jobs>[]): Promise<Job[]> {
    this.#check()
    const submissions = jobs.map(({ command, payload, options = {} }) =>
      this.#submissions.make(command, payload, options, false),
    )
    const { unavailableAfter } = this.#options
    const replies = await Promise.all(
      submissions.map((submission) => handIn(this.#store, submission, unavailableAfter)),
    )
    this.#reports.counters.submitted += jobs.length
    return replies.map(({ status, generation }, index) => {
      const { id, command } = submissions[index] as (typeof submissions)[number]
      this.#reports.submitted(id, command, status)
      return new Job(id, command, status, generation, this)
    })
  }

  /** See {@link Job.result}. */
  async result(job: Job, options: ResultOptions = {}): Promise<unknown> {
    this.#check()
    checkSubmitOptions(options)
    if (options.signal?.aborted) throw abortedBefore(job.id, options.signal)
    const waiter = this.#waiter(job.id, job.command, options)
    this.#waits.attend(job.id, job.command, job.generation, waiter)
    return waiter.promise
  }

  /** A job by its id; undefined when there is none. */
  async job(id: string): Promise<Job | undefined> {
    const snapshot = await this.#snapshot(id)
    return snapshot && new Job(id, snapshot.command, undefined, snapshot.generation, this)
  }

  /** What a job is now; undefined when there is none. */
  async status(id: string): Promise<JobStatus | undefined> {
    const snapshot = await this.#snapshot(id)
    return snapshot && statusOf(snapshot, this.#options.codec)
  }

  #snapshot(id: string): Promise<JobSnapshot | undefined> {
    this.#check()
    return isJobId(id) ? this.#store.snapshot(id, this.#limits()) : Promise.resolve(undefined)
  }

  /** Jobs in a state, a page at a time: in the order in which they will be, or were, treated. */
  async jobs(
    state: JobState,
    { limit = PAGE, cursor = '0' }: { limit?: number; cursor?: string } = {},
  ): Promise<JobPage> {
    this.#check()
    checkChoice('state', state, STATES)
    checkCount('limit', limit, 1)
    const from = Number(cursor)
    if (!/^\d{1,15}$/.test(cursor))
      throw new TypeError(`Expected \`cursor\` to be that of a page, got ${shownValue(cursor)}`)
    const ids = await this.#store.list(state, from, Math.min(limit, MAX_PAGE), this.#limits())
    const snapshots = await Promise.all(ids.map((id) => this.#store.snapshot(id, this.#limits())))
    return {
      // What has moved on meanwhile is on another page.
      jobs: snapshots.flatMap((snapshot) =>
        snapshot?.state === state ? [statusOf(snapshot, this.#options.codec)] : [],
      ),
      cursor: ids.length < Math.min(limit, MAX_PAGE) ? undefined : String(from + ids.length),
    }
  }

  /** How many jobs there are in each state. Completed and failed: those that are kept by `retain`. */
  async counts(): Promise<Counts> {
    this.#check()
    return this.#store.counts(this.#limits())
  }

  /** Hands out nothing more, of a command or of all; what runs goes on. For all processes, until {@link resume}. */
  async pause(command?: CommandOf<Jobs>): Promise<void> {
    this.#check()
    if (command !== undefined) checkName('command', command)
    await this.#store.pause(command ?? '', this.#limits())
  }

  /** Undoes {@link pause}. A command that was paused by itself stays paused when all are resumed. */
  async resume(command?: CommandOf<Jobs>): Promise<void> {
    this.#check()
    if (command !== undefined) checkName('command', command)
    await this.#store.resume(command ?? '', this.#limits())
  }

  /** What is paused: commands, and '' when all are. */
  async paused(): Promise<string[]> {
    this.#check()
    return this.#store.pausedCommands(this.#limits())
  }

  /**
   * Removes all jobs that wait, and, if told so, those that are delayed. Never those that run: a job is taken off the line
   * and removed in one step. Everyone who waits for it receives RemovedError. Returns how many were removed.
   */
  async drain({ delayed = false }: { delayed?: boolean } = {}): Promise<number> {
    this.#check()
    // In this order: what falls due meanwhile waits.
    const later = delayed ? await this.#store.drain('delayed', LINGER, this.#limits()) : 0
    return later + (await this.#store.drain('waiting', LINGER, this.#limits()))
  }

  /** Runs a job that has completed or failed once more. False: it is not there, or not over. */
  async retry(id: string): Promise<boolean> {
    const snapshot = await this.#snapshot(id)
    if (!snapshot) return false
    const { command, generation, outcome } = snapshot
    if (!outcome || outcome.kind === 'removed') return false
    return (await this.#store.retry(id, command, generation, this.#limits())) !== undefined
  }

  /** Runs failed jobs once more, the oldest first. Returns how many. */
  async redrive({ limit = Number.POSITIVE_INFINITY }: { limit?: number } = {}): Promise<number> {
    this.#check()
    checkCount('limit', limit, 1)
    // What fails again meanwhile is not run for ever.
    const most = Math.min(limit, (await this.counts()).failed)
    let done = 0
    let passed = 0
    while (done < most) {
      const ids = await this.#store.list('failed', passed, Math.min(PAGE, most - done), this.#limits())
      if (ids.length === 0) break
      const retried = await Promise.all(ids.map((id) => this.retry(id)))
      const count = retried.filter(Boolean).length
      done += count
      passed += ids.length - count
    }
    return done
  }

  /**
   * Ends a job that is not over: its handler's signal fires, wherever it runs, and everyone who waits receives a
   * RemoteError with `remote.code` 'E_CANCELLED'. False: it is over, or not there.
   */
  cancel(id: string): Promise<boolean> {
    return this.#end(id, 'error', CANCELLED)
  }

  /** Removes a job, or forgets what became of it. Everyone who waits receives RemovedError. False: it is not there. */
  remove(id: string): Promise<boolean> {
    return this.#end(id, 'removed', Buffer.alloc(0))
  }

  async #end(id: string, kind: 'error' | 'removed', bytes: Buffer): Promise<boolean> {
    const snapshot = await this.#snapshot(id)
    if (!snapshot) return false
    const { command } = snapshot
    return this.#store.terminate(
      { id, command, kind, bytes, outcomeRetention: LINGER, onlyIfUnwanted: false },
      this.#limits(),
    )
  }

  /** What handlers wrote by `job.log`: the last 1,000 lines, for a day. */
  async logs(id: string): Promise<string[]> {
    this.#check()
    return isJobId(id) ? this.#store.readLog(id, this.#limits()) : []
  }

  /**
   * Hears the events of this queue in all processes, until the returned function is called. Some may be lost. While
   * nobody watches, they cost nothing.
   */
  async watch(heard: (event: FeedEvent) => void): Promise<() => void> {
    this.#check()
    checkFunction('heard', heard)
    const context = new AsyncContext()
    return this.#store.watchEvents((text) => {
      const event = feedEventOf(text)
      if (event) callHook(context, 'watch', heard, event)
    }, this.#limits())
  }

  /**
   * Resolves when Redis answers and its messages arrive; embedded, at once. For the start of a service, or its readiness
   * probe: nothing else needs to wait for it.
   * @throws UnavailableError, which says what is wrong, when that is not so within `timeout` ms; ClosedError.
   */
  async ready({ timeout = READY_TIMEOUT_MS }: { timeout?: number | undefined } = {}): Promise<void> {
    checkDuration('timeout', timeout)
    this.#check()
    const { connection } = this.#link ?? {}
    if (!connection) return
    const { base } = new QueueNames(this.#options.prefix, this.name)
    await awaitReady(connection, `${base}p/${connection.inbox.id}`, timeout)
  }

  /** What it has done and does in this process. */
  stats(): QueueStats {
    const running = [...this.#workers.values()].reduce((sum, worker) => sum + worker.busy, 0)
    const { subscribed } = this.#store
    return { waiting: this.#waits.size, running, ...this.#reports.counters, subscribed }
  }

  #limits(): { within: number } {
    return { within: this.#options.unavailableAfter }
  }

  #check(): void {
    if (this.#closing) throw closed()
  }

  /**
   * Takes no more jobs, lets those that run end for `grace` ms, hands the rest to other workers, and rejects everyone who
   * still waits with ClosedError. Never rejects; throws TypeError when `grace` is no duration.
   */
  close({ grace = DEFAULT_GRACE }: { grace?: number } = {}): Promise<void> {
    checkDuration('grace', grace, { infinite: true })
    this.#closing ??= this.#close(grace)
    return this.#closing
  }

  async #close(grace: number): Promise<void> {
    this.#timekeeper?.close()
    const workers = [...this.#workers.values()]
    await Promise.all(workers.map((worker) => worker.withdraw()))
    await Promise.all(workers.map((worker) => worker.drained(grace)))
    await Promise.all(workers.map((worker) => worker.handOver()))
    await this.#waits.close((key) => new ClosedError('The queue was closed', { key }))
    this.#store.close()
    await this.#link?.leave()
    if (this.#timekeeper) unrefProcess(this.#clock)
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }
}

/** Jobs on one page at most. */
const MAX_PAGE = 1_000

const STATES = ['waiting', 'delayed', 'active', 'completed', 'failed'] as const

function abortedBefore(key: string, signal: AbortSignal): AbortedError {
  return new AbortedError('The submitter aborted before it asked', { key, cause: signal.reason })
}
