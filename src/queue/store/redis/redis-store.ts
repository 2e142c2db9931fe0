import { FORMAT } from '../../../kernel/keys.ts'
import { type CallLimits, MAX_PARKED, MESSAGE_LIMIT } from '../../../kernel/limits.ts'
import type { Connection } from '../../../kernel/redis/connection.ts'
import { refusedError } from '../../../kernel/redis/diagnosis.ts'
import type { Hint, Listener } from '../../../kernel/redis/subscription.ts'
import { atEndOfTick, type Timer } from '../../../kernel/time.ts'
import type {
  AttemptOutcome,
  AttemptRef,
  DueJob,
  DueJobs,
  DueResult,
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
} from '../store.ts'
import { QueueCalls } from './calls.ts'
import { EventFeed } from './event-feed.ts'
import { BatchItem, CallBatcher } from './exchange.ts'
import { QueueManagement } from './management.ts'
import { notifyWorker, parseJobNotice } from './messages.ts'
import { QueueKeys } from './queue-keys.ts'
import { parseOutcomeReply, parseSubmitReply, toCode, toText } from './replies.ts'
import { type QueueScripts, queueScripts } from './scripts/index.ts'
import { flagsOf } from './scripts/submit.ts'

/** What a test may set otherwise. */
export interface RedisQueueStoreOptions {
  scripts?: QueueScripts
  maxParked?: number
  messageLimit?: number
  /** How long a delivery may take to be accepted, ms. */
  acceptWithin?: number
  /** Jobs that one step of `drain` looks at. */
  drainStep?: number
}

/** Lines that a job's log has at most, and how long it is kept, ms. */
const LOG_LINES = 1000
const LOG_TTL = 24 * 60 * 60_000

/** What was delivered to a worker that is withdrawn is waited for so long, ms. */
const MESSAGE_DRAIN_TIMEOUT = 500

/** What is due is looked after so many at a time. */
const MAX_DUE_JOBS = 32

const OUTCOME_CODES: Record<AttemptOutcome['kind'], string> = {
  value: 'v',
  error: 'e',
  retry: 'r',
  requeue: 'h',
}
const RENEWAL_STATES = ['lost', 'held', 'cancelled'] as const
const DUE_STATUSES = ['none', 'promoted', 'stalled', 'failed'] as const

/** Tells a submitter of messages about its job. */
class InboxListener implements Listener {
  readonly #submitter: NoticeListener

  constructor(submitter: NoticeListener) {
    this.#submitter = submitter
  }

  hint(hint: Hint): void {
    const notice = parseJobNotice(hint)
    if (notice) this.#submitter.onNotice(notice)
  }
}

/** The queue's store on Redis: every transition is one script, on keys that share a slot. */
export class RedisQueueStore extends QueueManagement implements QueueStore {
  readonly #connection: Connection
  readonly #keys: QueueKeys
  readonly #messageLimit: string
  readonly #maxParked: string
  readonly #acceptWithin: number
  readonly #submissions: CallBatcher
  readonly #endings: CallBatcher
  readonly #renewals: CallBatcher
  readonly #queries: CallBatcher
  /** Workers of this process that wait for the last of their messages. */
  readonly #removing = new Map<string, () => void>()
  /** Workers of this process, also those that take no more, until they are ignored. */
  readonly #listeners = new Map<string, WorkerListener>()
  /** Nonces of those that take jobs. */
  readonly #workers = new Set<string>()
  readonly #feed: EventFeed
  readonly #unlisten: () => void

