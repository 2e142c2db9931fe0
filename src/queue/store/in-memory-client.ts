import { OverloadedError } from '../../errors.ts'
import { ownedBytes } from '../../kernel/codec/binary.ts'
import { newId } from '../../kernel/ids.ts'
import { microtask } from '../../kernel/time/timers.ts'
import type { CallLimits } from '../../locker/store/store.ts'
import type { BookHub, HubUser } from './in-memory-broker.ts'
import type { BookAttempt } from './model/queue-model.ts'
import type {
  Answer,
  Attempt,
  Counts,
  Due,
  DueJob,
  Ending,
  JobSnapshot,
  JobState,
  Question,
  QueueStore,
  Removal,
  StallTerms,
  Submission,
  Submitter,
  Tick,
  WorkerListener,
  WorkerName,
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

  submit(submission: Submission, _within: number, submitter: Submitter): void {
    const { id, payload } = submission
    if (!this.#hub.admits(id, Buffer.byteLength(payload))) {
      const full = new OverloadedError('Too much waits already (`maxBytes` of the store)', { key: id })
      return microtask(() => submitter.failed(full))
    }
    if (submission.waits) this.attend(submission.nonce, submitter)
    const reply = this.#hub.change((book, at) => book.submit(submission, this.inbox, at))
    microtask(() => submitter.answered(reply))
  }

  ignore(nonce: string): void {
    this.#user.waiters.delete(nonce)
    this.#user.listeners.delete(nonce)
  }

  attend(nonce: string, submitter: Pick<Submitter, 'notice'>): void {
    this.#user.waiters.set(nonce, submitter)
  }

  async look(question: Question): Promise<Answer> {
    return this.#hub.change((book, at) => book.look(question, this.inbox, at))
  }

  async unpark(nonce: string, removal: Removal): Promise<void> {
    this.#hub.change((book, at) => book.unpark(this.inbox + nonce, removal, at))
  }

  async offer({ nonce, command }: WorkerName, places: number, listener: WorkerListener): Promise<void> {
    this.#user.listeners.set(nonce, listener)
    this.#user.workers.add(nonce)
    this.#hub.change((book, at) => book.offer(this.inbox + nonce, command, places, at))
  }

  /** What was delivered to it has arrived when this resolves. */
  async withdraw({ nonce, command }: WorkerName, { within }: CallLimits): Promise<void> {
    this.#user.workers.delete(nonce)
    this.#hub.change((book) => book.withdraw(this.inbox + nonce, command))
    await this.#hub.caughtUp(within)
  }

  /** An attempt, with the worker as its places name it. */
  #mine({ worker, id, fence }: Attempt): BookAttempt {
    return { worker: this.inbox + worker.nonce, id, fence }
  }

  async renew(attempt: Attempt, lease: number): Promise<'held' | 'lost' | 'cancelled'> {
    return this.#hub.change((book, at) => book.renew(this.#mine(attempt), lease, at))
  }

  async finish(ending: Ending): Promise<boolean> {
    const mine = { ...ending, ...this.#mine(ending), bytes: ownedBytes(ending.bytes) }
    return this.#hub.change((book, at) => book.finish(mine, at))
  }

  /** Every delivery carries it. */
  async payload(): Promise<undefined> {}

  async progress(attempt: Attempt, bytes: Buffer): Promise<void> {
    this.#hub.change((book, at) => book.progress(this.#mine(attempt), ownedBytes(bytes), at))
  }

  async log(attempt: Attempt, lines: readonly string[], before: number): Promise<void> {
    this.#hub.log(this.#mine(attempt), lines, before)
  }

  async logs(id: string): Promise<string[]> {
    return this.#hub.logs(id)
  }

  async due(): Promise<Due> {
    return this.#hub.book.due(this.#hub.now)
  }

  async tick(jobs: DueJob[], terms: StallTerms): Promise<Tick[]> {
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

  async drain(state: 'waiting' | 'delayed', linger: number): Promise<number> {
    return this.#hub.change((book, at) => book.drain(state, linger, at))
  }

  async commands(): Promise<string[]> {
    return this.#hub.book.state.commands(this.#hub.now)
  }

  async hasWorker(command: string): Promise<boolean> {
    return this.#hub.book.state.command(command).workersAt(this.#hub.now).length > 0
  }

  async end(removal: Removal): Promise<boolean> {
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

  async paused(): Promise<string[]> {
    return [...this.#hub.book.state.paused]
  }

  get watched(): boolean {
    return this.#hub.watched
  }

  report(event: string): void {
    this.#hub.report(event)
  }

  async watch(heard: (event: string) => void): Promise<() => void> {
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
