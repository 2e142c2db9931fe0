import type {
  Counts,
  DueJob,
  DueJobs,
  DueResult,
  JobSnapshot,
  JobState,
  OutcomeQuery,
  OutcomeReply,
  StallPolicy,
  Submission,
  SubmitReply,
  Termination,
} from '../store.ts'
import { Dispatch } from './dispatch.ts'
import { type BookEnding, endAttempt, endJob, settleJob } from './endings.ts'
import type { JobRecord } from './job-record.ts'
import { BookState, type QueueSurroundings } from './queue-state.ts'
import { idsIn, snapshotOf } from './reading.ts'
import { submitJob } from './submit.ts'

type At = QueueSurroundings

/** An attempt, and the worker as its places name it. */
export interface BookAttempt {
  worker: string
  id: string
  fence: number
}

/**
 * A queue and its transitions. This is the specification; the scripts do the same and are held against it, operation by
 * operation. Parks and workers are named by inbox and nonce together.
 */
export class QueueBook {
  readonly state: BookState = new BookState()

  submit(submission: Submission, inbox: string, at: At): SubmitReply {
    return this.#dispatching(at, (dispatch) => {
      const park = inbox + submission.nonce
      return submitJob({ book: this.state, submission, park, dispatch, at })
    })
  }

  /** What became of a generation. Who still has to wait for it is parked. */
  look({ id, generation, nonce }: OutcomeQuery, inbox: string, at: At): OutcomeReply {
    const job = this.state.job(id, at.now)
    const outcome = job?.outcomeOf(generation)
    if (outcome) return { status: 'settled', outcome }
    if (!job?.expects(generation)) return { status: 'gone' }
    const park = inbox + nonce
    if (nonce !== '' && job.first !== park && !job.parks.has(park) && job.parks.size < at.maxParked) {
      job.parks.set(park, generation)
    }
    return { status: 'pending' }
  }

  /** One who waited has left; and if nobody is left, the job is ended if that was asked for. */
  unpark(park: string, removal: Termination, at: At): void {
    const job = this.state.job(removal.id, at.now)
    if (job?.first === park) job.first = ''
    else if (!job?.parks.delete(park)) return
    endJob(this.state, job, removal, at)
  }

  end(removal: Termination, at: At): boolean {
    const job = this.state.job(removal.id, at.now)
    return job !== undefined && endJob(this.state, job, removal, at)
  }

  /** Runs a job that is over once more. */
  retry(id: string, generation: number, at: At): number | undefined {
    const job = this.state.job(id, at.now)
    // Sent twice.
    if (job && job.generation > generation) return job.generation
    if (!job?.over || job.outcome?.kind === 'removed') return undefined
    this.state.unlist(job)
    job.begin(Math.max(job.generation + 1, at.micros))
    const command = this.state.command(job.command)
    this.state.line(job, false, at.now)
    this.#dispatching(at, (dispatch) => dispatch.run(command))
    return job.generation
  }

  offer(worker: string, command: string, places: number, at: At): void {
    const book = this.state.command(command)
    book.offer(worker, places, at.now)
    book.closed = this.state.isPaused(command)
    this.state.know(command, at.now)
    this.#dispatching(at, (dispatch) => dispatch.run(book))
  }

  withdraw(worker: string, command: string): void {
    this.state.command(command).forget(worker)
  }

  /** Extends the lease of an attempt, even one that has ended, unless somebody has taken over. */
  renew({ worker, id, fence }: BookAttempt, lease: number, at: At): 'held' | 'lost' | 'cancelled' {
    const job = this.state.job(id, at.now)
    if (!job?.isHeld(worker, fence)) return job?.outcome?.fence === fence ? 'cancelled' : 'lost'
    job.accepted = true
    this.state.times.set(id, at.now + lease)
    return 'held'
  }

  finish(ending: BookEnding, at: At): boolean {
    const { worker, id, fence, kind, releasesSlot: frees } = ending
    const job = this.state.job(id, at.now)
    if (job?.repeats(kind, fence)) return true
    if (!job?.isHeld(worker, fence)) return false
    const command = this.state.command(job.command)
    endAttempt(this.state, job, ending, at)
    if (frees) command.places.push(worker)
    this.#dispatching(at, (dispatch) => dispatch.run(command))
    return true
  }

  progress({ worker, id, fence }: BookAttempt, bytes: Buffer, at: At): void {
    const job = this.state.job(id, at.now)
    if (!job?.isHeld(worker, fence)) return
    job.progress = bytes
    for (const park of job.audience()) at.tell(park, { kind: 'progress', bytes })
  }

  due(now: number): DueJobs {
    const { times, jobs: records } = this.state
    const jobs = times.until(now).map((id) => ({ id, command: records.get(id)?.command ?? '' }))
    const next = times.after(now)
    return { jobs, nextIn: next === undefined ? undefined : next - now }
  }

  /** Looks after what is due. */
  tick(jobs: readonly DueJob[], terms: StallPolicy, at: At): DueResult[] {
    return this.#dispatching(at, (dispatch) => {
      const ticks = jobs.map((job) => ({ ...job, status: this.#tick(job.id, terms, at) }))
      for (const name of new Set(jobs.map(({ command }) => command))) dispatch.run(this.state.command(name))
      return ticks
    })
  }

  #tick(id: string, terms: StallPolicy, at: At): DueResult['status'] {
    const { state } = this
    const end = state.times.at(id)
    if (end === undefined || end > at.now) return 'none'
    state.times.delete(id)
    state.delayed.delete(id)
    const job = state.job(id, at.now)
    if (!job || job.over) return 'none'
    if (job.due === undefined) return this.#stall(job, terms, at)
    job.due = undefined
    state.line(job, false, at.now)
    return 'promoted'
  }

  /** The worker of an attempt has not been heard of: the job goes to another, unless that happened too often. */
  #stall(job: JobRecord, terms: StallPolicy, at: At): DueResult['status'] {
    const command = this.state.command(job.command)
    command.forget(job.worker)
    at.warn(job.worker, { kind: 'forgotten' })
    // Before its second stall it could not start without having been accepted.
    if (job.accepted || job.stalled === 0) job.stalled++
    if (job.stalled > terms.maxStalls) {
      const { failure: bytes, errorTtl: ttl, outcomeRetention, retain } = terms
      settleJob(this.state, job, { kind: 'error', bytes, ttl, outcomeRetention, retain, foreign: true }, at)
      return 'failed'
    }
    job.worker = ''
    job.accepted = false
    this.state.putFirst(job, at.now)
    return 'stalled'
  }

  pause(command: string, now: number): void {
    this.state.paused.add(command)
    if (command !== '') this.state.know(command, now)
    for (const name of command === '' ? this.state.commands(now) : [command])
      this.state.command(name).closed = true
  }

  resume(command: string, at: At): void {
    this.state.paused.delete(command)
    this.#dispatching(at, (dispatch) => {
      for (const name of command === '' ? this.state.commands(at.now) : [command]) {
        if (this.state.isPaused(name)) continue
        const book = this.state.command(name)
        book.closed = false
        dispatch.run(book)
      }
    })
  }

  snapshot(id: string, now: number): JobSnapshot | undefined {
    const job = this.state.job(id, now)
    return job && snapshotOf(job)
  }

  list(state: JobState, from: number, limit: number, now: number): string[] {
    return idsIn(this.state, state, now).slice(from, from + limit)
  }

  drain(state: 'waiting' | 'delayed', outcomeRetention: number, at: At): number {
    const jobs = idsIn(this.state, state, at.now).flatMap((id) => this.state.job(id, at.now) ?? [])
    const termination = {
      kind: 'removed',
      bytes: Buffer.alloc(0),
      outcomeRetention,
      onlyIfUnwanted: false,
    } as const
    return jobs.filter((job) =>
      endJob(this.state, job, { ...termination, id: job.id, command: job.command }, at),
    ).length
  }

  counts(now: number): Counts {
    const count = (state: JobState) => idsIn(this.state, state, now).length
    return {
      waiting: count('waiting'),
      delayed: count('delayed'),
      active: count('active'),
      completed: count('completed'),
      failed: count('failed'),
    }
  }

  #dispatching<T>(at: At, transition: (dispatch: Dispatch) => T): T {
    const dispatch = new Dispatch(this.state, at)
    const reply = transition(dispatch)
    dispatch.deliver()
    return reply
  }
}
