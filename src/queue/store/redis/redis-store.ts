import { MAX_LOG_LINES, MAX_PARKED, MESSAGE_LIMIT } from '../../../kernel/keys.ts'
import type { Connection } from '../../../kernel/redis/connection.ts'
import { refusedError } from '../../../kernel/redis/diagnosis.ts'
import type { Hint, Listener } from '../../../kernel/redis/subscription.ts'
import { logEventText } from '../event-text.ts'
import type {
  Assignment,
  AttemptOutcome,
  AttemptRef,
  FinishReply,
  NoticeListener,
  OutcomeQuery,
  OutcomeReply,
  Post,
  PostReply,
  QueueStore,
  Renewal,
  Submission,
  SubmissionListener,
  TakenAttempt,
  TakeRequest,
  WorkerListener,
  WorkerRef,
} from '../store.ts'
import { EventFeed } from './event-feed.ts'
import { RedisQueueManagement } from './management.ts'
import { type Argument, BatchItem, CallBatcher, CommandList, QueueCalls, QueueKeys } from './queue-calls.ts'
import { QueueRegister } from './queue-register.ts'
import type { QueueScripts } from './scripts/index.ts'
import { TakeCalls } from './take-calls.ts'
import {
  encodeOutcome,
  encodeTerms,
  parseJobNotice,
  parseOutcomeReply,
  parsePostReply,
  parseSubmitReply,
  toCode,
  toText,
} from './wire.ts'
import { WorkerRegistry } from './worker-registry.ts'

/** All but `acceptWithin` are for tests. */
export interface RedisQueueStoreOptions {
  scripts?: QueueScripts
  /** How many may be parked on one record. */
  maxParked?: number
  /** The largest outcome, in bytes, that a message carries. */
  messageLimit?: number
  /** The lease of an attempt until its worker accepts it, ms. */
  acceptWithin?: number
  /** Jobs that one call of `drain` removes at most. */
  drainStep?: number
}

/** How long a log is kept after its last line, ms. */
const LOG_TTL = 24 * 60 * 60_000

/** By the script's reply. */
const RENEWALS = ['lost', 'held', 'cancelled'] as const
const FINISH_REPLIES: readonly FinishReply[] = ['lost', 'accepted', 'repeated']

/** Parses the messages to a waiter. */
class InboxListener implements Listener {
  readonly #listener: NoticeListener

  constructor(listener: NoticeListener) {
    this.#listener = listener
  }

  hint(hint: Hint): void {
    const notice = parseJobNotice(hint)
    if (notice) this.#listener.onNotice(notice)
  }
}

/** The queue's store on Redis: each transition is one script, on keys of one slot. */
export class RedisQueueStore extends RedisQueueManagement implements QueueStore {
  readonly #feed: EventFeed
  /** The ARGV of create.ts, with which the scripts that submit begin. */
  readonly #submitArgs: (list: CommandList) => Argument[]
  readonly #submissions: CallBatcher
  readonly #outcomes: CallBatcher
  readonly #renewals: CallBatcher
  readonly #queries: CallBatcher
  readonly #takes: TakeCalls
  readonly #workers: WorkerRegistry

