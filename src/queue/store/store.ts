import type { CallLimits } from '../../locker/store/store.ts'

/** A job that nobody has run is kept for so long after it was put in line, or after its delay, ms. */
export const KEEP_JOBS: number = 90 * 24 * 60 * 60_000

/** The longest delay of a job, ms. */
export const MAX_DELAY: number = 365 * 24 * 60 * 60_000

/**
 * The store port of the queue: the atomic transitions of a job's record, of what waits and of who is idle. Two adapters:
 * MemoryQueueStore (memory/queue-book.ts is the executable specification) and RedisQueueStore (the same, as scripts).
 *
 * A job is a resource of the Locker with one more state: queued. Its record has the Locker's groups (value, lease,
 * outcome, parks), and the job: payload, options, generation. A generation is one submission that is run to an outcome,
 * however many attempts it takes; whoever waits names the generation that it waits for.
 */

/** What became of a generation. */
export interface JobOutcome {
  /** 'removed': nobody will run it any more. */
  kind: 'value' | 'error' | 'removed'
  /** The attempt that it was accepted under; 0 when there was none. */
  fence: number
  /** The encoded result, or the encoded failure. */
  bytes: Buffer
}

/** What to do when a job of the same id has another payload. */
export type Conflict = 'reject' | 'join' | 'rerun'

/** A job that is handed in. */
export interface Submission {
  id: string
  command: string
  /** Canonical JSON; '' for undefined. */
  payload: string
  /** For the worker, which reads them; the store does not. */
  options: string
  /** Of this submission: what is sent twice is known by it, and messages to whoever waits echo it. */
  nonce: string
  /** Whether its outcome is to be told. */
  waits: boolean
  conflict: Conflict
  /** ms until it may run. */
  delay: number
  /** Higher runs first; 0 is ordinary. */
  priority: number
  /** Before those that wait already. */
  lifo: boolean
  /** Cancel it when the last who waits for it has left. */
  abortUnwanted: boolean
  /** Refuse it unless a worker for its command is known. */
  known: boolean
}

export type SubmitReply =
  | { status: 'created' | 'joined'; generation: number }
  /** There is an outcome already, within its ttl. */
  | { status: 'cached'; generation: number; outcome: JobOutcome }
  /** Another payload runs, or is kept, under this id. */
  | { status: 'conflict' }
  /** No worker for the command is known. */
  | { status: 'unknown' }
  /** Too many wait for it already. */
  | { status: 'overloaded' }

/** A message to whoever waits for a job. */
export type JobNotice =
  | { kind: 'outcome'; outcome: JobOutcome }
  /** There is an outcome that is too large for a message. */
  | { kind: 'more' }
  | { kind: 'progress'; bytes: Buffer }

/** Who submits, and is called back: `answered` or `failed` once, `answered` also after `failed` if a reply comes late. */
export interface Submitter {
  answered(reply: SubmitReply): void
  failed(error: Error): void
  /** A message for the nonce, from the call on until `ignore`. */
  notice(notice: JobNotice): void
}

/** Asks what became of a job. */
export interface Question {
  id: string
  generation: number
  /** Parks under this nonce again, if it is still to come; '' asks only. */
  nonce: string
}

export type Answer =
  | { status: 'settled'; outcome: JobOutcome }
  | { status: 'pending' }
  /** It is not there any more, and nobody knows what became of it. */
  | { status: 'gone' }

/** An attempt that was handed to a worker. */
export interface Delivery {
  id: string
  fence: number
  generation: number
  /** Attempts that failed before this one, and attempts whose worker was lost. */
  failed: number
  stalled: number
  /** ms for which it is surely still ours, by the clock of the server; 0: it must be accepted before it may start. */
  left: number
  options: string
  /** Undefined when it is too long for a message: then it is to be read. */
  payload: string | undefined
}

/** What a worker is told. */
export interface WorkerListener {
  deliver(delivery: Delivery): void
  /** The attempt is not wanted any more: its job was cancelled or removed. */
  cancelled(id: string, fence: number): void
  /** Something is due in `ms`. */
  due(ms: number): void
  /** The store may not know of this worker any more, or messages were missed: it should say again what it can take. */
  forgotten(): void
}

/** A worker: one command in one process. */
export interface WorkerName {
  nonce: string
  command: string
}

/** An attempt, as its worker names it. */
export interface Attempt {
  worker: WorkerName
  id: string
  fence: number
}

/** Finished jobs that are kept for being listed. */
export interface Retention {
  /** At most so many of the queue; 0 keeps none. */
  count: number
  /** For so long, ms. */
  age: number
}

/** How an attempt ended. */
export interface Ending extends Attempt {
  kind: 'value' | 'error' | 'retry' | 'handBack'
  /** The encoded result or failure. */
  bytes: Buffer
  /** How long it is served to later submissions, ms. */
  ttl: number
  /** How long it stays readable to whoever waited, ms. */
  linger: number
  /** Before the next attempt, ms. */
  delay: number
  retain: Retention
  /** Whether its place with the worker is free again. */
  frees: boolean
}

/** Something that is due: a delayed job, or an attempt whose lease has ended. */
export interface DueJob {
  id: string
  /** As it stands in names. */
  command: string
}

export interface Due {
  jobs: DueJob[]
  /** ms until the next; undefined: nothing is delayed or runs. */
  next: number | undefined
}

