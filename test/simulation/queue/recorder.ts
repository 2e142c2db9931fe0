import { jsonCodec } from '../../../src/kernel/codec/codec.ts'
import { decodeFailure } from '../../../src/kernel/codec/failure.ts'
import type { JobRecord } from '../../../src/queue/store/model/job-record.ts'
import type {
  AttemptOutcome,
  AttemptRef,
  Delivery,
  JobOutcome,
  Submission,
  SubmitReply,
} from '../../../src/queue/store/store.ts'
import { identityOf } from '../history.ts'
import type { AttemptRecord, QueueHistory } from './history.ts'
import type { QueuePort } from './port.ts'
import type { QueuePeer, QueueServer, QueueWatcher } from './server.ts'

/** Identifies an outcome by its value or its error message. */
export function outcomeIdentity({ kind, bytes }: Pick<JobOutcome, 'kind' | 'bytes'>): string {
  if (kind === 'removed') return 'removed'
  return kind === 'value' ? identityOf(jsonCodec.decode(bytes)) : decodeFailure(bytes).message
}

/** The last observed state of a job. */
interface Seen {
  job: JobRecord
  settled: number
  kind: string | undefined
}

/** A job that is ready, and its command not paused, since when. */
interface Ready {
  command: string
  since: number
}

/** Observes the server, records all transitions, and checks S1, S6, Q1 and Q3. */
export class QueueRecorder implements QueueWatcher {
  readonly #history: QueueHistory
  readonly #server: QueueServer
  readonly #commands: readonly string[]
  /** The last attempt of each job. Kept when all records are lost. */
  readonly #attempts = new Map<string, AttemptRecord>()
  readonly #seen = new Map<string, Seen>()
  /** Moments at which attempt outcomes were accepted, by job, fence and kind. */
  readonly #accepted = new Map<string, number>()
  #ready = new Map<string, Ready>()
  /** When the delay of a generation ends that was submitted as 'exclusive', by job and generation. */
  readonly #notBefore = new Map<string, number>()

  constructor(history: QueueHistory, server: QueueServer, commands: readonly string[]) {
    this.#history = history
    this.#server = server
    this.#commands = commands
    server.watcher = this
  }

  /** S1: fences increase. Records each delivery, which replaces the previous attempt of the job. */
  delivered(peer: QueuePeer, deliveries: Delivery[], worker: string): void {
    const toTaker = peer.isTakers(worker)
    for (const { id, fence } of deliveries) this.#grant(peer.process, id, fence, { toTaker, isHeld: false })
  }

