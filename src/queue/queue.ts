import { ClosedError } from '../errors.ts'
import type { CensusQuestion } from '../kernel/census.ts'
import type { JsonText } from '../kernel/codec/json-text.ts'
import { checkDuration, checkFunction, checkTimeout } from '../kernel/options.ts'
import { connectionFor } from '../kernel/redis/connection.ts'
import { awaitReady, READY_TIMEOUT_MS } from '../kernel/redis/readiness.ts'
import { EventReporter, type QueueStats } from './events.ts'
import {
  type AnyJobs,
  type BulkJob,
  type CommandOf,
  type HandlerOf,
  Job,
  type JobMap,
  type JobQueue,
  type PayloadOf,
  type ResultOf,
  type ResultOptions,
} from './job.ts'
import { QueueManagement, snapshotOf } from './management.ts'
import {
  acceptTimeout,
  checkSubmitOptions,
  type ProcessOptions,
  type QueueContext,
  type QueueNamesOptions,
  type QueueOptions,
  resolveProcessOptions,
  resolveQueueOptions,
  type SubmitOptions,
} from './options.ts'
import { namesOfQueues } from './queue-names.ts'
import { Registration } from './registration.ts'
import type { QueueCensusItem } from './store/census-item.ts'
import { MemoryQueueStore } from './store/memory-store.ts'
import { QueueKeys } from './store/redis/queue-calls.ts'
import { RedisQueueStore } from './store/redis/redis-store.ts'
import type { Submission } from './store/store.ts'
import { type BegunSubmission, OutcomeWaits } from './submitting/outcome-waits.ts'
import { createPost, type PostJob, type PostOptions, submitPost } from './submitting/post.ts'
import {
  type AcceptedJob,
  assertNotAborted,
  checkName,
  closedError,
  createSubmission,
  submitDetached,
} from './submitting/submission.ts'
import type { TakeOptions } from './taking/options.ts'
import type { TakenJob } from './taking/taken-job.ts'
import { Takers } from './taking/takers.ts'
import { parseToken } from './taking/token.ts'
import { roomOf } from './taking/worker-room.ts'
import type { DuePoller } from './working/due-poller.ts'
import type { Handler } from './working/running-job.ts'
import { createDuePoller, Workers } from './working/workers.ts'

