import type {
  Assignment,
  AttemptOutcome,
  AttemptRef,
  FinishReply,
  Renewal,
  Retention,
  TakenAttempt,
  TakeRequest,
  WorkerListener,
  WorkerRef,
} from './attempts.ts'
import type { Counts, JobState } from './counts.ts'
import type { QueueLoad } from './load.ts'
import type { QueueTotals } from './totals.ts'

export type {
  Assignment,
  AttemptOutcome,
  AttemptRef,
  Delivery,
  FinishReply,
  Renewal,
  Retention,
  TakenAttempt,
  TakeRequest,
  WorkerListener,
  WorkerRef,
} from './attempts.ts'
export type { Counts, JobState } from './counts.ts'

/** How long a job that has not finished is kept, ms: counted from when it became ready, or from the end of its delay. */
export const PENDING_JOB_TTL: number = 90 * 24 * 60 * 60_000

/** The longest delay of a job, ms. */
export const MAX_DELAY: number = 365 * 24 * 60 * 60_000

/** Commands of a queue that are known without need, at most: clients choose their names. */
export const MAX_KNOWN_COMMANDS = 1_000
/** So many are looked at with each new one beyond that, and forgotten unless they are needed. */
export const COMMAND_SAMPLE = 16

/** How a generation ended. */
export interface JobOutcome {
  /** 'removed': the job was removed and will not run. */
  kind: 'value' | 'error' | 'removed'
  /** Fence of the attempt that produced it; 0 when no attempt was made. */
  fence: number
  /** The encoded result, or the encoded failure. */
  bytes: Buffer
}

/**
 * What a submission does when a job of the same id has another payload; 'exclusive': whatever its payload. 'exclusive' is
 * refused unless an attempt of the job runs and nothing follows it, or the job has finished.
 */
export type Conflict = 'reject' | 'join' | 'rerun' | 'exclusive'

/** How long a post with a key of its own is known, ms. */
export const POST_KNOWN_FOR: number = 24 * 60 * 60_000

/** A job that is submitted. */
export interface Submission {
  id: string
  command: string
  /** Canonical JSON; '' for undefined. */
  payload: string
  /** Read by those who run or hold the job. The store carries it, and names a holder after it. */
  options: string
  /** Identifies this submission: a repetition is recognised by it, and messages to the submitter carry it. */
  nonce: string
  /** Whether the submitter is parked on the record and notified of the outcome. */
  awaited: boolean
  conflict: Conflict
  /** ms until it may run. */
  delay: number
  /** Higher runs first; 0 is ordinary. */
  priority: number
  /** Runs before the jobs that are ready already. */
  lifo: boolean
  /** Cancel the job when its last waiter leaves. */
  abortUnwanted: boolean
  /** Refuse it unless a worker for its command is known. */
  requiresWorker: boolean
}

export type SubmitReply =
  | { status: 'created' | 'joined'; generation: number }
  /** An outcome within its ttl is kept. */
  | { status: 'cached'; generation: number; outcome: JobOutcome }
  /** Another payload runs, or is kept, under this id. */
  | { status: 'conflict' }
  /** No worker for the command is known. */
  | { status: 'unknown' }
  /** Too many are parked on the record. */
  | { status: 'overloaded' }

/**
 * Jobs that are submitted together, all or none. Each is a new job, whose nonce is that of the post and whose id no other job
 * has; none is awaited.
 */
export interface Post {
  /** Posts of one key are one post. A post that has no key of its own has its nonce. */
  key: string
  /** Of what makes two posts the same. */
  digest: string
  nonce: string
  /** How long it is known, ms. */
  knownFor: number
  jobs: readonly Submission[]
}

export type PostReply =
  /** 'joined': it was known already. `nonce`, `generation`: of the post that is known, and of its jobs. */
  | { status: 'created' | 'joined'; nonce: string; generation: number }
  /** Another post is known under the key. */
  | { status: 'conflict' }
  /** No worker for this command is known. */
  | { status: 'unknown'; command: string }

/** A message to a waiter. */
export type JobNotice =
  | { kind: 'outcome'; outcome: JobOutcome }
  /** The outcome is too large for a message and must be queried. */
  | { kind: 'outcomeReady' }
  | { kind: 'progress'; bytes: Buffer }