  #grant(
    process: number,
    id: string,
    fence: number,
    { toTaker, isHeld }: Pick<AttemptRecord, 'toTaker' | 'isHeld'>,
  ): void {
    const former = this.#attempts.get(id)
    if (former && former.fence >= fence)
      this.#history.violate('S1', `${short(id)} is delivered under ${fence} after ${former.fence}`)
    const granted = this.#history.moment()
    const job = this.#server.model.state.jobs.get(id)
    const isSettled = former !== undefined && (job?.settledGeneration ?? 0) >= former.generation
    if (former) former.over ??= { ...granted, how: isSettled ? 'settled' : 'replaced' }
    const command = job?.command ?? ''
    const generation = job?.generation ?? 0
    const record: AttemptRecord = {
      ...{ id, command, generation, fence, process, toTaker, isHeld, released: false, granted },
      ...{ begun: undefined, aborted: undefined, ended: undefined, over: undefined, identity: undefined },
    }
    this.#attempts.set(id, record)
    this.#history.attempts.push(record)
    const how = isHeld ? 'taken by' : 'delivered to'
    this.#history.say(() => `    ${short(id)} is ${how} p${process} under ${fence}`)
    this.#checkPaused(command, id)
    if (granted.at < (this.#notBefore.get(`${id} ${generation}`) ?? 0) - 1)
      this.#history.violate('Q1', `${short(id)} as ${generation} is delivered before its delay has ended`)
  }

  #checkPaused(command: string, id: string): void {
    if (this.#server.model.state.isPaused(command))
      this.#history.violate('Q1', `${short(id)} is delivered though ${command} is paused`)
  }

  /** Called after every transition. */
  changed(): void {
    const { state } = this.#server.model
    for (const name of this.#commands) {
      const { ready: line, hasFreeSlot: isFree } = state.command(name)
      if (line.length > 0 && isFree) this.#history.violate('Q1', `${line.length} wait beside a free place`)
    }
    for (const job of state.jobs.values()) this.#look(job)
    this.#updateReady()
  }

  #updateReady(): void {
    const { state } = this.#server.model
    const former = this.#ready
    this.#ready = new Map()
    for (const { id, command, state: now } of state.jobs.values()) {
      if (now.kind !== 'ready' || state.isPaused(command)) continue
      this.#ready.set(id, former.get(id) ?? { command, since: this.#history.moment().tick })
    }
  }

  /** A job that has been ready since a moment. */
  readySince(command: string, tick: number): string | undefined {
    for (const [id, job] of this.#ready) if (job.command === command && job.since < tick) return id
    return undefined
  }

  #look(job: JobRecord): void {
    const { id, settledGeneration: settled, outcome } = job
    const seen = this.#seen.get(id)
    const known = seen?.job === job ? seen : { job, settled: 0, kind: undefined }
    if (!outcome || (settled === known.settled && outcome.kind === known.kind)) return
    if (settled === known.settled && outcome.kind !== 'removed')
      this.#history.violate('Q1', `${short(id)} has a second outcome of generation ${settled}`)
    if (settled < known.settled) this.#history.violate('Q1', `generations of ${short(id)} go back`)
    this.#seen.set(id, { job, settled, kind: outcome.kind })
    const { fence, kind } = outcome
    const identity = outcomeIdentity(outcome)
    this.#history.outcomes.push({
      ...this.#history.moment(),
      ...{ id, generation: settled, fence, kind, identity },
    })
    this.#history.say(() => `    ${short(id)} generation ${settled} is ${identity} under ${fence}`)
    const attempt = this.#attempts.get(id)
    // The next generation may have been delivered in the same step.
    if (attempt && attempt.generation <= settled)
      attempt.over ??= { ...this.#history.moment(), how: 'settled' }
  }

  /** Wraps the port with the checks that need its replies. */
  wrap(port: QueuePort, process: number): QueuePort {
    return {
      ...port,
      submit: async (submission) => {
        const job = this.#server.model.state.jobs.get(submission.id)
        const before = job && { ...job, isRun: job.worker !== '', finished: job.finished }
        const reply = await port.submit(submission)
        if (submission.conflict === 'exclusive') this.#checkExclusive(submission, reply, before)
        this.#submitted(submission, reply)
        return reply
      },
      finish: async (ending, within) => {
        const current = this.#isCurrent(ending, process)
        const { failures, stalls } = this.#server.model.state.jobs.get(ending.id) ?? {}
        const reply = await port.finish(ending, within)
        const job = this.#server.model.state.jobs.get(ending.id)
        const isCounted = job?.failures !== failures || job?.stalls !== stalls
        if (reply === 'accepted' && ending.kind === 'requeue' && isCounted)
          this.#history.violate('Q1', `${short(ending.id)} is given back, and counted`)
        this.#finished(ending, reply !== 'lost', current)
        return reply
      },
      take: async (request, isRepeated) => {
        const attempt = await port.take(request, isRepeated)
        if (typeof attempt === 'object' && !this.#history.attempt(attempt.id, attempt.fence))
          this.#grant(process, attempt.id, attempt.fence, { toTaker: true, isHeld: true })
        return attempt
      },
      renew: async (attempt, lease, within, holder) => {
        const current = this.#isCurrent(attempt, process)
        const state = await port.renew(attempt, lease, within, holder)
        const record = this.#attempts.get(attempt.id)
        if (state === 'held' && holder && record?.fence === attempt.fence) record.isHeld = true
        if (state === 'held' && !current)
          this.#history.violate(
            'Q3',
            `p${process} may go on with ${short(attempt.id)} under ${attempt.fence}`,
          )
        return state
      },
      processDue: async (jobs, terms, within) => {
        const ticks = await port.processDue(jobs, terms, within)
        for (const { id, status } of ticks) {
          if (status !== 'stalled' && status !== 'failed') continue
          this.#history.say(() => `    ${short(id)} has ${status}`)
        }
        return ticks
      },
      terminate: async (removal, within) => {
        const ended = await port.terminate(removal, within)
        if (ended) this.#history.say(() => `    ${short(removal.id)} is ended: ${removal.kind}`)
        return ended
      },
      unpark: async (nonce, removal, within) => {
        const before = this.#history.outcomes.length
        await port.unpark(nonce, removal, within)
        this.#history.unwanted.push(...this.#history.outcomes.slice(before))
      },
      retry: async (...args) => {
        const generation = await port.retry(...args)
        if (generation !== undefined) this.#history.retried.add(args[0])
        return generation
      },
    }
  }

  /** Whether an attempt is the last of its job and has not ended. */
  #isCurrent({ id, fence }: Pick<AttemptRef, 'id' | 'fence'>, process: number): boolean {
    const last = this.#attempts.get(id)
    const isHolder = last?.isHeld || last?.process === process
    return last?.fence === fence && isHolder && last.over === undefined
  }

  /** Q1: an 'exclusive' submission begins a generation of its own, after an attempt that runs, or is refused. */
  #checkExclusive(
    { id, nonce, delay }: Submission,
    reply: SubmitReply,
    before: (Pick<JobRecord, 'next' | 'generation'> & { isRun: boolean; finished: boolean }) | undefined,
  ): void {
    if (this.#history.effects.has(nonce)) return
    const isRefused = before && !before.finished && (!before.isRun || before.next !== undefined)
    if (reply.status !== (isRefused ? 'conflict' : 'created'))
      return this.#history.violate('Q1', `exclusive ${short(id)} is ${reply.status}`)
    if (reply.status !== 'created') return
    if (reply.generation <= (before?.generation ?? 0))
      this.#history.violate('Q1', `exclusive ${short(id)} is part of ${reply.generation}`)
    this.#notBefore.set(`${id} ${reply.generation}`, this.#history.moment().at + delay)
  }

  /** S6: a submission that is sent twice takes effect once. */
  #submitted({ id, nonce }: Submission, reply: SubmitReply): void {
    const { history } = this
    const generation = 'generation' in reply ? reply.generation : 0
    const effects = history.effects.get(nonce) ?? []
    const first = effects.find(({ status }) => status === 'created')
    const effect = { ...history.moment(), id, status: reply.status, generation }
    history.effects.set(nonce, [...effects, effect])
    history.say(() => `    ${short(id)} is ${reply.status} as ${generation}`)
    if (reply.status !== 'created' || !first || first.generation === generation) return
    // Another submission came between: then the record does not know this nonce any more.
    const others = [...history.effects].some(
      ([other, of]) => other !== nonce && of.some((one) => one.id === id && one.tick > first.tick),
    )
    if (!others && !history.retried.has(id) && !history.wipedSince(first.tick))
      history.violate('S6', `${short(id)} was submitted once, and created twice`)
  }

  get history(): QueueHistory {
    return this.#history
  }

  /** Q3: a replaced attempt cannot end its job. S6: an accepted outcome is accepted again when it is resent. */
  #finished({ id, fence, kind }: AttemptOutcome, accepted: boolean, current: boolean): void {
    const name = `${id} ${fence} ${kind}`
    const before = this.#accepted.get(name)
    this.#history.say(() => `    ${short(id)} ${fence} ${kind} is ${accepted ? 'accepted' : 'refused'}`)
    if (!accepted) {
      const later = this.#history.attempts.some((one) => one.id === id && one.fence > fence)
      const outcomes = this.#history.outcomes.filter((one) => one.id === id && one.tick > (before ?? 0))
      if (before === undefined || later || outcomes.length > 0 || this.#history.wipedSince(before)) return
      return this.#history.violate(
        'S6',
        `${short(id)} was ${kind} under ${fence}, which is refused the second time`,
      )
    }
    if (before !== undefined) return
    this.#accepted.set(name, this.#history.moment().tick)
    if (!current)
      this.#history.violate('Q3', `${short(id)} is ended by ${kind} under ${fence}, which is over`)
    const attempt = this.#history.attempt(id, fence)
    // A delivery in the same step replaced no attempt.
    if (attempt && current) attempt.over = { ...this.#history.moment(), how: kind }
  }

  /** Called when all records are lost. */
  lost(): void {
    this.#history.wipes.push(this.#history.moment())
    this.#seen.clear()
    this.#ready.clear()
    for (const attempt of this.#attempts.values())
      attempt.over ??= { ...this.#history.moment(), how: 'wiped' }
  }
}

export function short(id: string): string {
  return id.slice(0, 4)
}
