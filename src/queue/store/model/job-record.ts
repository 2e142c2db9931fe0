import { assertTransition, type Transitions } from '../../../kernel/collections.ts'
import type { AttemptOutcome, JobNotice, JobOutcome, Submission } from '../store.ts'

/** Estimated memory of a record beside its payloads, in bytes. */
export const RECORD_BYTES = 1024
/** Of each park. */
const PARK_BYTES = 128

/** Orders jobs with a priority: higher first, then earlier first. */
export interface Rank {
  priority: number
  /** When it was submitted, µs since the epoch. */
  micros: number
  /** Its position among the submissions of one call. */
  batchIndex: number
}

/** The state of the present generation of a job. The worker is named by inbox and nonce together. */
export type GenerationState =
  /** Has begun, and is in no index of the queue yet. */
  | { readonly kind: 'created' }
  /** In the ready list of its command. */
  | { readonly kind: 'ready' }
  /** In the queue's deadlines and delayed jobs, until then (ms since the epoch). */
  | { readonly kind: 'delayed'; readonly until: number }
  /** Delivered to a worker that has not accepted the attempt yet; in the queue's deadlines. */
  | { readonly kind: 'assigned'; readonly worker: string }
  /** Accepted by its worker; in the queue's deadlines. */
  | { readonly kind: 'active'; readonly worker: string }
  | { readonly kind: 'finished' }

/** The table in queue-model.ts says what causes each. */
const TRANSITIONS: Transitions<GenerationState['kind']> = {
  created: ['ready', 'delayed', 'assigned'],
  ready: ['assigned', 'active', 'finished'],
  delayed: ['ready', 'finished'],
  assigned: ['active', 'ready', 'delayed', 'finished'],
  active: ['active', 'ready', 'delayed', 'finished'],
  finished: ['created'],
}

/** The generation that follows the present one: created by a submission with conflict 'rerun' or 'exclusive'. */
export interface NextGeneration {
  generation: number
  payload: string
  options: string
  /** Nonce of the latest submission with this payload. */
  creatorNonce: string
  /** How it starts; undefined: at once, with the rank of the job. */
  start: NextStart | undefined
}

/** How a generation starts that an 'exclusive' submission has created. */
export interface NextStart {
  /** When its delay ends, ms since the epoch; 0: it has none. */
  dueAt: number
  rank: Rank | undefined
}

/** How the last finished generation ended. */
export interface KeptOutcome extends JobOutcome {
  /** Until when it is served to later submissions, ms since the epoch; 0: no longer. */
  freshUntil: number
}

/** How a generation ends, and how long its outcome is kept. */
export interface GenerationEnd {
  kind: JobOutcome['kind']
  bytes: Buffer
  /** How long it is served to later submissions, ms. */
  ttl: number
  /** How long it stays readable to those who waited, ms. */
  outcomeRetention: number
  /** Not ended by its worker: a late `finish` of that worker is refused. */
  endedExternally?: boolean
}

/** The record of a job: the job itself, its last attempt, its last outcome and its waiters. */
export class JobRecord {
  readonly id: string
  readonly command: string
  generation: number
  payload: string
  options: string
  /** Nonce of the submission that created this generation: a repetition is recognised by it. */
  creatorNonce: string
  /** Whether it is cancelled when the last waiter leaves. Cleared by any submission that does not ask for it. */
  abortUnwanted: boolean
  rank: Rank | undefined
  /** Changed by `moveTo` only. */
  state: GenerationState = { kind: 'created' }

  /** The last attempt. */
  fence = 0
  progress: Buffer | undefined
  /** Attempts of this generation that failed. */
  failures = 0
  /** Attempts of this generation whose worker was lost. */
  stalls = 0
  /** The last attempt that has logged, and how many lines it has logged. */
  logged = { fence: 0, lines: 0 }
  /** The last attempt that was given back, and how. */
  returned: { readonly fence: number; readonly kind: 'retry' | 'requeue' } | undefined
  /** The last attempt that was not ended by its worker. */
  externallyEndedFence: number | undefined

  /** The last finished generation; 0: none. */
  settledGeneration = 0
  outcome: KeptOutcome | undefined
  /** The list of finished jobs that holds it. */
  listedIn: 'failed' | 'completed' | undefined

  /** The park of the submitter that created this generation, while it waits; ''. */
  creatorPark = ''
  /** The other waiters, each with the generation that it waits for, in the order of arrival. */
  readonly parks: Map<string, number> = new Map()
  next: NextGeneration | undefined
  /** When the record expires, ms since the epoch. */
  expiresAt = 0

  constructor(submission: Submission, generation: number) {
    this.id = submission.id
    this.command = submission.command
    this.generation = generation
    this.payload = submission.payload
    this.options = submission.options
    this.creatorNonce = submission.nonce
    this.abortUnwanted = submission.abortUnwanted
  }

  /** Estimated memory, in bytes. */
  get bytes(): number {
    const { id, options, payload, next, outcome, progress, waiters } = this
    const kept = [id, options, payload, next?.options, next?.payload, outcome?.bytes, progress]
    return kept.reduce(
      (sum, part) => sum + (part === undefined ? 0 : Buffer.byteLength(part)),
      RECORD_BYTES + waiters * PARK_BYTES,
    )
  }

