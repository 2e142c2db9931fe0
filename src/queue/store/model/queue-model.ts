import { DIGEST_LENGTH } from '../holder.ts'
import { stateOf } from '../job-state.ts'
import { type CommandLoad, MAX_LOAD_COMMANDS, MAX_LOAD_JOBS, type QueueLoad } from '../load.ts'
import {
  type Assignment,
  type AttemptOutcome,
  type Counts,
  type DueJob,
  type DueJobs,
  type DueResult,
  type FinishReply,
  type JobSnapshot,
  type JobState,
  type OutcomeQuery,
  type OutcomeReply,
  PENDING_JOB_TTL,
  type Post,
  type PostReply,
  type Renewal,
  type Retention,
  type StallPolicy,
  type Submission,
  type SubmitReply,
  type TakenAttempt,
  type Termination,
} from '../store.ts'
import { noTotals, type QueueTotals } from '../totals.ts'
import { Dispatcher } from './dispatcher.ts'
import { type GenerationEnd, JobRecord } from './job-record.ts'
import { KnownPost, QueueState, type TransitionContext } from './queue-state.ts'

/** An attempt, its worker named by inbox and nonce. */
export interface ModelAttempt {
  worker: string
  id: string
  fence: number
}

/** How an attempt ended, its worker named by inbox and nonce. */
export type ModelAttemptOutcome = Omit<AttemptOutcome, 'worker'> & ModelAttempt

/** Keeps a job out of the lists of finished jobs. */
const UNLISTED: Retention = { count: 0, age: 0 }

