import type { AttemptOutcome, JobNotice, JobOutcome, Submission } from '../store.ts'

/** What a record takes beside its bytes, about, and so does each place of one who waits. */
const RECORD_BYTES = 1024
const PARK_BYTES = 128

/** Places a job with a priority among its like: higher first, then the earlier. */
export interface Rank {
  priority: number
  /** When it was submitted, µs, and as which of those that were submitted at once. */
  micros: number
  turn: number
}

/** The generation after the present one: of 'rerun'. */
export interface NextGeneration {
  generation: number
  payload: string
  options: string
  /** Nonce of who asked for this payload last. */
  creator: string
}

/** How the last generation that is over ended. */
export interface Settled extends JobOutcome {
  /** Until when it is served to later submissions. */
  freshUntil: number
}

/** How a generation ends, and how long that is to be known. */
export interface Ended {
  kind: JobOutcome['kind']
  bytes: Buffer
  /** For later submissions, ms. */
  ttl: number
  /** For those who waited, ms. */
  outcomeRetention: number
  /** Not ended by its worker, who is not to be told that it has. */
  foreign?: boolean
}

/**
 * The record of a job: the groups of a resource (outcome, lease, parks), and the job itself. Its lease's end stands
 * with the times of the queue.
 */
export class JobRecord {
  readonly id: string
  readonly command: string
  generation: number
  payload: string
  options: string
  /** Nonce of who submitted it: what is submitted twice is known by it. */
  creator: string
  /** To be cancelled when the last who waits for it has left. */
  abortUnwanted: boolean
  rank: Rank | undefined
  /** When it may run, if that is not yet. */
  due: number | undefined

  /** The last attempt, and who has it; '': nobody. */
  fence = 0
  worker = ''
  /** Whether its worker has said that it has it. */
  accepted = false
  progress: Buffer | undefined
  /** Attempts that failed, and attempts whose worker was lost. */
  failed = 0
  stalled = 0
  /** The last attempt that has logged, and how many lines. */
  logged = { fence: 0, lines: 0 }
  /** The last attempt that its worker gave back. */
  givenBack = 0
  /** The last attempt that others ended. */
  endedByOthers: number | undefined

  /** The last generation that is over; 0: none. */
  settled = 0
  outcome: Settled | undefined
  /** The listing of finished jobs that it stands in. */
  listed: 'failed' | 'completed' | undefined

  /** The park of who created this generation and waits for it. */
  first = ''
  /** The others who wait, each with the generation that it waits for, in the order of arrival. */
  readonly parks: Map<string, number> = new Map()
  next: NextGeneration | undefined
  /** When it may be forgotten. */
  expiresAt = 0

  constructor(submission: Submission, generation: number) {
    this.id = submission.id
    this.command = submission.command
    this.generation = generation
    this.payload = submission.payload
    this.options = submission.options
    this.creator = submission.nonce
    this.abortUnwanted = submission.abortUnwanted
  }

  /** Bytes that it takes in memory, about. */
  get bytes(): number {
    const { id, options, payload, next, outcome, progress, waiters } = this
    const kept = [id, options, payload, next?.options, next?.payload, outcome?.bytes, progress]
    return kept.reduce(
      (sum, part) => sum + (part === undefined ? 0 : Buffer.byteLength(part)),
      RECORD_BYTES + waiters * PARK_BYTES,
    )
  }

  get over(): boolean {
    return this.settled >= this.generation
  }

  get waiters(): number {
    return this.parks.size + (this.first === '' ? 0 : 1)
  }

  /** Whether this is the attempt that runs. */
  isHeld(worker: string, fence: number): boolean {
    return this.worker === worker && this.fence === fence
  }

  /** What later submissions are served. */
  fresh(now: number): Settled | undefined {
    return this.over && this.outcome && this.outcome.freshUntil > now ? this.outcome : undefined
  }

  /** What became of a generation, or of a later one. */
  outcomeOf(generation: number): JobOutcome | undefined {
    if (!this.outcome || this.settled < generation) return undefined
    const { kind, fence, bytes } = this.outcome
    return { kind, fence, bytes: kind === 'removed' ? Buffer.alloc(0) : bytes }
  }

  /** Whether a generation is still to come. */
  expects(generation: number): boolean {
    return this.generation >= generation || (this.next?.generation ?? 0) >= generation
  }

  /** Whether an attempt ended so already. */
  repeats(kind: AttemptOutcome['kind'], fence: number): boolean {
    if (kind === 'retry' || kind === 'requeue') return this.givenBack === fence
    return this.endedByOthers !== fence && this.outcome?.kind === kind && this.outcome.fence === fence
  }

  /** The present attempt logs lines, `before` of which it has said before. Returns how many of them are there already. */
  log(before: number, count: number): number {
    const { fence, logged } = this
    const known = logged.fence === fence ? Math.max(0, logged.lines - before) : 0
    if (known < count) this.logged = { fence, lines: before + count }
    return known
  }

  /** Its worker gives the attempt back: it failed, or was not begun. */
  giveBack(failed: boolean): void {
    this.givenBack = this.fence
    this.worker = ''
    this.accepted = false
    this.progress = undefined
    if (failed) this.failed++
  }

  /** Whom what happens to the present generation concerns. */
  audience(): string[] {
    const parks = [...this.parks].filter(([, generation]) => generation <= this.generation)
    return [...(this.first === '' ? [] : [this.first]), ...parks.map(([park]) => park)]
  }

  /** The present generation is over. Who waits for it is told; who waits for the next goes on waiting. */
  settle(
    { kind, bytes, ttl, foreign }: Ended,
    now: number,
    tell: (park: string, notice: JobNotice) => void,
  ): void {
    const { fence } = this
    const told = this.audience()
    this.worker = ''
    this.first = ''
    for (const park of told) this.parks.delete(park)
    this.settled = this.generation
    if (foreign) this.endedByOthers = fence
    this.outcome = { kind, fence, bytes, freshUntil: kind !== 'removed' && ttl > 0 ? now + ttl : 0 }
    const outcome = { kind, fence, bytes }
    for (const park of told) tell(park, { kind: 'outcome', outcome })
  }

  /** What the next generation was to be is part of the present one now: whatever ends it ends both. */
  mergeNext(): void {
    if (this.next) this.generation = this.next.generation
    this.next = undefined
  }

  /** Begins a generation, with attempts of its own. */
  begin(generation: number): void {
    this.generation = generation
    this.accepted = false
    this.progress = undefined
    this.failed = 0
    this.stalled = 0
    this.givenBack = 0
    if (this.outcome) this.outcome.freshUntil = 0
  }

  /** Begins the generation of a rerun. */
  follow({ generation, payload, options, creator }: NextGeneration): void {
    this.next = undefined
    this.payload = payload
    this.options = options
    this.creator = creator
    this.begin(generation)
  }

  /** Ties the record to a new submission, after what came before is over. */
  resubmit(submission: Submission, generation: number): void {
    this.payload = submission.payload
    this.options = submission.options
    this.creator = submission.nonce
    this.abortUnwanted = submission.abortUnwanted
    this.due = undefined
    this.rank = undefined
    this.begin(generation)
  }
}