  constructor(connection: Connection, prefix: string, queue: string, options: RedisQueueStoreOptions = {}) {
    const { acceptWithin = 2000, drainStep = 1000 } = options
    const { inbox, broadcastChannel } = connection
    const messageLimit = String(options.messageLimit ?? MESSAGE_LIMIT)
    const maxParked = String(options.maxParked ?? MAX_PARKED)
    const keys = new QueueKeys(prefix, queue)
    const calls = new QueueCalls(connection, keys, acceptWithin, options.scripts)
    super(calls, queue, new QueueRegister(connection, prefix), drainStep, messageLimit)
    this.#takes = new TakeCalls(calls, queue)
    this.#workers = new WorkerRegistry(calls, acceptWithin)
    this.#feed = new EventFeed(connection, keys.base)
    const submitHead = [inbox.id, broadcastChannel, this.#workers.capacityRequest, maxParked]
    this.#submitArgs = ({ commands, counts }) => [
      ...submitHead,
      ...commands.flatMap(({ name }, index) => [name, `${counts[index]}`]),
    ]
    const { submit, finish, renew, queryOutcomes } = calls.scripts
    this.#submissions = new CallBatcher(calls, submit, {
      ...{ maxItems: 25, valuesPerItem: 1, repliesTime: false },
      sharedArgs: this.#submitArgs,
    })
    this.#outcomes = new CallBatcher(calls, finish, {
      ...{ maxItems: 25, valuesPerItem: 1, repliesTime: true },
      sharedArgs: () => [messageLimit],
    })
    this.#renewals = new CallBatcher(calls, renew, {
      ...{ maxItems: 64, valuesPerItem: 1, repliesTime: true },
      sharedArgs: () => [],
    })
    this.#queries = new CallBatcher(calls, queryOutcomes, {
      ...{ maxItems: 64, valuesPerItem: 2, repliesTime: false },
      sharedArgs: () => [inbox.id, maxParked],
    })
  }

  get subscribed(): boolean {
    return this.calls.connection.subscribed
  }

  submit(submission: Submission, within: number, listener: SubmissionListener): void {
    const { id, nonce, payload, options } = submission
    if (submission.awaited) this.registerWaiter(nonce, listener)
    const terms = encodeTerms(submission)
    this.#submissions.add(
      new BatchItem(
        this.calls.keys.job(id),
        this.calls.command(submission.command),
        (command) => [`${command} ${terms}`, nonce, payload, options],
        (values, at) => {
          const reply = parseSubmitReply(values[at])
          if (typeof reply === 'string') listener.onError(refusedError(reply))
          else listener.onReply(reply)
        },
        (error) => listener.onError(error),
      ),
      within,
    )
  }

  async submitAll({ key, digest, nonce, knownFor, jobs }: Post, within: number): Promise<PostReply> {
    const { keys, scripts } = this.calls
    const list = new CommandList()
    const recordKeys = [keys.post(key)]
    const jobArgs: Argument[] = []
    for (const submission of jobs) {
      const command = list.numberOf(this.calls.command(submission.command))
      recordKeys.push(keys.job(submission.id))
      jobArgs.push(`${command} ${encodeTerms(submission)}`, submission.payload, submission.options)
    }
    const args = [...this.#submitArgs(list), digest, nonce, String(knownFor), ...jobArgs]
    const reply = await this.calls.call(scripts.submitAll, list.commands, recordKeys, args, within)
    return parsePostReply(
      reply,
      list.commands.map(({ name }) => name),
    )
  }

  registerWaiter(nonce: string, listener: NoticeListener): void {
    this.calls.connection.inbox.listen(nonce, new InboxListener(listener))
  }

  unregister(nonce: string): void {
    this.calls.connection.inbox.ignore(nonce)
    this.#workers.unregister(nonce)
  }

  queryOutcome({ id, generation, nonce }: OutcomeQuery, within: number): Promise<OutcomeReply> {
    return new Promise((resolve, reject) =>
      this.#queries.add(
        new BatchItem(
          this.calls.keys.job(id),
          undefined,
          () => [String(generation), nonce],
          (values, at) => resolve(parseOutcomeReply(values[at], values[at + 1])),
          reject,
        ),
        within,
      ),
    )
  }

  setCapacity(
    worker: WorkerRef,
    slots: () => number,
    listener: WorkerListener,
    within: number,
    former?: number,
  ): Promise<Assignment> {
    return this.#workers.setCapacity(worker, slots, listener, within, former)
  }

  take(request: TakeRequest, within: number): Promise<TakenAttempt | 'due' | undefined> {
    return this.#takes.take(request, within)
  }

  findTaken(request: TakeRequest, age: number, within: number): Promise<AttemptRef | undefined> {
    return this.#takes.findTaken(request, age, within)
  }

  removeWorker(worker: WorkerRef, within: number): Promise<void> {
    return this.#workers.remove(worker, within)
  }

  renew(
    { worker, id, fence }: AttemptRef,
    lease: number,
    within: number,
    holder?: WorkerRef,
  ): Promise<Renewal> {
    const to = holder ? this.calls.address(holder) : ''
    return new Promise((resolve, reject) =>
      this.#renewals.add(
        new BatchItem(
          this.calls.keys.job(id),
          this.calls.command(worker.command),
          (command) => [`${command} ${fence} ${lease}`, this.calls.address(worker), to],
          (values, at) => resolve(RENEWALS[Number(values[at])] ?? 'lost'),
          reject,
        ),
        within,
      ),
    )
  }

  finish(outcome: AttemptOutcome, within: number): Promise<FinishReply> {
    const { worker, id, fence, bytes } = outcome
    const terms = encodeOutcome(outcome)
    return new Promise((resolve, reject) =>
      this.#outcomes.add(
        new BatchItem(
          this.calls.keys.job(id),
          this.calls.command(worker.command),
          (command) => [`${command} ${terms}`, String(fence), this.calls.address(worker), bytes],
          (values, at) => {
            const code = toCode(values[at])
            if (code === undefined) reject(refusedError(values[at]))
            else resolve(FINISH_REPLIES[code] ?? 'lost')
          },
          reject,
        ),
        within,
      ),
    )
  }

  async readPayload({ worker, id, fence }: AttemptRef, within: number): Promise<string | undefined> {
    const reply = await this.calls.read('hmget', [this.calls.keys.job(id), 'o', 'f', 'p'], within)
    const [owner, lastFence, payload] = reply as unknown[]
    const isHeld = toText(owner) === this.calls.address(worker) && Number(toText(lastFence)) === fence
    return isHeld && payload !== null ? toText(payload) : undefined
  }

  async publishProgress(attempt: AttemptRef, bytes: Buffer, within: number): Promise<void> {
    const { worker, id, fence } = attempt
    const args = [this.calls.address(worker), String(fence), bytes]
    await this.calls.callJob(this.calls.scripts.publishProgress, id, undefined, args, within)
  }

  async appendLog(
    attempt: AttemptRef,
    lines: readonly string[],
    before: number | undefined,
    within: number,
  ): Promise<void> {
    const { worker, id, fence } = attempt
    const keys = [this.calls.keys.job(id), this.calls.keys.log(id)]
    const args = [
      this.calls.address(worker),
      ...[fence, MAX_LOG_LINES, LOG_TTL, before ?? ''].map(String),
      ...lines,
    ]
    const isHeld = await this.calls.call(this.calls.scripts.appendLog, [], keys, args, within)
    if (isHeld === 1 && this.hasWatchers)
      this.#feed.publishLog(logEventText(attempt, lines, this.#feed.logRoom))
  }

  get hasWatchers(): boolean {
    return this.#feed.hasWatchers
  }

  publishEvent(event: string): void {
    this.#feed.publish(event)
  }

  watchEvents(onEvent: (event: string) => void, within: number): Promise<() => void> {
    return this.#feed.watch(onEvent, within)
  }

  listen({ up, down }: { up(): void; down(): void }): () => void {
    return this.calls.connection.listen({ up: () => up(), down: () => down(), broadcast: () => {} })
  }

  /** Leaves the connection open: others may use it. */
  close(): void {
    this.#workers.close()
    this.#feed.close()
  }
}
