import { OverloadedError } from '../../errors.ts'
import { ownedBytes } from '../../kernel/codec/binary.ts'
import { microtask } from '../../kernel/time.ts'
import { logEventText } from './event-text.ts'
import { heldOptions, holderOf, parseHolder } from './holder.ts'
import type { BrokerClient, InMemoryBroker } from './in-memory-broker.ts'
import type { QueueLoad } from './load.ts'
import { RECORD_BYTES } from './model/job-record.ts'
import type { ModelAttempt } from './model/queue-model.ts'
import type {
  Assignment,
  AttemptOutcome,
  AttemptRef,
  Counts,
  DueJob,
  DueJobs,
  DueResult,
  FinishReply,
  JobSnapshot,
  JobState,
  NoticeListener,
  OutcomeQuery,
  OutcomeReply,
  Post,
  PostReply,
  QueueStore,
  Renewal,
  StallPolicy,
  Submission,
  SubmissionListener,
  TakenAttempt,
  TakeRequest,
  Termination,
  WorkerListener,
  WorkerRef,
} from './store.ts'
import type { QueueTotals } from './totals.ts'

function fullError(key: string): OverloadedError {
  return new OverloadedError('The store is full (`maxBytes`)', { key })
}

/** One client of a queue in memory: what a process is to Redis. */
export class InMemoryQueueClient implements QueueStore {
  readonly inbox: string
  readonly subscribed = true
  readonly #broker: InMemoryBroker
  readonly #client: BrokerClient = {
    waiters: new Map(),
    listeners: new Map(),
    workers: new Set(),
    watchers: new Set(),
  }

  constructor(broker: InMemoryBroker) {
    this.#broker = broker
    this.inbox = broker.hub.connect(this.#client)
  }

  submit(submission: Submission, _within: number, listener: SubmissionListener): void {
    const { id, payload } = submission
    const isKnown = () => this.#broker.model.state.job(id, this.#broker.now) !== undefined
    if (!this.#broker.fits(Buffer.byteLength(payload)) && !isKnown())
      return microtask(() => listener.onError(fullError(id)))
    if (submission.awaited) this.registerWaiter(submission.nonce, listener)
    const reply = this.#broker.apply((model, context) => model.submit(submission, this.inbox, context))
    microtask(() => listener.onReply(reply))
  }

  async submitAll(post: Post): Promise<PostReply> {
    const bytes = post.jobs.reduce((sum, { payload }) => sum + RECORD_BYTES + Buffer.byteLength(payload), 0)
    const isKnown = () => this.#broker.model.state.post(post.key, this.#broker.now) !== undefined
    if (!this.#broker.fits(bytes) && !isKnown()) throw fullError(post.key)
    return this.#broker.apply((model, context) => model.submitAll(post, context))
  }

  unregister(nonce: string): void {
    this.#client.waiters.delete(nonce)
    this.#client.listeners.delete(nonce)
  }

  registerWaiter(nonce: string, listener: NoticeListener): void {
    this.#client.waiters.set(nonce, listener)
  }

  async queryOutcome(query: OutcomeQuery): Promise<OutcomeReply> {
    return this.#broker.apply((model, context) => model.queryOutcome(query, this.inbox, context))
  }

  async unpark(nonce: string, termination: Termination): Promise<void> {
    this.#broker.apply((model, context) => model.unpark(this.inbox + nonce, termination, context))
  }

  async setCapacity(
    { nonce, command }: WorkerRef,
    slots: () => number,
    listener: WorkerListener,
    _within?: number,
    former?: number,
  ): Promise<Assignment> {
    this.#client.listeners.set(nonce, listener)
    this.#client.workers.add(nonce)
    const worker = this.inbox + nonce
    return this.#broker.apply((model, context) =>
      model.setCapacity(worker, command, slots(), former, context),
    )
  }

  async take(request: TakeRequest): Promise<TakenAttempt | 'due' | undefined> {
    const addressOf = (attempt: TakenAttempt) => {
      const options = heldOptions(attempt.options)
      return this.#address(holderOf({ ...request, ...attempt, options, queue: this.#broker.name }))
    }
    return this.#broker.apply((model, context) =>
      model.take(request.command, request.lease, addressOf, context),
    )
  }

  async findTaken({ command, secret }: TakeRequest): Promise<AttemptRef | undefined> {
    const found = this.#broker.apply((model, { now }) => model.findTaken(secret, now))
    return found && { ...found, worker: parseHolder(command, found.worker) }
  }

  async removeWorker({ nonce, command }: WorkerRef, within: number): Promise<void> {
    this.#client.workers.delete(nonce)
    this.#broker.apply((model, context) => model.removeWorker(this.inbox + nonce, command, context))
    await this.#broker.delivered(within)
  }

  #address({ nonce, inbox = this.inbox }: WorkerRef): string {
    return inbox + nonce
  }

  #modelAttempt({ worker, id, fence }: AttemptRef): ModelAttempt {
    return { worker: this.#address(worker), id, fence }
  }

  async renew(attempt: AttemptRef, lease: number, _within: number, holder?: WorkerRef): Promise<Renewal> {
    const to = holder && this.#address(holder)
    return this.#broker.apply((model, context) =>
      model.renew(this.#modelAttempt(attempt), lease, to, context),
    )
  }

  async finish(outcome: AttemptOutcome): Promise<FinishReply> {
    const attemptOutcome = { ...outcome, ...this.#modelAttempt(outcome), bytes: ownedBytes(outcome.bytes) }
    return this.#broker.apply((model, context) => model.finish(attemptOutcome, context))
  }

  /** Every delivery carries its payload. */
  async readPayload(): Promise<undefined> {}

  async publishProgress(attempt: AttemptRef, bytes: Buffer): Promise<void> {
    this.#broker.apply((model, context) =>
      model.publishProgress(this.#modelAttempt(attempt), ownedBytes(bytes), context),
    )
  }

  async appendLog(attempt: AttemptRef, lines: readonly string[], before: number | undefined): Promise<void> {
    const isAppended = this.#broker.appendLog(this.#modelAttempt(attempt), lines, before)
    if (isAppended && this.hasWatchers) this.publishEvent(logEventText(attempt, lines))
  }

  async readLog(id: string): Promise<string[]> {
    return this.#broker.readLog(id)
  }

  async findDue(): Promise<DueJobs> {
    return this.#broker.model.findDue(this.#broker.now)
  }

  async processDue(jobs: DueJob[], policy: StallPolicy): Promise<DueResult[]> {
    return this.#broker.apply((model, context) => model.processDue(jobs, policy, context))
  }

  async snapshot(id: string): Promise<JobSnapshot | undefined> {
    return this.#broker.model.snapshot(id, this.#broker.now)
  }

  async list(state: JobState, from: number, limit: number): Promise<string[]> {
    return this.#broker.model.list(state, from, limit, this.#broker.now)
  }

  async counts(): Promise<Counts> {
    return this.#broker.model.counts(this.#broker.now)
  }

  async totals(): Promise<QueueTotals> {
    return { ...this.#broker.model.state.totals }
  }

  async load(): Promise<QueueLoad> {
    return this.#broker.apply((model, { now, micros }) => model.load(now, micros))
  }

  async resetTotals(): Promise<void> {
    this.#broker.apply((model) => model.resetTotals())
  }

  async countFailure(): Promise<void> {
    this.#broker.apply((model) => model.countFailure())
  }

  async joinRegister(): Promise<void> {
    this.#broker.joinRegister()
  }

  async leaveRegister(): Promise<void> {
    this.#broker.leaveRegister()
  }

  async drain(state: 'waiting' | 'delayed', outcomeRetention: number): Promise<number> {
    return this.#broker.apply((model, context) => model.drain(state, outcomeRetention, context))
  }

  async commands(): Promise<string[]> {
    return this.#broker.model.state.commands(this.#broker.now)
  }

  async hasWorker(command: string): Promise<boolean> {
    return this.#broker.model.state.command(command).knownWorkers(this.#broker.now).length > 0
  }

  async terminate(termination: Termination): Promise<boolean> {
    return this.#broker.apply((model, context) => model.terminate(termination, context))
  }

  async retry(id: string, _command: string, generation: number): Promise<number | undefined> {
    return this.#broker.apply((model, context) => model.retry(id, generation, context))
  }

  async pause(command: string): Promise<void> {
    this.#broker.apply((model, context) => model.pause(command, context.now))
  }

  async resume(command: string): Promise<void> {
    this.#broker.apply((model, context) => model.resume(command, context))
  }

  async pausedCommands(): Promise<string[]> {
    return [...this.#broker.model.state.paused]
  }

  get hasWatchers(): boolean {
    return this.#broker.hasWatchers
  }

  publishEvent(event: string): void {
    this.#broker.publishEvent(event)
  }

  async watchEvents(onEvent: (event: string) => void): Promise<() => void> {
    const { watchers } = this.#client
    const watcher = (event: string) => onEvent(event)
    watchers.add(watcher)
    return () => watchers.delete(watcher)
  }

  /** The subscription is never lost. */
  listen(): () => void {
    return () => {}
  }

  close(): void {
    this.#broker.hub.disconnect(this.inbox)
  }
}