/**
 * A queue and its transitions. This is the specification: the scripts do the same, and the conformance test compares
 * them operation by operation. Parks and workers are named by inbox and nonce together.
 *
 *   state     event                                             next state
 *   created   submit, retry or the end of the generation        delayed, if the submission has a delay; assigned, if a slot
 *             before it                                         is free; else ready
 *   delayed   processDue when it is due                         ready
 *   ready     a slot of its command becomes free                assigned
 *             take                                              active
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
  readonly state: QueueState

  /** `totals`: of its earlier life, which are counted on. */
  constructor(totals?: QueueTotals) {
    this.state = new QueueState(totals)
  }

  /** Joins the job of this id, or is served its outcome, or creates a generation. Idempotent. */
  submit(submission: Submission, inbox: string, context: TransitionContext): SubmitReply {
    const { id, nonce, command, conflict, awaited, requiresWorker } = submission
    const park = inbox + nonce
    const job = this.state.job(id, context.now)
    if (job && !job.finished) return this.#join(job, submission, park, context)
    const isRepeated = job?.creatorNonce === nonce
    if (job && isRepeated && !awaited) return { status: 'created', generation: job.generation }
    const fresh = conflict === 'exclusive' ? undefined : job?.freshOutcome(context.now)
    if (job && fresh) {
      const { kind, fence, bytes } = fresh
      const outcome = { kind, fence, bytes }
      if (job.matches(submission)) return { status: 'cached', generation: job.settledGeneration, outcome }
      if (conflict !== 'rerun') return { status: 'conflict' }
    }
    // A repetition whose job has finished meanwhile is not run again.
    if (job && isRepeated) return { status: 'created', generation: job.generation }
    if (requiresWorker && this.state.command(command).knownWorkers(context.now).length === 0)
      return { status: 'unknown' }
    return this.#withDispatcher(context, (dispatcher) => {
      const generation = this.#create(job, submission, park, dispatcher, context)
      return { status: 'created', generation }
    })
  }

  /** Creates all jobs of a post, or none: if it is known or refused. Idempotent. */
  submitAll({ key, digest, nonce, knownFor, jobs }: Post, context: TransitionContext): PostReply {
    const { now, micros: generation } = context
    const known = this.state.post(key, now)
    if (known) {
      if (known.digest !== digest) return { status: 'conflict' }
      const status = known.nonce === nonce ? 'created' : 'joined'
      return { status, nonce: known.nonce, generation: known.generation }
    }
    // It is known no more, and this is a repetition all the same.
    for (const { id } of jobs) {
      const made = this.state.job(id, now)
      if (made) return { status: 'created', nonce, generation: made.generation }
    }
    for (const { command, requiresWorker } of jobs)
      if (requiresWorker && this.state.command(command).knownWorkers(now).length === 0)
        return { status: 'unknown', command }
    this.state.addPost(new KnownPost(key, digest, nonce, generation, now + knownFor))
    return this.#withDispatcher(context, (dispatcher) => {
      for (const [batchIndex, submission] of jobs.entries())
        this.#create(undefined, submission, '', dispatcher, { ...context, batchIndex })
      return { status: 'created', nonce, generation }
    })
  }

  #join(job: JobRecord, submission: Submission, park: string, context: TransitionContext): SubmitReply {
    const { nonce, awaited, payload, options, conflict, abortUnwanted } = submission
    const { next } = job
    const parked = job.parks.get(park)
    if (job.creatorNonce === nonce) return { status: 'created', generation: job.generation }
    if (next?.creatorNonce === nonce) return { status: 'created', generation: next.generation }
    if (parked !== undefined) return { status: 'joined', generation: parked }
    if (awaited && job.parks.size >= context.maxParked) return { status: 'overloaded' }
    if (conflict === 'exclusive') return this.#follow(job, submission, park, context)
    // The next generation has the newest payload, even if that is the payload that runs now.
    const isPresent = job.matches(submission) && !(next && conflict === 'rerun')
    const isNext = !isPresent && next?.payload === payload
    if (!isPresent && !isNext) {
      if (conflict !== 'rerun') return { status: 'conflict' }
      const generation = next?.generation ?? Math.max(job.generation + 1, context.micros)
      job.next = { generation, payload, options, creatorNonce: nonce, start: next?.start }
      if (!next) this.state.totals.submitted++
    }
    const generation = isPresent ? job.generation : (job.next?.generation ?? 0)
    if (awaited) job.parks.set(park, generation)
    // A submitter that does not ask for `abortUnwanted` relies on the job, whether it waits or not.
    if (!abortUnwanted) job.abortUnwanted = false
    return { status: isPresent || next ? 'joined' : 'created', generation }
  }

  /** Creates the generation after an attempt that runs, unless there is one. */
  #follow(job: JobRecord, submission: Submission, park: string, context: TransitionContext): SubmitReply {
    const { nonce, awaited, payload, options, delay, priority, abortUnwanted } = submission
    const { now, micros, batchIndex } = context
    if (job.worker === '' || job.next) return { status: 'conflict' }
    const generation = Math.max(job.generation + 1, micros)
    const rank = priority > 0 ? { priority, micros, batchIndex } : undefined
    const start = { dueAt: delay > 0 ? now + delay : 0, rank }
    job.next = { generation, payload, options, creatorNonce: nonce, start }
    this.state.totals.submitted++
    if (awaited) job.parks.set(park, generation)
    if (!abortUnwanted) job.abortUnwanted = false
    return { status: 'created', generation }
  }

  /** Begins a generation. Returns its number. */
  #create(
    previous: JobRecord | undefined,
    submission: Submission,
    park: string,
    dispatcher: Dispatcher,
    context: TransitionContext,
  ): number {
    const { now, micros, batchIndex } = context
    const { priority, awaited, delay, lifo } = submission
    const generation = Math.max((previous?.generation ?? 0) + 1, micros)
    const job = previous ?? new JobRecord(submission, generation)
    if (previous) {
      this.state.removeFromListing(previous)
      previous.resubmit(submission, generation)
    }
    job.expiresAt = now + PENDING_JOB_TTL
    this.state.totals.submitted++
    if (awaited) job.creatorPark = park
    if (priority > 0) job.rank = { priority, micros, batchIndex }
    this.state.add(job)
    if (delay > 0) this.#delay(job, delay, context)
    else this.#assignOrPush(job, lifo, dispatcher, context)
    return generation
  }

  /** Delays a submitted job. One worker is notified, so that a process has a timer for it. */
  #delay(job: JobRecord, delay: number, context: TransitionContext): void {
    this.state.delay(job, context.now + delay)
    const [worker] = this.state.command(job.command).knownWorkers(context.now)
    if (worker !== undefined) context.notifyWorker(worker, { kind: 'due', ms: delay })
  }

  /** Assigns a submitted job to a free slot, or makes it ready. */
  #assignOrPush(job: JobRecord, lifo: boolean, dispatcher: Dispatcher, context: TransitionContext): void {
    const command = this.state.command(job.command)
    const worker = command.takeSlot()
    if (worker !== undefined) return dispatcher.assign(job, worker)
    this.state.pushReady(job, lifo, context.now)
    if (command.ready.length > 1) return
    if (command.knownWorkers(context.now).length === 0) context.broadcastWork()
  }

  /** Returns the outcome of a generation, or parks the caller until there is one. */
  queryOutcome(query: OutcomeQuery, inbox: string, { now, maxParked }: TransitionContext): OutcomeReply {
    const { id, generation, nonce } = query
    const job = this.state.job(id, now)
    const outcome = job?.outcomeOf(generation)
    if (outcome) return { status: 'settled', outcome }
    if (!job?.isPending(generation)) return { status: 'gone' }
    const park = inbox + nonce
    const isParked = job.creatorPark === park || job.parks.has(park)
    if (nonce !== '' && !isParked && job.parks.size < maxParked) job.parks.set(park, generation)
    return { status: 'pending' }
  }

  /** Takes a waiter off the record. Ends the job if no waiter is left and its submissions allow it. */
  unpark(park: string, termination: Termination, context: TransitionContext): void {
    const job = this.state.job(termination.id, context.now)
    if (job?.creatorPark === park) job.creatorPark = ''
    else if (!job?.parks.delete(park)) return
    this.#terminate(job, termination, context)
  }

  terminate(termination: Termination, context: TransitionContext): boolean {
    const job = this.state.job(termination.id, context.now)
    return job !== undefined && this.#terminate(job, termination, context)
  }

  /** Ends a job that its worker has not ended. False: there is nothing to end. */
  #terminate(job: JobRecord, termination: Termination, context: TransitionContext): boolean {
    const { kind, bytes, outcomeRetention, when } = termination
    const isUnwanted = job.abortUnwanted && job.waiters === 0
    if (when === 'never' || (when === 'unwanted' && !isUnwanted)) return false
    if (job.finished) return kind === 'removed' && this.#forgetOutcome(job, context.now + outcomeRetention)
    const { worker, fence, id } = job
    job.mergeNext()
    const end = { kind, bytes, outcomeRetention, ttl: 0, retain: UNLISTED, endedExternally: true }
    this.#settle(job, end, context)
    if (worker !== '') context.notifyWorker(worker, { kind: 'cancelled', id, fence })
    return true
  }

  /** Forgets the outcome of a finished job. False: it is forgotten already. */
  #forgetOutcome(job: JobRecord, expiresAt: number): boolean {
    if (!job.outcome || job.outcome.kind === 'removed') return false
    this.state.removeFromListing(job)
    job.outcome = { kind: 'removed', fence: job.outcome.fence, bytes: Buffer.alloc(0), freshUntil: 0 }
    job.expiresAt = expiresAt
    return true
  }

  /** Ends the present generation of a job, and begins the next one if there is one. */
  #settle(job: JobRecord, end: GenerationEnd & { retain: Retention }, context: TransitionContext): void {
    if (end.kind === 'value') this.state.totals.completed++
    if (end.kind === 'error') this.state.totals.failed++
    this.state.unindex(job)
    job.settle(end, context.now, context.notifyWaiter)
    if (job.next) {
      const left = (job.next.start?.dueAt ?? 0) - context.now
      job.startNext(job.next)
      if (left > 0) this.#delay(job, left, context)
      else this.state.pushReady(job, false, context.now)
      return
    }
    const { ttl, outcomeRetention, retain, kind } = end
    const isListed = retain.count > 0 && retain.age > 0 && kind !== 'removed'
    job.expiresAt = context.now + Math.max(ttl, outcomeRetention, isListed ? retain.age : 0)
    if (!isListed) return
    const list = kind === 'value' ? 'completed' : 'failed'
    this.state.addToListing(job, list, retain, outcomeRetention, context.now)
  }

  /** Runs a finished job again. Idempotent. */
  retry(id: string, generation: number, context: TransitionContext): number | undefined {
    const job = this.state.job(id, context.now)
    if (job && job.generation > generation) return job.generation
    if (!job?.finished || job.outcome?.kind === 'removed') return undefined
    this.state.removeFromListing(job)
    job.startGeneration(Math.max(job.generation + 1, context.micros))
    this.state.pushReady(job, false, context.now)
    this.#assignReady(job.command, context)
    return job.generation
  }

  /** Assigns everything that is ready, so that there is never more. */
  setCapacity(
    worker: string,
    command: string,
    slots: number,
    former: number | undefined,
    context: TransitionContext,
  ): Assignment {
    const commandState = this.state.command(command)
    const since = commandState.setCapacity(worker, slots, former, context.now)
    commandState.paused = this.state.isPaused(command)
    this.state.registerCommand(command, context.now)
    return this.#withDispatcher(context, (dispatcher) => {
      dispatcher.assignReady(commandState)
      return { since, assigned: dispatcher.assignedTo(worker), more: false }
    })
  }

  /** `addressOf`: the address of the holder of an attempt. */
  take(
    command: string,
    lease: number,
    addressOf: (attempt: TakenAttempt) => string,
    context: TransitionContext,
  ): TakenAttempt | 'due' | undefined {
    if (this.state.isPaused(command)) return undefined
    const taken = new Dispatcher(this.state, context).take(this.state.command(command), lease, addressOf)
    return taken ?? (this.state.deadlines.dueBy(context.now).length > 0 ? 'due' : undefined)
  }

  /** The attempt of a holder whose address ends with this secret. */
  findTaken(secret: string, now: number): ModelAttempt | undefined {
    for (const id of this.state.deadlines.ids()) {
      const job = this.state.job(id, now)
      if (job && job.worker.slice(DIGEST_LENGTH) === secret)
        return { worker: job.worker, id, fence: job.fence }
    }
    return undefined
  }

  removeWorker(worker: string, command: string, { now }: TransitionContext): void {
    this.state.removeWorker(worker, command, now)
  }

  /**
   * Extends the lease of an attempt, even one whose lease has ended, unless the job was assigned anew. `holder`: the worker that
   * it is given to. A repetition finds it given already.
   */
  renew(
    attempt: ModelAttempt,
    lease: number,
    holder: string | undefined,
    { now }: TransitionContext,
  ): Renewal {
    const { worker, id, fence } = attempt
    const job = this.state.job(id, now)
    const isHeld = job?.isHeldBy(worker, fence) || (holder !== undefined && job?.isHeldBy(holder, fence))
    if (!job || !isHeld) return job?.outcome?.fence === fence ? 'cancelled' : 'lost'
    if (job.state.kind === 'assigned') this.state.totals.taken++
    job.moveTo({ kind: 'active', worker: holder ?? worker })
    this.state.deadlines.set(id, now + lease)
    return 'held'
  }

  /** Ends an attempt: its job finishes, or gets another attempt. Idempotent. */
  finish(outcome: ModelAttemptOutcome, context: TransitionContext): FinishReply {
    const { worker, id, fence, kind, delay, releasesSlot } = outcome
    const job = this.state.job(id, context.now)
    if (job?.endedAs(outcome)) return 'repeated'
    if (!job?.isHeldBy(worker, fence)) return 'lost'
    if (job.state.kind === 'assigned' && kind !== 'requeue') this.state.totals.taken++
    if (job.state.kind === 'active' && kind === 'requeue') this.state.totals.returned++
    if (kind === 'value' || kind === 'error') this.#settle(job, { ...outcome, kind }, context)
    else {
      job.releaseAttempt(kind)
      if (delay > 0) this.state.delay(job, context.now + delay)
      else if (kind === 'retry') this.state.pushReady(job, false, context.now)
      else this.state.requeueFirst(job, context.now)
    }
    if (releasesSlot) this.state.command(job.command).freeSlots.push(worker)
    this.#assignReady(job.command, context)
    return 'accepted'
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
    const { maxStalls, failure: bytes, errorTtl: ttl, outcomeRetention, retain } = policy
    this.state.command(job.command).forgetWorker(job.worker)
    context.notifyWorker(job.worker, { kind: 'capacityRequested' })
    // After its first stall, an attempt cannot have started unless it was accepted.
    if (job.state.kind === 'active' || job.stalls === 0) job.stalls++
    if (job.stalls > maxStalls) {
      const end = { kind: 'error', bytes, ttl, outcomeRetention, retain, endedExternally: true } as const
      this.#settle(job, end, context)
      return 'failed'
    }
    this.state.requeueFirst(job, context.now)
    return 'stalled'
  }

  /** Pauses a command, or all (''). */
  pause(command: string, now: number): void {
    this.state.paused.add(command)
    if (command !== '') this.state.registerCommand(command, now)
    for (const name of command === '' ? this.state.commands(now) : [command])
      this.state.command(name).paused = true
  }

  /** Resumes a command, or all (''). A command that is paused in the other way stays paused. */
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
    if (!job) return undefined
    const { command, payload, options, generation, failures, stalls, fence, progress, waiters } = job
    const outcome = job.finished ? job.outcomeOf(generation) : undefined
    const state = stateOf(outcome?.kind, job.worker !== '', job.state.kind === 'delayed')
    return {
      ...{ id, command, state, payload, options, generation },
      ...{ failures, stalls, fence, progress, outcome, waiters },
      dueIn:
        state === 'delayed' && job.state.kind === 'delayed' ? Math.max(0, job.state.until - now) : undefined,
    }
  }

  /** Ids in a state, in the order in which they will run, fall due or expire. */
  list(state: JobState, from: number, limit: number, now: number): string[] {
    return this.state.idsIn(state, now).slice(from, from + limit)
  }

  drain(state: 'waiting' | 'delayed', outcomeRetention: number, context: TransitionContext): number {
    const jobs = this.state.idsIn(state, context.now).flatMap((id) => this.state.job(id, context.now) ?? [])
    const kind = 'removed'
    const bytes = Buffer.alloc(0)
    return jobs.filter(({ id, command }) =>
      this.terminate({ id, command, kind, bytes, outcomeRetention, when: 'always' }, context),
    ).length
  }

  counts(now: number): Counts {
    const count = (state: JobState) => this.state.idsIn(state, now).length
    return {
      waiting: count('waiting'),
      delayed: count('delayed'),
      active: count('active'),
      completed: count('completed'),
      failed: count('failed'),
    }
  }

  /** `micros`: now, as the numbers of generations are counted: µs since the epoch. */
  load(now: number, micros: number): QueueLoad {
    const { state } = this
    const counts = this.counts(now)
    const known = new Set(state.commands(now))
    const { names, countOf, complete } = this.#jobsByCommand(known, now)
    const commands = names.map((name): CommandLoad => {
      const ready = known.has(name) ? state.command(name).ready.ids() : []
      const [id] = ready
      const job = id === undefined ? undefined : state.job(id, now)
      return {
        command: name,
        waiting: ready.length,
        delayed: countOf('delayed', name),
        active: countOf('active', name),
        failed: countOf('failed', name),
        first: job && {
          id: job.id,
          age: Math.max(0, Math.floor(micros / 1000) - Math.floor(job.generation / 1000)),
        },
      }
    })
    const [nextId] = state.delayed.ids()
    const dueAt = nextId === undefined ? undefined : state.delayed.timeOf(nextId)
    return {
      counts,
      totals: { ...state.totals },
      paused: [...state.paused],
      commands,
      dueIn: dueAt === undefined ? undefined : Math.max(0, dueAt - now),
      complete,
    }
  }

  /** The commands that a load tells of, and how many jobs each has; undefined if there are too many to count them. */
  #jobsByCommand(known: ReadonlySet<string>, now: number) {
    const { state } = this
    const commandsOf = (ids: string[]) => ids.map((id) => state.job(id, now)?.command)
    const isCountable = (ids: string[]) => ids.length <= MAX_LOAD_JOBS
    const [delayed, active, failed] = (['delayed', 'active', 'failed'] as const).map((kind) =>
      state.idsIn(kind, now),
    ) as [string[], string[], string[]]
    const jobs = {
      delayed: isCountable(delayed) ? commandsOf(delayed) : undefined,
      active: isCountable([...delayed, ...active]) ? commandsOf(active) : undefined,
      failed: isCountable(failed) ? commandsOf(failed) : undefined,
    }
    const counted = Object.values(jobs)
    // If there are too many commands, those come first that have jobs.
    const isCrowded = known.size > MAX_LOAD_COMMANDS
    const first = [...known].filter((name) => !isCrowded || state.command(name).ready.length > 0)
    const all = new Set([...first, ...counted.flatMap((names) => names ?? []), ...known])
    const isEachNamed = !all.delete(undefined)
    return {
      names: ([...all] as string[]).slice(0, MAX_LOAD_COMMANDS),
      countOf: (kind: keyof typeof jobs, command: string) =>
        jobs[kind]?.filter((name) => name === command).length,
      complete: all.size <= MAX_LOAD_COMMANDS && isEachNamed && !counted.includes(undefined),
    }
  }

  countFailure(): void {
    this.state.totals.failed++
  }

  /** Forgets the posts, too. */
  resetTotals(): void {
    Object.assign(this.state.totals, noTotals())
    for (const { key } of this.state.posts.values()) this.state.forgetPost(key)
  }

  #assignReady(command: string, context: TransitionContext): void {
    this.#withDispatcher(context, (dispatcher) => dispatcher.assignReady(this.state.command(command)))
  }

  /** Sends the attempts that a transition assigns, after the notices that it sends. */
  #withDispatcher<T>(context: TransitionContext, transition: (dispatcher: Dispatcher) => T): T {
    const dispatcher = new Dispatcher(this.state, context)
    const reply = transition(dispatcher)
    dispatcher.sendBatches()
    return reply
  }
}
