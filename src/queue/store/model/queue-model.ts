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
import { Dispatcher } from './dispatch.ts'
import { endAttempt, type ModelAttemptOutcome, settleJob, terminateJob } from './endings.ts'
import type { JobRecord } from './job-record.ts'
import { QueueState, type TransitionContext } from './queue-state.ts'
import { idsIn, snapshotOf } from './reading.ts'
import { submitJob } from './submit.ts'

/** An attempt, its worker named by inbox and nonce. */
export interface ModelAttempt {
  worker: string
  id: string
  fence: number
}

/**
 * A queue and its transitions. This is the specification: the scripts do the same, and the conformance test compares
 * them operation by operation. Parks and workers are named by inbox and nonce together.
 *
 *   state     event                                             next state
 *   created   submit, retry or the end of the generation        delayed, if the submission has a delay; assigned, if a slot
 *             before it                                         is free; else ready
 *   delayed   processDue when it is due                         ready
 *   ready     a slot of its command becomes free                assigned
 *   assigned  renew by its worker                               active
 *             the process of its worker is gone                 ready, before all others
 *   assigned, finish as value or error                          finished
 *   active    finish as retry, finish as requeue                delayed, if there is a delay; else ready, before all others
 *                                                               if requeued
 *             processDue when its lease has ended               ready, before all others; finished, if stalled too often
 *   any but   terminate; unpark of the last waiter, if the      finished
 *   finished  submissions allow it
 *   finished  submit unless an outcome is served; retry; a      created
 *             next generation
 *             its expiry                                        forgotten
 */
export class QueueModel {
  readonly state: QueueState = new QueueState()