/** Receives the messages for a nonce, from its registration until `unregister`. */
export interface NoticeListener {
  onNotice(notice: JobNotice): void
}

/** Receives the reply to a submission: `onReply` or `onError` once. A late reply is given to `onReply` after `onError`. */
export interface SubmissionListener extends NoticeListener {
  onReply(reply: SubmitReply): void
  onError(error: Error): void
}

/** Asks for the outcome of a generation. */
export interface OutcomeQuery {
  id: string
  generation: number
  /** Parks under this nonce again if the generation has not ended; '' only asks. */
  nonce: string
}

export type OutcomeReply =
  | { status: 'settled'; outcome: JobOutcome }
  | { status: 'pending' }
  /** The record does not exist any more; its outcome is not known. */
  | { status: 'gone' }

/** A job that is due: its delay, or the lease of its attempt, has ended. */
export interface DueJob {
  id: string
  /** As it stands in key names. */
  command: string
}

export interface DueJobs {
  jobs: DueJob[]
  /** ms until the next falls due; undefined: no job is delayed or active. */
  nextIn: number | undefined
}

/** What `processDue` did to a job. */
export interface DueResult {
  id: string
  command: string
  status: 'none' | 'promoted' | 'stalled' | 'failed'
}

/** How often a job may stall, and the failure of one that stalls more often. */
export interface StallPolicy {
  maxStalls: number
  failure: Buffer
  errorTtl: number
  outcomeRetention: number
  retain: Retention
}

/** A job as it is now. */
export interface JobSnapshot {
  id: string
  command: string
  state: JobState | 'removed'
  payload: string
  options: string
  generation: number
  failures: number
  stalls: number
  fence: number
  progress: Buffer | undefined
  outcome: JobOutcome | undefined
  /** How many are parked on the record. */
  waiters: number
  /** What is left of the delay of a delayed job, ms. */
  dueIn: number | undefined
}

/** Ends a job that its worker has not ended. */
export interface Termination {
  id: string
  command: string
  /** 'error': waiters receive `bytes` as the failure. 'removed': waiters are notified of the removal. */
  kind: 'error' | 'removed'
  bytes: Buffer
  outcomeRetention: number
  /**
   * 'unwanted': only if no waiter is left and the submissions allow it (`abortUnwanted`). 'never': a waiter leaves, and the job
   * goes on.
   */
  when: 'always' | 'unwanted' | 'never'
}

/**
 * The store port of the queue: the atomic transitions of job records, of the lists of ready jobs and of the free slots of
 * workers. Two adapters: MemoryQueueStore, whose model/queue-model.ts is the executable specification, and
 * RedisQueueStore, which runs the same transitions as scripts.
 *
 * A generation is one submission that runs to an outcome, in one or more attempts. Waiters name the generation that they
 * wait for. A fence numbers an attempt; it only grows.
 *
 * `within`: how long the store may take to answer, ms. Promises reject with UnavailableError, OverloadedError or ClosedError
 * when it cannot be used.
 */
export interface QueueStore {
  submit(submission: Submission, within: number, listener: SubmissionListener): void
  /** Creates all jobs of a post, or none if it is known or refused. Idempotent. */
  submitAll(post: Post, within: number): Promise<PostReply>
  /** Listens for the messages to a waiter's nonce, as `submit` does. */
  registerWaiter(nonce: string, listener: NoticeListener): void
  /** Stops listening for the messages to a waiter or worker. */
  unregister(nonce: string): void
  queryOutcome(query: OutcomeQuery, within: number): Promise<OutcomeReply>
  /** Takes a waiter off the record, then ends the job as `termination` says if that applies. */
  unpark(nonce: string, termination: Termination, within: number): Promise<void>