/** What became of something that was due. */
export interface Tick {
  id: string
  command: string
  status: 'none' | 'promoted' | 'stalled' | 'failed'
}

/** What happens to a job that stalls, and what is said when it does too often. */
export interface StallTerms {
  maxStalls: number
  failure: Buffer
  errorTtl: number
  linger: number
  retain: Retention
}

export type JobState = 'waiting' | 'delayed' | 'active' | 'completed' | 'failed'

/** A job as it is now. */
export interface JobSnapshot {
  id: string
  command: string
  state: JobState | 'removed'
  payload: string
  options: string
  generation: number
  failed: number
  stalled: number
  fence: number
  progress: Buffer | undefined
  outcome: JobOutcome | undefined
  /** How many wait for it. */
  waiters: number
}

export type Counts = Record<JobState, number>

/** Ends a job from outside. */
export interface Removal {
  id: string
  command: string
  /** 'error': everybody receives `bytes` as its failure; 'removed': everybody is told that it was removed. */
  kind: 'error' | 'removed'
  bytes: Buffer
  linger: number
  /** Only if nobody waits for it. */
  unwanted: boolean
}

/** Promises reject with UnavailableError, OverloadedError or ClosedError when the store cannot be used. */
export interface QueueStore {
  submit(submission: Submission, within: number, submitter: Submitter): void
  /** No more notices for a nonce. */
  ignore(nonce: string): void
  /** Listens for a question's nonce, as `submit` does. */
  attend(nonce: string, submitter: Pick<Submitter, 'notice'>): void
  look(question: Question, limits: CallLimits): Promise<Answer>
  /** One who waits has left. With `removal`, the job is ended if nobody else waits and its submission asked for that. */
  unpark(nonce: string, removal: Removal, limits: CallLimits): Promise<void>

  /** Says how many jobs a worker can take now; known from then on. */
  offer(worker: WorkerName, places: number, listener: WorkerListener, limits: CallLimits): Promise<void>
  /** The worker takes no more. */
  withdraw(worker: WorkerName, limits: CallLimits): Promise<void>
  /** Extends the lease of an attempt; the first time it accepts it. */
  renew(attempt: Attempt, lease: number, limits: CallLimits): Promise<'held' | 'lost' | 'cancelled'>
  /** Ends an attempt. False: it was lost. Repeated, it has the effect of one. */
  finish(ending: Ending, limits: CallLimits): Promise<boolean>
  /** The payload of an attempt, which must not have been lost. */
  payload(attempt: Attempt, limits: CallLimits): Promise<string | undefined>
  progress(attempt: Attempt, bytes: Buffer, limits: CallLimits): Promise<void>
  /** Appends lines to the job's log. `before`: how many of this attempt there were before; those that are there are skipped. */
  log(attempt: Attempt, lines: readonly string[], before: number, limits: CallLimits): Promise<void>
  logs(id: string, limits: CallLimits): Promise<string[]>

  /** What is due, and when the next will be. */
  due(limits: CallLimits): Promise<Due>
  /** Looks after what is due: promotes what was delayed, and gives what stalled to others. */
  tick(jobs: DueJob[], terms: StallTerms, limits: CallLimits): Promise<Tick[]>

  snapshot(id: string, limits: CallLimits): Promise<JobSnapshot | undefined>
  /** Ids in a state, `from` on, `limit` at most, in the order in which they will be or were treated. */
  list(state: JobState, from: number, limit: number, limits: CallLimits): Promise<string[]>
  counts(limits: CallLimits): Promise<Counts>
  /** Removes what waits, or what is delayed; never what runs. Returns how many jobs. */
  drain(state: 'waiting' | 'delayed', linger: number, limits: CallLimits): Promise<number>
  /** Commands that are known: with something that waits, or with a worker. */
  commands(limits: CallLimits): Promise<string[]>
  /** Whether a worker is known that processes a command. */
  hasWorker(command: string, limits: CallLimits): Promise<boolean>
  /** Ends a job that is not over. False: it is over, or not there. */
  end(removal: Removal, limits: CallLimits): Promise<boolean>
  /**
   * Runs a job that is over once more: its next generation, which is returned, also when this is sent again. Undefined: it
   * is not there, or not over.
   */
  retry(id: string, command: string, generation: number, limits: CallLimits): Promise<number | undefined>
  /** Hands nothing more out, of a command or ('') of all. */
  pause(command: string, limits: CallLimits): Promise<void>
  resume(command: string, limits: CallLimits): Promise<void>
  /** Which commands are paused; '' among them: all. */
  paused(limits: CallLimits): Promise<string[]>

  /** Whether anybody watches this queue: asked before an event is made. */
  readonly watched: boolean
  /** Tells an event of this process to all who watch; it may be lost. */
  report(event: string): void
  /** Hears the events of all processes, as far as they are not lost, until the returned function is called. */
  watch(heard: (event: string) => void, limits: CallLimits): Promise<() => void>

  /** Whether messages arrive. */
  readonly subscribed: boolean
  /** Adds listeners for the subscription; the returned function takes them away. */
  listen(listener: { up(): void; down(): void }): () => void
  close(): void
}

/** A message above this many bytes says only that there is more. */
export { MESSAGE_LIMIT } from '../../locker/store/store.ts'