  submit(submission: Submission, inbox: string, context: TransitionContext): SubmitReply {
    return this.#withDispatcher(context, (dispatcher) => {
      const park = inbox + submission.nonce
      return submitJob({ state: this.state, submission, park, dispatcher, at: context })
    })
  }

  /** Returns the outcome of a generation, or parks the caller until there is one. */
  queryOutcome(
    { id, generation, nonce }: OutcomeQuery,
    inbox: string,
    context: TransitionContext,
  ): OutcomeReply {
    const job = this.state.job(id, context.now)
    const outcome = job?.outcomeOf(generation)
    if (outcome) return { status: 'settled', outcome }
    if (!job?.isPending(generation)) return { status: 'gone' }
    const park = inbox + nonce
    if (
      nonce !== '' &&
      job.creatorPark !== park &&
      !job.parks.has(park) &&
      job.parks.size < context.maxParked
    ) {
      job.parks.set(park, generation)
    }
    return { status: 'pending' }
  }

  /** Takes a waiter off the record. Ends the job if no waiter is left and its submissions allow it. */
  unpark(park: string, termination: Termination, context: TransitionContext): void {
    const job = this.state.job(termination.id, context.now)
    if (job?.creatorPark === park) job.creatorPark = ''
    else if (!job?.parks.delete(park)) return
    terminateJob(this.state, job, termination, context)
  }

  terminate(termination: Termination, context: TransitionContext): boolean {
    const job = this.state.job(termination.id, context.now)
    return job !== undefined && terminateJob(this.state, job, termination, context)
  }

  /** Runs a finished job again. */
  retry(id: string, generation: number, context: TransitionContext): number | undefined {
    const job = this.state.job(id, context.now)
    // A repetition.
    if (job && job.generation > generation) return job.generation
    if (!job?.finished || job.outcome?.kind === 'removed') return undefined
    this.state.removeFromListing(job)
    job.startGeneration(Math.max(job.generation + 1, context.micros))
    const command = this.state.command(job.command)
    this.state.pushReady(job, false, context.now)
    this.#withDispatcher(context, (dispatcher) => dispatcher.assignReady(command))
    return job.generation
  }

  setCapacity(worker: string, command: string, slots: number, context: TransitionContext): void {
    const commandState = this.state.command(command)
    commandState.setCapacity(worker, slots, context.now)
    commandState.paused = this.state.isPaused(command)
    this.state.registerCommand(command, context.now)
    this.#withDispatcher(context, (dispatcher) => dispatcher.assignReady(commandState))
  }

  removeWorker(worker: string, command: string): void {
    this.state.command(command).forgetWorker(worker)
  }

  /** Extends the lease of an attempt, even one whose lease has ended, unless the job was assigned anew. */
  renew(
    { worker, id, fence }: ModelAttempt,
    lease: number,
    context: TransitionContext,
  ): 'held' | 'lost' | 'cancelled' {
    const job = this.state.job(id, context.now)
    if (!job?.isHeldBy(worker, fence)) return job?.outcome?.fence === fence ? 'cancelled' : 'lost'
    job.moveTo({ kind: 'active', worker })
    this.state.deadlines.set(id, context.now + lease)
    return 'held'
  }

  finish(outcome: ModelAttemptOutcome, context: TransitionContext): boolean {
    const { worker, id, fence, kind, releasesSlot } = outcome
    const job = this.state.job(id, context.now)
    if (job?.endedAs(kind, fence)) return true
    if (!job?.isHeldBy(worker, fence)) return false
    const command = this.state.command(job.command)
    endAttempt(this.state, job, outcome, context)
    if (releasesSlot) command.freeSlots.push(worker)
    this.#withDispatcher(context, (dispatcher) => dispatcher.assignReady(command))
    return true
  }

  publishProgress({ worker, id, fence }: ModelAttempt, bytes: Buffer, context: TransitionContext): void {
    const job = this.state.job(id, context.now)
    if (!job?.isHeldBy(worker, fence)) return
    job.progress = bytes
    for (const park of job.currentParks()) context.notifyWaiter(park, { kind: 'progress', bytes })
  }

  findDue(now: number): DueJobs {
    const { deadlines, jobs: records } = this.state
    const jobs = deadlines.dueBy(now).map((id) => ({ id, command: records.get(id)?.command ?? '' }))
    const next = deadlines.nextAfter(now)
    return { jobs, nextIn: next === undefined ? undefined : next - now }
  }

  /** Makes delayed jobs ready and requeues stalled ones, as far as they are due. */
  processDue(jobs: readonly DueJob[], policy: StallPolicy, context: TransitionContext): DueResult[] {
    return this.#withDispatcher(context, (dispatcher) => {
      const results = jobs.map((job) => ({ ...job, status: this.#processDueJob(job.id, policy, context) }))
      for (const name of new Set(jobs.map(({ command }) => command)))
        dispatcher.assignReady(this.state.command(name))
      return results
    })
  }

  #processDueJob(id: string, policy: StallPolicy, context: TransitionContext): DueResult['status'] {
    const { state } = this
    const end = state.deadlines.timeOf(id)
    if (end === undefined || end > context.now) return 'none'
    state.deadlines.delete(id)
    state.delayed.delete(id)
    const job = state.job(id, context.now)
    if (!job || job.finished) return 'none'
    if (job.state.kind !== 'delayed') return this.#stall(job, policy, context)
    state.pushReady(job, false, context.now)
    return 'promoted'
  }

  /** The lease of an attempt has ended: the job is requeued, or fails if it has stalled too often. */
  #stall(job: JobRecord, policy: StallPolicy, context: TransitionContext): DueResult['status'] {
    const command = this.state.command(job.command)
    command.forgetWorker(job.worker)
    context.notifyWorker(job.worker, { kind: 'capacityRequested' })
    // After its first stall, an attempt cannot have started unless it was accepted.
    if (job.state.kind === 'active' || job.stalls === 0) job.stalls++
    if (job.stalls > policy.maxStalls) {
      const { failure: bytes, errorTtl: ttl, outcomeRetention, retain } = policy
      settleJob(
        this.state,
        job,
        { kind: 'error', bytes, ttl, outcomeRetention, retain, endedExternally: true },
        context,
      )
      return 'failed'
    }
    this.state.requeueFirst(job, context.now)
    return 'stalled'
  }

  pause(command: string, now: number): void {
    this.state.paused.add(command)
    if (command !== '') this.state.registerCommand(command, now)
    for (const name of command === '' ? this.state.commands(now) : [command])
      this.state.command(name).paused = true
  }

  resume(command: string, context: TransitionContext): void {
    this.state.paused.delete(command)
    this.#withDispatcher(context, (dispatcher) => {
      for (const name of command === '' ? this.state.commands(context.now) : [command]) {
        if (this.state.isPaused(name)) continue
        const commandState = this.state.command(name)
        commandState.paused = false
        dispatcher.assignReady(commandState)
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

  drain(state: 'waiting' | 'delayed', outcomeRetention: number, context: TransitionContext): number {
    const jobs = idsIn(this.state, state, context.now).flatMap((id) => this.state.job(id, context.now) ?? [])
    const termination = {
      kind: 'removed',
      bytes: Buffer.alloc(0),
      outcomeRetention,
      onlyIfUnwanted: false,
    } as const
    return jobs.filter((job) =>
      terminateJob(this.state, job, { ...termination, id: job.id, command: job.command }, context),
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

  #withDispatcher<T>(context: TransitionContext, transition: (dispatcher: Dispatcher) => T): T {
    const dispatcher = new Dispatcher(this.state, context)
    const reply = transition(dispatcher)
    dispatcher.sendBatches()
    return reply
  }
}