  constructor(connection: Connection, prefix: string, queue: string, options: RedisQueueStoreOptions = {}) {
    const { scripts = queueScripts, acceptWithin: accept = 2000, drainStep = 1000 } = options
    const names = new QueueKeys(prefix, queue)
    super(new QueueCalls(connection, names, accept), scripts, drainStep)
    this.#connection = connection
    this.#keys = names
    this.#acceptWithin = accept
    this.#messageLimit = String(options.messageLimit ?? MESSAGE_LIMIT)
    this.#maxParked = String(options.maxParked ?? MAX_PARKED)
    const { inbox, broadcastChannel } = connection
    const learn = (now: number, sentAt: number) => this.calls.serverClock.update(now, sentAt)
    const head = [inbox.id, broadcastChannel, this.#workRequest, this.#maxParked]
    this.#submissions = new CallBatcher(this.calls, scripts.submit, {
      maxItems: 25,
      valuesPerItem: 1,
      sharedArgs: ({ commands, counts }) => {
        const terms = [...head]
        for (const [index, command] of commands.entries()) terms.push(command.name, `${counts[index]}`)
        return terms
      },
    })
    this.#endings = new CallBatcher(this.calls, scripts.finish, {
      maxItems: 25,
      valuesPerItem: 1,
      sharedArgs: () => [this.#messageLimit],
      onServerTime: learn,
    })
    this.#renewals = new CallBatcher(this.calls, scripts.renew, {
      maxItems: 64,
      valuesPerItem: 1,
      sharedArgs: () => [],
      onServerTime: learn,
    })
    this.#queries = new CallBatcher(this.calls, scripts.queryOutcomes, {
      maxItems: 64,
      valuesPerItem: 2,
      sharedArgs: () => [inbox.id, this.#maxParked],
    })
    this.#feed = new EventFeed(connection, this.#keys.base)
    this.#unlisten = connection.listen({
      up: () => {},
      down: () => {},
      broadcast: (message) => this.#broadcast(message),
    })
  }

  /** What is broadcast when something waits and no worker is known. */
  get #workRequest(): string {
    return `${FORMAT}w ${this.#keys.base}`
  }

  #broadcast(message: Buffer): void {
    if (this.#workers.size === 0 || message.toString() !== this.#workRequest) return
    for (const nonce of this.#workers) this.#listeners.get(nonce)?.onCapacityRequested()
  }

  get subscribed(): boolean {
    return this.#connection.subscribed
  }

  submit(submission: Submission, within: number, submitter: SubmissionListener): void {
    const { id, nonce, payload, options, delay, priority } = submission
    const command = this.calls.command(submission.command)
    if (submission.awaited) this.registerWaiter(nonce, submitter)
    const flags = flagsOf(submission)
    this.#submissions.add(
      new BatchItem(
        this.#keys.job(id),
        command,
        (number) => [`${number} ${flags} ${delay} ${priority}`, nonce, payload, options],
        (values, at) => {
          const reply = parseSubmitReply(values[at])
          if (typeof reply === 'string') submitter.onError(refusedError(reply))
          else submitter.onReply(reply)
        },
        (error) => submitter.onError(error),
      ),
      within,
    )
  }

  registerWaiter(nonce: string, submitter: NoticeListener): void {
    this.#connection.inbox.listen(nonce, new InboxListener(submitter))
  }

  unregister(nonce: string): void {
    this.#connection.inbox.ignore(nonce)
    this.#listeners.delete(nonce)
  }

  queryOutcome({ id, generation, nonce }: OutcomeQuery, { within }: CallLimits): Promise<OutcomeReply> {
    return new Promise((resolve, failed) =>
      this.#queries.add(
        new BatchItem(
          this.#keys.job(id),
          undefined,
          () => [String(generation), nonce],
          (values, at) => resolve(parseOutcomeReply(values[at], values[at + 1])),
          failed,
        ),
        within,
      ),
    )
  }

  async unpark(nonce: string, removal: Termination, { within }: CallLimits): Promise<void> {
    await this.#terminate(this.#connection.inbox.id + nonce, removal, within)
  }

  async terminate(removal: Termination, { within }: CallLimits): Promise<boolean> {
    return this.#terminate('', removal, within)
  }

  async #terminate(park: string, removal: Termination, within: number): Promise<boolean> {
    const { id, kind, bytes, outcomeRetention, onlyIfUnwanted } = removal
    const args = [
      park,
      kind === 'error' ? 'e' : 'x',
      bytes,
      String(outcomeRetention),
      onlyIfUnwanted ? '1' : '0',
    ]
    const reply = await this.job(
      this.scripts.terminate,
      id,
      removal.command,
      [...args, this.#messageLimit],
      within,
    )
    return Number(reply) === 1
  }

  #address({ nonce }: WorkerRef): string {
    return this.#connection.inbox.id + nonce
  }

  async setCapacity(
    worker: WorkerRef,
    places: number,
    listener: WorkerListener,
    { within }: CallLimits,
  ): Promise<void> {
    this.#listeners.set(worker.nonce, listener)
    this.#workers.add(worker.nonce)
    this.#connection.inbox.listen(worker.nonce, {
      hint: (hint) => {
        if (hint.kind === 'j') this.calls.fenceWatermark.observe(Number(hint.fields[1]))
        if (hint.kind === 'w') this.#removing.get(worker.nonce)?.()
        // Never for longer than it was given: the server's clock may have been set.
        notifyWorker(listener, hint, (until) =>
          Math.min(this.calls.serverClock.remaining(until), this.#acceptWithin),
        )
      },
    })
    const args = [this.#address(worker), String(places), worker.command]
    const sentAt = this.#connection.clock.now()
    const command = this.calls.command(worker.command)
    const now = await this.calls.call(this.scripts.setCapacity, [command], [], args, within)
    this.calls.serverClock.update(Number(now), sentAt)
  }

  async removeWorker(worker: WorkerRef, { within }: CallLimits): Promise<void> {
    // Never heard of: nothing was delivered to it, nor will be. One that was withdrawn may have got a place back since.
    if (!this.#listeners.has(worker.nonce)) return
    this.#workers.delete(worker.nonce)
    // Behind the endings of this tick: each gives a place back.
    await new Promise<void>((resolve) => atEndOfTick(resolve))
    const command = this.calls.command(worker.command)
    const caughtUp = this.#drainMessages(worker)
    await this.calls.call(this.scripts.removeWorker, [command], [], [this.#address(worker)], within)
    await caughtUp
  }

  /** What was delivered to a worker may still be on its way when it has been withdrawn: resolves when it is here. */
  async #drainMessages({ nonce }: WorkerRef): Promise<void> {
    if (!this.subscribed) return
    let timer: Timer | undefined
    await new Promise<void>((resolve) => {
      this.#removing.set(nonce, resolve)
      timer = this.#connection.clock.after(MESSAGE_DRAIN_TIMEOUT, resolve, true)
    })
    timer?.cancel()
    this.#removing.delete(nonce)
  }

  renew(
    { worker, id, fence }: AttemptRef,
    lease: number,
    { within }: CallLimits,
  ): Promise<'held' | 'lost' | 'cancelled'> {
    return new Promise((resolve, failed) =>
      this.#renewals.add(
        new BatchItem(
          this.#keys.job(id),
          this.calls.command(worker.command),
          (number) => [`${number} ${fence} ${lease}`, this.#address(worker)],
          (values, at) => resolve(RENEWAL_STATES[Number(values[at])] ?? 'lost'),
          failed,
        ),
        within,
      ),
    )
  }

  finish(ending: AttemptOutcome, { within }: CallLimits): Promise<boolean> {
    const { worker, id, fence, kind, bytes, ttl, outcomeRetention, delay, retain, releasesSlot } = ending
    const numbers = [ttl, outcomeRetention, delay, retain.count, retain.age, releasesSlot ? 1 : 0].join(' ')
    return new Promise((resolve, failed) =>
      this.#endings.add(
        new BatchItem(
          this.#keys.job(id),
          this.calls.command(worker.command),
          (number) => [
            `${number} ${OUTCOME_CODES[kind]} ${numbers}`,
            String(fence),
            this.#address(worker),
            bytes,
          ],
          (values, at) => {
            const code = toCode(values[at])
            if (code === undefined) failed(refusedError(values[at]))
            else resolve(code === 1)
          },
          failed,
        ),
        within,
      ),
    )
  }

  async readPayload({ worker, id, fence }: AttemptRef, { within }: CallLimits): Promise<string | undefined> {
    const reply = await this.read('hmget', [this.#keys.job(id), 'o', 'f', 'p'], within)
    const [owner, last, payload] = reply as unknown[]
    const held = toText(owner) === this.#address(worker) && Number(toText(last)) === fence
    return held && payload !== null ? toText(payload) : undefined
  }

  async publishProgress(
    { worker, id, fence }: AttemptRef,
    bytes: Buffer,
    { within }: CallLimits,
  ): Promise<void> {
    await this.job(
      this.scripts.publishProgress,
      id,
      undefined,
      [this.#address(worker), String(fence), bytes],
      within,
    )
  }

  async appendLog(
    { worker, id, fence }: AttemptRef,
    lines: readonly string[],
    before: number,
    { within }: CallLimits,
  ): Promise<void> {
    const keys = [this.#keys.job(id), this.#keys.log(id)]
    const args = [this.#address(worker), ...[fence, LOG_LINES, LOG_TTL, before].map(String), ...lines]
    await this.calls.call(this.scripts.appendLog, [], keys, args, within)
  }

  async findDue({ within }: CallLimits): Promise<DueJobs> {
    const key = this.#keys.shared[0] as string
    const reply = await this.read('zrange', [key, '0', String(MAX_DUE_JOBS - 1), 'WITHSCORES'], within)
    const flat = (reply as unknown[]).flat().map(toText)
    const jobs: DueJob[] = []
    let next: number | undefined
    for (let at = 0; at < flat.length && next === undefined; at += 2) {
      const [id, command] = (flat[at] ?? '').split(' ')
      // Not before the server itself, which reads whole milliseconds, takes it for due.
      const left = this.calls.serverClock.remaining(Number(flat[at + 1]) + 1)
      if (left > 0) next = left
      else if (id !== undefined && command !== undefined) jobs.push({ id, command })
    }
    return { jobs, nextIn: next }
  }

  async processDue(jobs: DueJob[], terms: StallPolicy, { within }: CallLimits): Promise<DueResult[]> {
    const { maxStalls, failure, errorTtl, outcomeRetention, retain } = terms
    const commands = [...new Set(jobs.map((job) => job.command))]
    const sentAt = this.#connection.clock.now()
    const numbers = jobs.map((job) => String(commands.indexOf(job.command) + 1))
    const reply = await this.calls.call(
      this.scripts.processDue,
      commands.map((name) => this.calls.commandOfSegment(name)),
      jobs.map((job) => this.#keys.job(job.id)),
      [
        String(maxStalls),
        failure,
        ...[errorTtl, outcomeRetention, retain.count, retain.age].map(String),
        this.#messageLimit,
        ...numbers,
      ],
      within,
    )
    this.calls.serverClock.update(Number((reply as unknown[])[jobs.length]), sentAt)
    return jobs.map(({ id, command }, index) => ({
      id,
      command,
      status: DUE_STATUSES[Number((reply as unknown[])[index])] ?? 'none',
    }))
  }

  get hasWatchers(): boolean {
    return this.#feed.hasWatchers
  }

  publishEvent(event: string): void {
    this.#feed.publish(event)
  }

  watchEvents(heard: (event: string) => void, { within }: CallLimits): Promise<() => void> {
    return this.#feed.watch(heard, within)
  }

  listen(listener: { up(): void; down(): void }): () => void {
    return this.#connection.listen({ ...pick(listener), broadcast: () => {} })
  }

  /** The connection has an owner and a life of its own. */
  close(): void {
    this.#unlisten()
    this.#feed.close()
  }
}

function pick(listener: { up(): void; down(): void }): { up(): void; down(): void } {
  return { up: () => listener.up(), down: () => listener.down() }
}