  /**
   * Sets how many jobs a worker can take now; the worker is known from then on. `former`: the free slots that the call before has
   * left to it, if they are known. The jobs that were delivered to it since take part of `slots`. It is called each time that the
   * request is sent: an old number, sent again behind outcomes that have freed slots, would take these slots away.
   */
  setCapacity(
    worker: WorkerRef,
    slots: () => number,
    listener: WorkerListener,
    within: number,
    former?: number,
  ): Promise<Assignment>
  /**
   * Gives the first ready job of a command to a holder at once. Undefined: none is ready, or the command is paused. 'due': none is
   * ready, but `processDue` may make one ready.
   */
  take(request: TakeRequest, within: number): Promise<TakenAttempt | 'due' | undefined>
  /**
   * What a call of `take` that got no reply has taken; undefined: nothing, or it is not held any more. `age`: ms since the call, at
   * least.
   */
  findTaken(request: TakeRequest, age: number, within: number): Promise<AttemptRef | undefined>
  /** Assigns nothing more to a worker. Resolves when all that was delivered to it has arrived. */
  removeWorker(worker: WorkerRef, within: number): Promise<void>
  /**
   * Extends the lease of an attempt; the first time it also accepts the attempt. `holder`: gives it to this worker, which need
   * not exist: from then on the attempt is known by that name alone. Idempotent.
   */
  renew(attempt: AttemptRef, lease: number, within: number, holder?: WorkerRef): Promise<Renewal>
  /** Ends an attempt. Idempotent. */
  finish(outcome: AttemptOutcome, within: number): Promise<FinishReply>
  /** The payload of an attempt; undefined when the attempt was lost. */
  readPayload(attempt: AttemptRef, within: number): Promise<string | undefined>
  publishProgress(attempt: AttemptRef, bytes: Buffer, within: number): Promise<void>
  /**
   * Appends lines to the job's log, and tells watchers if there are any. `before`: lines of this attempt that were appended
   * earlier. Idempotent, unless `before` is undefined, which means that their number is not known.
   */
  appendLog(
    attempt: AttemptRef,
    lines: readonly string[],
    before: number | undefined,
    within: number,
  ): Promise<void>
  readLog(id: string, within: number): Promise<string[]>

  /** Returns what is due, and when the next job falls due. */
  findDue(within: number): Promise<DueJobs>
  /** Makes delayed jobs ready, and requeues stalled ones. */
  processDue(jobs: DueJob[], policy: StallPolicy, within: number): Promise<DueResult[]>

  snapshot(id: string, within: number): Promise<JobSnapshot | undefined>
  /** Ids in a state, `from` on, `limit` at most, in the order in which they will run, fall due or expire. */
  list(state: JobState, from: number, limit: number, within: number): Promise<string[]>
  counts(within: number): Promise<Counts>
  totals(within: number): Promise<QueueTotals>
  /** Counts, totals and pauses, also by command. Changes nothing. */
  load(within: number): Promise<QueueLoad>
  /** Sets the totals to 0, and forgets the posts. */
  resetTotals(within: number): Promise<void>
  /** Counts a failure that no attempt has reported. */
  countFailure(within: number): Promise<void>
  /** Adds the queue to the register of queues, or notes its use. */
  joinRegister(within: number): Promise<void>
  leaveRegister(within: number): Promise<void>
  /** Removes all waiting or all delayed jobs; never active ones. Returns how many. */
  drain(state: 'waiting' | 'delayed', outcomeRetention: number, within: number): Promise<number>
  /** Commands that are known: with ready jobs or with a worker. */
  commands(within: number): Promise<string[]>
  hasWorker(command: string, within: number): Promise<boolean>
  /** Ends a job that has not finished, or forgets the outcome of one that has. False: there was nothing to do. */
  terminate(termination: Termination, within: number): Promise<boolean>
  /** Runs a finished job again. Returns its new generation; undefined: it does not exist or has not finished. Idempotent. */
  retry(id: string, command: string, generation: number, within: number): Promise<number | undefined>
  /** Assigns no more jobs of a command, or of all (''). */
  pause(command: string, within: number): Promise<void>
  resume(command: string, within: number): Promise<void>
  /** The paused commands; '' among them: all. */
  pausedCommands(within: number): Promise<string[]>

  /** Whether any process watches the events of this queue; checked before an event is built. */
  readonly hasWatchers: boolean
  /** Publishes an event of this process to all watchers. Best effort. */
  publishEvent(event: string): void
  /** Calls `onEvent` with the events of all processes until the returned function is called. Best effort. */
  watchEvents(onEvent: (event: string) => void, within: number): Promise<() => void>

  /** Whether messages arrive. */
  readonly subscribed: boolean
  /** Adds a listener for the subscription; the returned function removes it. */
  listen(listener: { up(): void; down(): void }): () => void
  close(): void
}
