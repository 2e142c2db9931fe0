import { OverloadedError } from '../../errors.ts'
import { ownedBytes } from '../../kernel/codec/binary.ts'
import { newId } from '../../kernel/ids.ts'
import { microtask } from '../../kernel/time/timers.ts'
import type { CallLimits } from '../../locker/store/store.ts'
import type { BookHub, HubUser } from './in-memory-broker.ts'
import type { BookAttempt } from './model/queue-model.ts'
import type {
  AttemptOutcome,
  AttemptRef,
  Counts,
  DueJob,
  DueJobs,
  DueResult,
  JobSnapshot,
  JobState,
  NoticeListener,
  OutcomeQuery,
  OutcomeReply,
  QueueStore,
  StallPolicy,
  Submission,
  SubmissionListener,
  Termination,
  WorkerListener,
  WorkerRef,
} from './store.ts'

/** A queue in memory, as one of its users sees it: what a process on Redis would be. */
export class BookUser implements QueueStore {
  readonly inbox: string = newId()
  readonly subscribed = true
  readonly #hub: BookHub
  readonly #user: HubUser = {
    waiters: new Map(),
    listeners: new Map(),
    workers: new Set(),
    watchers: new Set(),
  }

  constructor(hub: BookHub) {
    this.#hub = hub
    hub.users.set(this.inbox, this.#user)
  }

  submit(submission: Submission, _within: number, submitter: SubmissionListener): void {
    const { id, payload } = submission
    if (!this.#hub.admits(id, Buffer.byteLength(payload))) {
      const full = new OverloadedError('Too much waits already (`maxBytes` of the store)', { key: id })
      return microtask(() => submitter.onError(full))
    }
    if (submission.awaited) this.registerWaiter(submission.nonce, submitter)
    const reply = this.#hub.change((book, at) => book.submit(submission, this.inbox, at))
    microtask(() => submitter.onReply(reply))
  }

  unregister(nonce: string): void {
    this.#user.waiters.delete(nonce)
    this.#user.listeners.delete(nonce)
  }

  registerWaiter(nonce: string, submitter: NoticeListener): void {
    this.#user.waiters.set(nonce, submitter)
  }

  async queryOutcome(question: OutcomeQuery): Promise<OutcomeReply> {
    return this.#hub.change((book, at) => book.look(question, this.inbox, at))
  }

  async unpark(nonce: string, removal: Termination): Promise<void> {
    this.#hub.change((book, at) => book.unpark(this.inbox + nonce, removal, at))
  }

  async setCapacity({ nonce, command }: WorkerRef, places: number, listener: WorkerListener): Promise<void> {
    this.#user.listeners.set(nonce, listener)
    this.#user.workers.add(nonce)
    this.#hub.change((book, at) => book.offer(this.inbox + nonce, command, places, at))
  }

  /** What was delivered to it has arrived when this resolves. */
  async removeWorker({ nonce, command }: WorkerRef, { within }: CallLimits): Promise<void> {
    this.#user.workers.delete(nonce)
    this.#hub.change((book) => book.withdraw(this.inbox + nonce, command))
    await this.#hub.caughtUp(within)
  }

  /** An attempt, with the worker as its places name it. */
  #mine({ worker, id, fence }: AttemptRef): BookAttempt {
    return { worker: this.inbox + worker.nonce, id, fence }
  }

  async renew(attempt: AttemptRef, lease: number): Promise<'held' | 'lost' | 'cancelled'> {
    return this.#hub.change((book, at) => book.renew(this.#mine(attempt), lease, at))
  }

  async finish(ending: AttemptOutcome): Promise<boolean> {
    const mine = { ...ending, ...this.#mine(ending), bytes: ownedBytes(ending.bytes) }
    return this.#hub.change((book, at) => book.finish(mine, at))
  }

  /** Every delivery carries it. */
  async readPayload(): Promise<undefined> {}

  async publishProgress(attempt: AttemptRef, bytes: Buffer): Promise<void> {
    this.#hub.change((book, at) => book.progress(this.#mine(attempt), ownedBytes(bytes), at))
  }

  async appendLog(attempt: AttemptRef, lines: readonly string[], before: number): Promise<void> {
    this.#hub.log(this.#mine(attempt), lines, before)
  }

  async readLog(id: string): Promise<string[]> {
    return this.#hub.logs(id)
  }

  async findDue(): Promise<DueJobs> {
    return this.#hub.book.due(this.#hub.now)
  }

  async processDue(jobs: DueJob[], terms: StallPolicy): Promise<DueResult[]> {
    return this.#hub.change((book, at) => book.tick(jobs, terms, at))
  }

  async snapshot(id: string): Promise<JobSnapshot | undefined> {
    return this.#hub.book.snapshot(id, this.#hub.now)
  }

  async list(state: JobState, from: number, limit: number): Promise<string[]> {
    return this.#hub.book.list(state, from, limit, this.#hub.now)
  }

  async counts(): Promise<Counts> {
    return this.#hub.book.counts(this.#hub.now)
  }

  async drain(state: 'waiting' | 'delayed', outcomeRetention: number): Promise<number> {
    return this.#hub.change((book, at) => book.drain(state, outcomeRetention, at))
  }

  async commands(): Promise<string[]> {
    return this.#hub.book.state.commands(this.#hub.now)
  }

  async hasWorker(command: string): Promise<boolean> {
    return this.#hub.book.state.command(command).workersAt(this.#hub.now).length > 0
  }

  async terminate(removal: Termination): Promise<boolean> {
    return this.#hub.change((book, at) => book.end(removal, at))
  }

  async retry(id: string, _command: string, generation: number): Promise<number | undefined> {
    return this.#hub.change((book, at) => book.retry(id, generation, at))
  }

  async pause(command: string): Promise<void> {
    this.#hub.change((book, at) => book.pause(command, at.now))
  }

  async resume(command: string): Promise<void> {
    this.#hub.change((book, at) => book.resume(command, at))
  }

  async pausedCommands(): Promise<string[]> {
    return [...this.#hub.book.state.paused]
  }

  get hasWatchers(): boolean {
    return this.#hub.watched
  }

  publishEvent(event: string): void {
    this.#hub.report(event)
  }

  async watchEvents(heard: (event: string) => void): Promise<() => void> {
    const { watchers } = this.#user
    const watcher = (event: string) => heard(event)
    watchers.add(watcher)
    return () => watchers.delete(watcher)
  }

  /** Messages always arrive. */
  listen(): () => void {
    return () => {}
  }

  close(): void {
    this.#hub.users.delete(this.inbox)
  }
}