  /** @throws Error for an illegal transition. */
  moveTo(state: GenerationState): void {
    assertTransition('job', TRANSITIONS, this.state.kind, state.kind)
    this.state = state
  }

  get finished(): boolean {
    return this.state.kind === 'finished'
  }

  /** The worker that has the present attempt; '': none. */
  get worker(): string {
    return 'worker' in this.state ? this.state.worker : ''
  }

  get waiters(): number {
    return this.parks.size + (this.creatorPark === '' ? 0 : 1)
  }

  /** Whether this worker has the present attempt, under this fence. */
  isHeldBy(worker: string, fence: number): boolean {
    return this.worker === worker && this.fence === fence
  }

  /** Whether the present generation satisfies a submission. */
  matches({ conflict, payload }: Submission): boolean {
    return conflict === 'join' || this.payload === payload
  }

  /** The outcome that later submissions are served. */
  freshOutcome(now: number): KeptOutcome | undefined {
    return this.finished && this.outcome && this.outcome.freshUntil > now ? this.outcome : undefined
  }

  /** The outcome of a generation, or of a later one. */
  outcomeOf(generation: number): JobOutcome | undefined {
    if (!this.outcome || this.settledGeneration < generation) return undefined
    const { kind, fence, bytes } = this.outcome
    return { kind, fence, bytes: kind === 'removed' ? Buffer.alloc(0) : bytes }
  }

  /** Whether a generation has not ended yet. */
  isPending(generation: number): boolean {
    return this.generation >= generation || (this.next?.generation ?? 0) >= generation
  }

  /** Whether an attempt has been ended in this way already, by its worker, with this result or failure. */
  endedAs({ kind, fence, bytes }: Pick<AttemptOutcome, 'kind' | 'fence' | 'bytes'>): boolean {
    if (kind === 'retry' || kind === 'requeue')
      return this.returned?.fence === fence && this.returned.kind === kind
    const { outcome } = this
    if (this.externallyEndedFence === fence || outcome?.kind !== kind || outcome.fence !== fence) return false
    return outcome.bytes.equals(bytes)
  }

  /**
   * The present attempt logs `count` lines after `before` earlier ones; undefined: after all that were logged. Returns how many
   * of them were logged already.
   */
  acceptLogLines(before: number | undefined, count: number): number {
    const { fence, logged } = this
    const earlier = logged.fence === fence ? logged.lines : 0
    const from = before ?? earlier
    const known = Math.max(0, earlier - from)
    if (known < count) this.logged = { fence, lines: from + count }
    return known
  }

  /** The worker gives the attempt back: it failed, or was not finished. */
  releaseAttempt(kind: 'retry' | 'requeue'): void {
    this.returned = { fence: this.fence, kind }
    this.progress = undefined
    if (kind === 'retry') this.failures++
  }

  /** The waiters of the present generation: the creator first, then in the order of arrival. */
  currentParks(): string[] {
    const parks = [...this.parks].filter(([, generation]) => generation <= this.generation)
    return [...(this.creatorPark === '' ? [] : [this.creatorPark]), ...parks.map(([park]) => park)]
  }

  /** Ends the present generation and notifies its waiters. Waiters of the next generation stay parked. */
  settle(
    { kind, bytes, ttl, endedExternally }: GenerationEnd,
    now: number,
    notifyWaiter: (park: string, notice: JobNotice) => void,
  ): void {
    const { fence } = this
    const notified = this.currentParks()
    this.moveTo({ kind: 'finished' })
    this.creatorPark = ''
    for (const park of notified) this.parks.delete(park)
    this.settledGeneration = this.generation
    if (endedExternally) this.externallyEndedFence = fence
    this.outcome = { kind, fence, bytes, freshUntil: kind !== 'removed' && ttl > 0 ? now + ttl : 0 }
    const outcome = { kind, fence, bytes }
    for (const park of notified) notifyWaiter(park, { kind: 'outcome', outcome })
  }

  /** Makes the next generation part of the present one, so that one outcome ends both. */
  mergeNext(): void {
    if (!this.next) return
    this.generation = this.next.generation
    // The latest submission is the one that may still be sent again.
    this.creatorNonce = this.next.creatorNonce
    this.next = undefined
  }

  /** Begins a generation: its attempts are counted from 0. */
  startGeneration(generation: number): void {
    this.moveTo({ kind: 'created' })
    this.generation = generation
    this.progress = undefined
    this.failures = 0
    this.stalls = 0
    this.returned = undefined
    if (this.outcome) this.outcome.freshUntil = 0
  }

  /** Begins the next generation. */
  startNext({ generation, payload, options, creatorNonce, start }: NextGeneration): void {
    this.next = undefined
    this.payload = payload
    this.options = options
    this.creatorNonce = creatorNonce
    if (start) this.rank = start.rank
    this.startGeneration(generation)
  }

  /** Begins a generation for a new submission, after the previous one has finished. */
  resubmit(submission: Submission, generation: number): void {
    this.payload = submission.payload
    this.options = submission.options
    this.creatorNonce = submission.nonce
    this.abortUnwanted = submission.abortUnwanted
    this.rank = undefined
    this.startGeneration(generation)
  }
}