/** How long `close` waits for running jobs by default, ms. */
const DEFAULT_GRACE = 5_000

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
  extends QueueManagement<Jobs>
  implements JobQueue, AsyncDisposable
{
  readonly name: string
  readonly #link: ReturnType<typeof connectionFor>
  readonly #context: QueueContext
  readonly #events: EventReporter
  readonly #duePoller: DuePoller
  readonly #workers: Workers
  readonly #takers: Takers
  readonly #waits: OutcomeWaits
  readonly #stopContributing: (() => void)[]
  #closing: Promise<void> | undefined

  /** Does not wait for a connection. @throws TypeError if the name or an option is invalid. */
  constructor(name: string, given: QueueOptions = {}) {
    super()
    checkName('name', name)
    this.name = name
    const options = resolveQueueOptions(given)
    const link = connectionFor(given, 'RedisQueue')
    const connection = link?.connection
    const memory = given.store ?? new MemoryQueueStore({ clock: given.clock })
    const accept = { acceptWithin: acceptTimeout(options.lease) }
    const store = connection
      ? new RedisQueueStore(connection, options.prefix, name, accept)
      : memory.connect(name)
    const clock = connection?.clock ?? memory.clock
    const within = options.unavailableAfter
    this.#link = link
    const registration = new Registration(store, clock, within)
    this.#context = { queue: name, store, clock, options, within, connection, registration }
    this.#events = new EventReporter(name, this, store)
    this.#duePoller = createDuePoller(this.#context, {
      takesJobs: () => this.#workers.size > 0 || this.#takers.active,
      onProcessed: (results) => this.#events.dueProcessed(results),
    })
    this.#workers = new Workers(this.#context, this.#events, this.#duePoller)
    this.#takers = new Takers(this.#context, {
      open: () => this.open(),
      events: this.#events,
      duePoller: this.#duePoller,
      room: roomOf(connection ?? memory, clock),
    })
    this.#waits = new OutcomeWaits(this.#context, {
      submitted: (...args) => this.#events.submitted(...args),
      hasLocalWorker: (command) => this.#workers.has(command) || this.#takers.has(command),
    })
    const census = connection ?? memory.census
    this.#stopContributing = ['queue', 'workers'].map((layer) =>
      census.contribute(layer, (question) => this.#census(question)),
    )
  }

  /**
   * Returns the names of the queues that submitted or processed jobs in the last 30 days, the last used first; at most
   * 100,000. A queue is there soon after its first use, best effort.
   * @throws UnavailableError, OverloadedError, ClosedError; TypeError if an option is invalid, or without `redis` and `store`.
   */
  static names(given: QueueNamesOptions): Promise<string[]> {
    return namesOfQueues(given)
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
    this.#workers.add(command, handler as Handler, concurrency)
    return this
  }

  /**
   * Submits a job and waits for its result. If an identical job waits, runs, or has an outcome within its ttl, no new job is
   * created and its result is returned.
   * @throws RemoteError if the job failed: `remote.code` is 'E_CANCELLED' if it was cancelled, 'E_STALLED' if it lost its
   * worker more than `maxStalls` times; RemovedError if the job was removed; ConflictError, UnknownCommandError,
   * TimeoutError, AbortedError, UnavailableError, OverloadedError, ClosedError; CodecError or TooLargeError if the payload
   * cannot be encoded or is too large; TypeError.
   */
  async submit<Command extends CommandOf<Jobs>>(
    command: Command,
    payload?: PayloadOf<Jobs, Command> | JsonText,
    options: SubmitOptions = {},
  ): Promise<ResultOf<Jobs, Command>> {
    return this.begin(command, payload, options).outcome as Promise<ResultOf<Jobs, Command>>
  }

  /** As {@link submit}, and tells the id of the job and when the store has accepted it. @internal */
  begin(command: string, payload: unknown, options: SubmitOptions): BegunSubmission {
    this.#assertOpen()
    const submission = createSubmission(command, payload, options, true, this.#context.options)
    assertNotAborted(submission.id, options.signal)
    this.#events.counters.submitted++
    const begun = this.#waits.begin(submission, options)
    this.#context.registration.use()
    return begun
  }

  /**
   * Submits a job without waiting for its outcome. Resolves when the store has accepted it, with a handle of the new or the
   * identical existing job. `timeout` and `onProgress` have no effect here: pass them to `job.result`.
   * @throws as {@link submit}, except the errors of the outcome: RemoteError, RemovedError and TimeoutError.
   */
  async enqueue<Command extends CommandOf<Jobs>>(
    command: Command,
    payload?: PayloadOf<Jobs, Command> | JsonText,
    options: SubmitOptions = {},
  ): Promise<Job<ResultOf<Jobs, Command>>> {
    this.#assertOpen()
    const submission = createSubmission(command, payload, options, false, this.#context.options)
    assertNotAborted(submission.id, options.signal)
    const accepted = this.#submitDetached(submission)
    this.#context.registration.use()
    return accepted
  }

  async #submitDetached(submission: Submission): Promise<Job<never>> {
    const { id, command } = submission
    return this.#accepted({ id, command, ...(await submitDetached(submission, this.#context)) })
  }

  #accepted({ id, command, status, generation }: AcceptedJob): Job<never> {
    this.#events.counters.submitted++
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
      createSubmission(command, payload, options, false, this.#context.options),
    )
    const accepted = submissions.map((submission) => this.#submitDetached(submission))
    if (jobs.length > 0) this.#context.registration.use()
    return (await Promise.allSettled(accepted)).map((each) => {
      if (each.status === 'rejected') throw each.reason
      return each.value
    })
  }

  /**
   * Submits a post: up to 1,000 jobs of up to 2 MiB together, all of them or none, by one step. Each is a new job. With `dedupe`,
   * the same post (commands and payloads, in their order) is not submitted again: it resolves with the jobs of the first.
   * @throws as {@link enqueue}; ConflictError if another post is known under the key. After an UnavailableError whose `sent` is
   * true all jobs may be there; call again with the same `dedupe` to know.
   */
  async enqueueAll(jobs: readonly PostJob<Jobs>[], options: PostOptions = {}): Promise<Job[]> {
    this.#assertOpen()
    const accepted = await submitPost(createPost(jobs, options, this.#context), this.#context)
    if (accepted.length > 0) this.#context.registration.use()
    return accepted.map((job) => this.#accepted(job))
  }

  /**
   * Waits for the outcome of a job: see {@link Job.result}. `isReader`: `abortUnwanted` does not cancel the job when this caller
   * leaves.
   */
  async result(job: Job, options: ResultOptions = {}, isReader = false): Promise<unknown> {
    this.#assertOpen()
    checkSubmitOptions(options)
    assertNotAborted(job.id, options.signal)
    return this.#waits.waitFor(job, options, isReader)
  }

  /**
   * Takes one job of a command without a handler: it is held by its token until its lease ends. Resolves with undefined if no
   * job was found within `wait`. The process stays alive while it waits.
   * @throws AbortedError, UnavailableError, ClosedError, TypeError; OverloadedError if it would be the first to wait for a command,
   * and 10,000 are waited for by the queues of this connection.
   */
  async take<Command extends CommandOf<Jobs>>(
    command: Command,
    options: TakeOptions = {},
  ): Promise<TakenJob<PayloadOf<Jobs, Command>, ResultOf<Jobs, Command>> | undefined> {
    this.#assertOpen()
    checkName('command', command)
    const job = await this.#takers.take(command, options)
    return job as TakenJob<PayloadOf<Jobs, Command>, ResultOf<Jobs, Command>> | undefined
  }

  /**
   * The job that a token names, taken by any process, without its payload. Renewing or finishing it shows whether it is still
   * held.
   * @throws TypeError if it is no token of this queue; ClosedError.
   */
  taken(token: string): TakenJob<undefined> {
    this.#assertOpen()
    const content = parseToken(this.name, token)
    if (!content) throw new TypeError('Expected `token` to be that of a job taken from this queue')
    return this.#takers.taken(content)
  }

  /** Returns a handle of the job with this id; undefined if there is none. */
  async job(id: string): Promise<Job | undefined> {
    const snapshot = await snapshotOf(id, this.open())
    return snapshot && new Job(id, snapshot.command, undefined, snapshot.generation, this)
  }

  /**
   * Resolves when Redis answers and the subscription is established; for an embedded queue, at once. Use it at the start of
   * a service or in a readiness probe. Other calls need not wait for it.
   * @throws UnavailableError with the cause if that takes longer than `timeout` ms; ClosedError.
   */
  async ready({ timeout = READY_TIMEOUT_MS }: { timeout?: number | undefined } = {}): Promise<void> {
    checkDuration('timeout', timeout)
    this.#assertOpen()
    const { connection, options } = this.#context
    if (!connection) return
    const { base } = new QueueKeys(options.prefix, this.name)
    await awaitReady(connection, `${base}p/${connection.inbox.id}`, timeout)
  }

  /** Returns statistics of this queue object. */
  stats(): QueueStats {
    const { running } = this.#workers
    const { subscribed } = this.#context.store
    return { waiting: this.#waits.size, running, ...this.#events.counters, subscribed }
  }

  /** What this queue answers to a census: of 'workers' without those that wait. `filter`: the name of one queue. */
  *#census({ layer, filter }: CensusQuestion): Generator<QueueCensusItem> {
    if (filter !== undefined && filter !== this.name) return
    yield* this.#workers.census()
    yield* this.#takers.census()
    if (layer === 'queue') yield* this.#waits.census()
  }

  #assertOpen(): void {
    if (this.#closing) throw closedError()
  }

  /** @internal */
  protected open(): QueueContext {
    this.#assertOpen()
    return this.#context
  }

  /**
   * Stops taking jobs, waits up to `grace` ms for running handlers, then aborts the rest and requeues their jobs for other
   * workers. Rejects all waiters of this queue object with ClosedError. Never rejects.
   * @throws TypeError if `grace` is not a duration.
   */
  close({ grace = DEFAULT_GRACE }: { grace?: number } = {}): Promise<void> {
    checkTimeout('grace', grace)
    this.#closing ??= this.#close(grace)
    return this.#closing
  }

  async #close(grace: number): Promise<void> {
    this.#duePoller.close()
    await Promise.all([this.#takers.close(), this.#workers.close(grace)])
    await this.#waits.close((key) => new ClosedError('The queue was closed', { key }))
    for (const stop of this.#stopContributing) stop()
    this.#context.store.close()
    await this.#link?.release()
    this.#workers.unref()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }
}
