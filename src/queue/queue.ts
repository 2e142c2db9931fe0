import { AbortedError, ClosedError, DuplicateWorkerError } from '../errors.ts'
import { encodeFailure } from '../kernel/codec/failure.ts'
import type { Clock } from '../kernel/event-loop.ts'
import { AsyncContext, refProcess, unrefProcess } from '../kernel/event-loop.ts'
import { ContextEmitter, callHook } from '../kernel/hooks.ts'
import {
  checkChoice,
  checkCount,
  checkDuration,
  checkFunction,
  shown,
  shownValue,
} from '../kernel/options.ts'
import { connectionFor } from '../kernel/redis/connection.ts'
import { isErrorReply } from '../kernel/redis/diagnosis.ts'
import { awaitReady, READY_TIMEOUT_MS } from '../kernel/redis/readiness.ts'
import { warnOnce } from '../kernel/telemetry.ts'
import { Deadlines } from '../kernel/waiter.ts'
import type { FeedEvent, QueueEvents } from './events/events.ts'
import { EventReporter, parseFeedEvent, type QueueCounters } from './events/reports.ts'
import { Job, type JobQueue, type ResultOptions } from './job.ts'
import {
  acceptTimeout,
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
import { checkName, isJobId, QueueKeys } from './submitting/dedupe-id.ts'
import { JobWaiter, type JobWaiterDeps } from './submitting/job-waiter.ts'
import {
  CANCELLED_FAILURE,
  OUTCOME_POLL_INTERVAL,
  OUTCOME_RETENTION,
  OutcomeWaits,
} from './submitting/outcome-waits.ts'
import { closedError, SubmissionFactory, submitDetached } from './submitting/submissions.ts'
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
import { DuePoller } from './working/due-poller.ts'
import type { Handler } from './working/running-job.ts'
import { Worker } from './working/worker.ts'

/** A job of {@link RedisQueue.enqueueMany}. */
export type BulkJob<Jobs extends JobMap<Jobs>> = {
  [Command in CommandOf<Jobs>]: {
    command: Command
    payload?: PayloadOf<Jobs, Command>
    options?: Omit<SubmitOptions, 'signal' | 'onProgress' | 'timeout'>
  }
}[CommandOf<Jobs>]

/** Statistics of a queue in this process. */
export interface QueueStats extends QueueCounters {
  /** Number of jobs whose outcome this process waits for. */
  waiting: number
  /** Number of jobs that run in this process. */
  running: number
  /** Whether the subscription to messages is established. */
  subscribed: boolean
}

/** How long `close` waits for running jobs by default, ms. */
const DEFAULT_GRACE = 5_000

/** The failure of a job that lost its worker more than `maxStalls` times. */
const STALLED_FAILURE = encodeFailure({
  name: 'StalledError',
  message: 'The job lost its worker too often',
  code: 'E_STALLED',
})

/** Time allowed for the query of known workers that explains a TimeoutError, ms. */
const WORKER_LOOKUP_TIMEOUT = 80

/** Default number of jobs on a page, and number of jobs that `redrive` reads at once. */
const DEFAULT_PAGE_SIZE = 100

/**
 * A queue of jobs. Identical jobs run once, and every submitter gets the result.
 *
 * Two jobs of a queue are identical if they have the same command and the same payload, or the same `dedupe` key. A job
 * may run more than once if its worker is lost: pass `job.fence` to the systems that the handler writes to. Without the
 * option `redis` the queue works within this process only.
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
  /** Time limit of a call to the store. */
  readonly #limits: { readonly within: number }
  readonly #events: EventReporter
  readonly #submissions: SubmissionFactory
  readonly #waits: OutcomeWaits
  readonly #waiterDeps: JobWaiterDeps
  readonly #workers = new Map<string, Worker>()
  /** Pending explanations for TimeoutErrors, by command. */
  readonly #explanations = new Map<string, Promise<string>>()
  #duePoller: DuePoller | undefined
  #closing: Promise<void> | undefined

  /** Does not wait for a connection. @throws TypeError if the name or an option is invalid. */
  constructor(name: string, options: QueueOptions = {}) {
    super()
    checkName('name', name)
    this.name = name
    this.#options = resolveQueueOptions(options)
    const { prefix, lease, codec, unavailableAfter } = this.#options
    this.#limits = { within: unavailableAfter }
    const link = connectionFor(options, 'RedisQueue')
    this.#link = link
    const memory = options.store ?? new MemoryQueueStore({ clock: options.clock })
    const accept = acceptTimeout(lease)
    this.#store = link
      ? new RedisQueueStore(link.connection, prefix, name, { acceptWithin: accept })
      : memory.connect(name)
    this.#clock = link?.connection.clock ?? memory.clock
    this.#events = new EventReporter(name, this, this.#store)
    this.#submissions = new SubmissionFactory(this.#options)
    this.#waiterDeps = {
      clock: this.#clock,
      deadlines: new Deadlines(this.#clock),
      explain: (command) => this.#explainTimeout(command),
    }
    this.#waits = new OutcomeWaits({
      store: this.#store,
      clock: this.#clock,
      codec,
      limits: this.#limits,
      pollInterval: Math.min(lease, OUTCOME_POLL_INTERVAL),
      accepted: (...args) => this.#events.submitted(...args),
    })
  }

  /**
   * Registers the handler that processes the jobs of a command in this process. The process stays alive until `close`.
   * @throws TypeError; DuplicateWorkerError if this queue object already has a handler for the command; ClosedError.
   */
  process<Command extends CommandOf<Jobs>>(
    command: Command,
    handler: HandlerOf<Jobs, Command>,
    options: ProcessOptions = {},
  ): this {
    this.#assertOpen()
    checkName('command', command)
    checkFunction('handler', handler)
    const { concurrency } = resolveProcessOptions(options)
    if (this.#workers.has(command))
      throw new DuplicateWorkerError(`\`${command}\` is processed here already`, { key: command })
    const deps = {
      ...{ queue: this.name, store: this.#store, clock: this.#clock, options: this.#options },
      limits: this.#limits,
    }
    const worker = new Worker(command, handler as Handler, concurrency, deps, {
      ...this.#events.workerEvents(command),
      dueIn: (ms) => this.#duePoller?.dueIn(ms),
      refused: (error) => this.#warnOfRefusal(command, error),
    })
    this.#workers.set(command, worker)
    this.#duePoller ??= this.#startProcessing()
    return this
  }

  /** Starts the due poller, which all workers of this queue share until `close`. */
  #startProcessing(): DuePoller {
    refProcess(this.#clock)
    this.#link?.connection.warnIfUnreachable()
    const { lease, unavailableAfter, maxStalls, errorTtl, retain } = this.#options
    return new DuePoller({
      store: this.#store,
      clock: this.#clock,
      lease,
      unavailableAfter,
      stallPolicy: {
        maxStalls,
        failure: STALLED_FAILURE,
        errorTtl,
        outcomeRetention: OUTCOME_RETENTION,
        retain: retain.failed,
      },
      onProcessed: (results) => this.#events.dueProcessed(results),
    })
  }

  /**
   * Submits a job and waits for its result. If an identical job waits, runs, or has an outcome within its ttl, no new job is
   * created and its result is returned.
   * @throws RemoteError if the job failed: `remote.code` is 'E_CANCELLED' if it was cancelled, 'E_STALLED' if it lost its
   * worker more than `maxStalls` times; RemovedError if the job was removed; ConflictError, UnknownCommandError,
   * TimeoutError, AbortedError, UnavailableError, OverloadedError, ClosedError; CodecError or TooLargeError if the payload
   * cannot be encoded or is too large; TypeError.
   */
  submit<Command extends CommandOf<Jobs>>(
    command: Command,
    payload?: PayloadOf<Jobs, Command>,
    options: SubmitOptions = {},
  ): Promise<ResultOf<Jobs, Command>> {
    return this.#submit(command, payload, options) as Promise<ResultOf<Jobs, Command>>
  }

  async #submit(command: string, payload: unknown, options: SubmitOptions): Promise<unknown> {
    this.#assertOpen()
    const submission = this.#submissions.create(command, payload, options, true)
    const { signal } = options
    if (signal?.aborted) throw abortedBefore(submission.id, signal)
    const waiter = this.#createWaiter(submission.id, command, options)
    this.#events.counters.submitted++
    this.#waits.submit(submission, waiter)
    return waiter.promise
  }

  #createWaiter(id: string, command: string, { timeout, signal, onProgress }: ResultOptions): JobWaiter {
    const terms = { command, timeout: timeout ?? this.#options.timeout, signal, onProgress }
    return new JobWaiter(id, terms, this.#waiterDeps)
  }

  /** Text for a TimeoutError: names the command, and says if no worker is known. One query serves concurrent timeouts. */
  #explainTimeout(command: string): Promise<string> {
    const target = `of ${shown(command)} in the queue ${shown(this.name)}`
    const pending = this.#explanations.get(command)
    if (pending) return pending
    const explanation = this.#hasWorker(command).then((known) => {
      this.#explanations.delete(command)
      return known ? target : `${target}, and no worker is known that processes it`
    })
    this.#explanations.set(command, explanation)
    return explanation
  }

  /** Whether a worker of the command is known. True if the store does not answer in time. */
  #hasWorker(command: string): Promise<boolean> {
    if (this.#workers.has(command)) return Promise.resolve(true)
    return new Promise((resolve) => {
      const timer = this.#clock.after(WORKER_LOOKUP_TIMEOUT, () => resolve(true))
      this.#store
        .hasWorker(command, { within: WORKER_LOOKUP_TIMEOUT })
        .then(resolve, () => resolve(true))
        .finally(() => timer.cancel())
    })
  }

  /** Emits a process warning: a worker has no caller that could receive the error. */
  #warnOfRefusal(command: string, error: unknown): void {
    const { connection } = this.#link ?? {}
    const cause = connection?.lastError ?? (error as Error).cause
    // A missing connection has a warning of its own.
    if (!connection?.connected || !isErrorReply(cause)) return
    const message = `The queue ${shown(this.name)} is handed no jobs of ${shown(command)} in this process: Redis refused: ${cause.message}`
    warnOnce('SOLOFLIGHT_WORKER_REFUSED', message)
  }

  /**
   * Submits a job without waiting for its outcome. Resolves when the store has accepted it, with a handle of the new or the
   * identical existing job. `timeout` and `onProgress` have no effect here: pass them to `job.result`.
   * @throws as {@link submit}, except the errors of the outcome: RemoteError, RemovedError and TimeoutError.
   */
  async enqueue<Command extends CommandOf<Jobs>>(
    command: Command,
    payload?: PayloadOf<Jobs, Command>,
    options: SubmitOptions = {},
  ): Promise<Job<ResultOf<Jobs, Command>>> {
    this.#assertOpen()
    const submission = this.#submissions.create(command, payload, options, false)
    const { signal } = options
    if (signal?.aborted) throw abortedBefore(submission.id, signal)
    const { status, generation } = await submitDetached(
      this.#store,
      submission,
      this.#options.unavailableAfter,
    )
    this.#events.counters.submitted++
    const { id } = submission
    this.#events.submitted(id, command, status)
    return new Job(id, command, status, generation, this)
  }

  /**
   * Submits several jobs in one round trip. All are validated before the first is sent.
   * @throws as {@link enqueue}, with the error of the first job that was refused. The other jobs may have been accepted.
   */
  async enqueueMany(jobs: readonly BulkJob<Jobs>[]): Promise<Job[]> {
    this.#assertOpen()
    const submissions = jobs.map(({ command, payload, options = {} }) =>
      this.#submissions.create(command, payload, options, false),
    )
    const { unavailableAfter } = this.#options
    const replies = await Promise.all(
      submissions.map((submission) => submitDetached(this.#store, submission, unavailableAfter)),
    )
    this.#events.counters.submitted += jobs.length
    return replies.map(({ status, generation }, index) => {
      const { id, command } = submissions[index] as (typeof submissions)[number]
      this.#events.submitted(id, command, status)
      return new Job(id, command, status, generation, this)
    })
  }

  /** Waits for the outcome of a job: see {@link Job.result}. */
  async result(job: Job, options: ResultOptions = {}): Promise<unknown> {
    this.#assertOpen()
    checkSubmitOptions(options)
    if (options.signal?.aborted) throw abortedBefore(job.id, options.signal)
    const waiter = this.#createWaiter(job.id, job.command, options)
    this.#waits.waitFor(job.id, job.command, job.generation, waiter)
    return waiter.promise
  }

  /** Returns a handle of the job with this id; undefined if there is none. */
  async job(id: string): Promise<Job | undefined> {
    const snapshot = await this.#snapshot(id)
    return snapshot && new Job(id, snapshot.command, undefined, snapshot.generation, this)
  }

  /** Returns the current status of the job with this id; undefined if there is none. */
  async status(id: string): Promise<JobStatus | undefined> {
    const snapshot = await this.#snapshot(id)
    return snapshot && statusOf(snapshot, this.#options.codec)
  }

  #snapshot(id: string): Promise<JobSnapshot | undefined> {
    this.#assertOpen()
    return isJobId(id) ? this.#store.snapshot(id, this.#limits) : Promise.resolve(undefined)
  }

  /**
   * Lists the jobs in a state, one page at a time, in the order in which they will run or have finished.
   * @param page `limit`: jobs per page, at most 1,000, 100 by default; `cursor`: that of the previous page.
   */
  async jobs(
    state: JobState,
    { limit = DEFAULT_PAGE_SIZE, cursor = '0' }: { limit?: number; cursor?: string } = {},
  ): Promise<JobPage> {
    this.#assertOpen()
    checkChoice('state', state, STATES)
    checkCount('limit', limit, 1)
    const from = Number(cursor)
    if (!/^\d{1,15}$/.test(cursor))
      throw new TypeError(`Expected \`cursor\` to be that of a page, got ${shownValue(cursor)}`)
    const ids = await this.#store.list(state, from, Math.min(limit, MAX_PAGE_SIZE), this.#limits)
    const snapshots = await Promise.all(ids.map((id) => this.#store.snapshot(id, this.#limits)))
    return {
      // Jobs that changed state since they were listed are left out.
      jobs: snapshots.flatMap((snapshot) =>
        snapshot?.state === state ? [statusOf(snapshot, this.#options.codec)] : [],
      ),
      cursor: ids.length < Math.min(limit, MAX_PAGE_SIZE) ? undefined : String(from + ids.length),
    }
  }

  /** Returns the number of jobs in each state. Completed and failed jobs count while `retain` keeps them. */
  async counts(): Promise<Counts> {
    this.#assertOpen()
    return this.#store.counts(this.#limits)
  }

  /** Stops the start of jobs of a command, or of all commands, in all processes until {@link resume}. Running jobs go on. */
  async pause(command?: CommandOf<Jobs>): Promise<void> {
    this.#assertOpen()
    if (command !== undefined) checkName('command', command)
    await this.#store.pause(command ?? '', this.#limits)
  }

  /** Undoes {@link pause}. A command that was paused by name stays paused until it is resumed by name. */
  async resume(command?: CommandOf<Jobs>): Promise<void> {
    this.#assertOpen()
    if (command !== undefined) checkName('command', command)
    await this.#store.resume(command ?? '', this.#limits)
  }

  /** Returns the paused commands; '' stands for a pause of all commands. */
  async paused(): Promise<string[]> {
    this.#assertOpen()
    return this.#store.pausedCommands(this.#limits)
  }

  /**
   * Removes all waiting jobs, and with `delayed` the delayed ones. Never removes a running job. Waiters of a removed job are
   * rejected with RemovedError. Returns the number of removed jobs.
   */
  async drain({ delayed = false }: { delayed?: boolean } = {}): Promise<number> {
    this.#assertOpen()
    // Delayed jobs first: those that become due meanwhile are waiting jobs then.
    const later = delayed ? await this.#store.drain('delayed', OUTCOME_RETENTION, this.#limits) : 0
    return later + (await this.#store.drain('waiting', OUTCOME_RETENTION, this.#limits))
  }

  /** Runs a completed or failed job again. Returns false if there is no such job, or it has not finished. */
  async retry(id: string): Promise<boolean> {
    const snapshot = await this.#snapshot(id)
    if (!snapshot) return false
    const { command, generation, outcome } = snapshot
    if (!outcome || outcome.kind === 'removed') return false
    return (await this.#store.retry(id, command, generation, this.#limits)) !== undefined
  }

  /** Runs failed jobs again, the oldest first, up to `limit`. Returns their number. */
  async redrive({ limit = Number.POSITIVE_INFINITY }: { limit?: number } = {}): Promise<number> {
    this.#assertOpen()
    checkCount('limit', limit, 1)
    // A bound: a job that fails again meanwhile is listed again.
    const most = Math.min(limit, (await this.counts()).failed)
    let done = 0
    let skipped = 0
    while (done < most) {
      const ids = await this.#store.list(
        'failed',
        skipped,
        Math.min(DEFAULT_PAGE_SIZE, most - done),
        this.#limits,
      )
      if (ids.length === 0) break
      const retried = await Promise.all(ids.map((id) => this.retry(id)))
      const count = retried.filter(Boolean).length
      done += count
      skipped += ids.length - count
    }
    return done
  }

  /**
   * Cancels a job that has not finished: aborts the signal of its handler, and rejects its waiters with a RemoteError whose
   * `remote.code` is 'E_CANCELLED'. Returns false if there is no such job, or it has finished.
   */
  cancel(id: string): Promise<boolean> {
    return this.#endJob(id, 'error', CANCELLED_FAILURE)
  }

  /** Removes a job and its outcome. Its waiters are rejected with RemovedError. Returns false if there is no such job. */
  remove(id: string): Promise<boolean> {
    return this.#endJob(id, 'removed', Buffer.alloc(0))
  }

  async #endJob(id: string, kind: 'error' | 'removed', bytes: Buffer): Promise<boolean> {
    const snapshot = await this.#snapshot(id)
    if (!snapshot) return false
    const { command } = snapshot
    return this.#store.terminate(
      { id, command, kind, bytes, outcomeRetention: OUTCOME_RETENTION, onlyIfUnwanted: false },
      this.#limits,
    )
  }

  /** Returns the lines that handlers wrote with `job.log`: the last 1,000, kept for a day. */
  async logs(id: string): Promise<string[]> {
    this.#assertOpen()
    return isJobId(id) ? this.#store.readLog(id, this.#limits) : []
  }

  /**
   * Calls `listener` with the events of this queue from all processes, best effort, until the returned function is called.
   * Events are sent only while at least one process watches.
   */
  async watch(listener: (event: FeedEvent) => void): Promise<() => void> {
    this.#assertOpen()
    checkFunction('listener', listener)
    const context = new AsyncContext()
    return this.#store.watchEvents((text) => {
      const event = parseFeedEvent(text)
      if (event) callHook(context, 'watch', listener, event)
    }, this.#limits)
  }

  /**
   * Resolves when Redis answers and the subscription is established; for an embedded queue, at once. Use it at the start of
   * a service or in a readiness probe. Other calls need not wait for it.
   * @throws UnavailableError with the cause if that takes longer than `timeout` ms; ClosedError.
   */
  async ready({ timeout = READY_TIMEOUT_MS }: { timeout?: number | undefined } = {}): Promise<void> {
    checkDuration('timeout', timeout)
    this.#assertOpen()
    const { connection } = this.#link ?? {}
    if (!connection) return
    const { base } = new QueueKeys(this.#options.prefix, this.name)
    await awaitReady(connection, `${base}p/${connection.inbox.id}`, timeout)
  }

  /** Returns statistics of this queue object. */
  stats(): QueueStats {
    const running = [...this.#workers.values()].reduce((sum, worker) => sum + worker.busy, 0)
    const { subscribed } = this.#store
    return { waiting: this.#waits.size, running, ...this.#events.counters, subscribed }
  }

  #assertOpen(): void {
    if (this.#closing) throw closedError()
  }

  /**
   * Stops taking jobs, waits up to `grace` ms for running handlers, then aborts the rest and requeues their jobs for other
   * workers. Rejects all waiters of this queue object with ClosedError. Never rejects.
   * @throws TypeError if `grace` is not a duration.
   */
  close({ grace = DEFAULT_GRACE }: { grace?: number } = {}): Promise<void> {
    checkDuration('grace', grace, { infinite: true })
    this.#closing ??= this.#close(grace)
    return this.#closing
  }

  async #close(grace: number): Promise<void> {
    this.#duePoller?.close()
    const workers = [...this.#workers.values()]
    await Promise.all(workers.map((worker) => worker.stopDeliveries()))
    await Promise.all(workers.map((worker) => worker.drained(grace)))
    await Promise.all(workers.map((worker) => worker.cancelAndRequeue()))
    await this.#waits.close((key) => new ClosedError('The queue was closed', { key }))
    this.#store.close()
    await this.#link?.release()
    if (this.#duePoller) unrefProcess(this.#clock)
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }
}

/** Largest number of jobs on a page. */
const MAX_PAGE_SIZE = 1_000

const STATES = ['waiting', 'delayed', 'active', 'completed', 'failed'] as const

function abortedBefore(key: string, signal: AbortSignal): AbortedError {
  return new AbortedError('The submitter aborted before it asked', { key, cause: signal.reason })
}
