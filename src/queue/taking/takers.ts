import { OverloadedError } from '../../errors.ts'
import { TransientSet } from '../../kernel/collections.ts'
import { Deadlines } from '../../kernel/time.ts'
import type { EventReporter } from '../events.ts'
import type { QueueContext } from '../options.ts'
import type { QueueCensusItem } from '../store/census-item.ts'
import { assertNotAborted } from '../submitting/submission.ts'
import type { DuePoller } from '../working/due-poller.ts'
import { warnOfRefusal } from '../working/workers.ts'
import { AskingTakers } from './asking-takers.ts'
import { resolveTakeOptions, type TakeOptions } from './options.ts'
import type { HeldAttempt } from './ready-jobs.ts'
import { TakenJob, type TakenJobDeps } from './taken-job.ts'
import { Taker, type TakerDeps } from './taker.ts'
import { TakingWorker, type TakingWorkerHooks } from './taking-worker.ts'
import type { TokenContent } from './token.ts'
import { UnansweredCalls } from './unanswered-calls.ts'
import type { WorkerRoom } from './worker-room.ts'

/** Dependencies of the takers of a queue. */
export interface TakersDeps {
  /** Throws ClosedError after `close`. */
  open(): QueueContext
  readonly events: EventReporter
  readonly duePoller: DuePoller
  readonly room: WorkerRoom
}

/** The takers of a queue in this process. Those that wait have one worker for each command. */
export class Takers {
  readonly #context: QueueContext
  readonly #deps: TakersDeps
  readonly #jobDeps: TakenJobDeps
  readonly #takerDeps: TakerDeps
  readonly #hooks: Omit<TakingWorkerHooks, 'announcementsFail'>
  readonly #unanswered: UnansweredCalls
  readonly #asking: AskingTakers
  readonly #workers = new Map<string, TakingWorker>()
  /** Workers that are being removed. */
  readonly #closing = new TransientSet<Promise<void>>()
  /** When a job was last wanted, by the clock, ms. */
  #usedAt = Number.NEGATIVE_INFINITY

  constructor(context: QueueContext, deps: TakersDeps) {
    const { clock, within } = context
    const dueIn = (ms: number) => deps.duePoller.dueIn(ms)
    this.#context = context
    this.#deps = deps
    this.#jobDeps = { open: () => deps.open(), events: deps.events, dueIn }
    this.#takerDeps = {
      ...{ clock, within, deadlines: new Deadlines(clock) },
      onLeaving: (taker) => this.#workers.get(taker.command)?.onTakerLeaving(taker),
      onOverdue: (taker) => this.#workers.get(taker.command)?.onTakerOverdue(taker),
      onLeft: (taker) => this.#workers.get(taker.command)?.onTakerLeft(taker),
    }
    const common = {
      processDue: () => deps.duePoller.processNow(),
      hand: (taker: Taker, held: HeldAttempt) => this.#hand(taker, held),
    }
    this.#unanswered = new UnansweredCalls(context)
    this.#asking = new AskingTakers(context, this.#unanswered, {
      ...common,
      wait: (taker) => this.#wait(taker),
    })
    this.#hooks = {
      ...common,
      dueIn,
      onIdle: (worker) => deps.room.release(worker),
      onDropped: (worker) => void this.#remove(worker),
    }
  }

  /** Whether a taker waits, or came less than a lease ago. */
  get active(): boolean {
    const { clock, options } = this.#context
    if (clock.now() - this.#usedAt < options.lease) return true
    return [...this.#workers.values()].some(({ waiting }) => waiting > 0)
  }

  /** Whether this process has a worker for takers of a command that wait. */
  has(command: string): boolean {
    return this.#workers.has(command)
  }

  /** The workers, for a census. */
  *census(): Generator<QueueCensusItem> {
    for (const worker of this.#workers.values()) if (worker.waiting > 0) yield* worker.census()
  }

  /** See {@link RedisQueue.take}. */
  take(command: string, options: TakeOptions): Promise<TakenJob | undefined> {
    const { lease, wait } = resolveTakeOptions(options, this.#context.options.lease)
    assertNotAborted(command, options.signal)
    // Jobs may have been delayed before anybody took any. A worker looks for them too.
    if (wait === 0 && !this.active) this.#deps.duePoller.dueIn(0)
    this.#usedAt = this.#context.clock.now()
    this.#context.connection?.warnIfUnreachable()
    const taker = new Taker({ command, lease, wait, signal: options.signal }, this.#takerDeps)
    // While others wait, it waits too.
    if (taker.hasTime && this.#workers.get(command)?.isWaitedOn) this.#wait(taker)
    else this.#asking.ask(taker)
    return taker.promise as Promise<TakenJob | undefined>
  }

  /** No job is ready for a taker: it waits for a delivery. */
  #wait(taker: Taker): void {
    const { room } = this.#deps
    const { command } = taker
    const known = this.#workers.get(command)
    if (!known && room.isFull)
      return taker.reject(new OverloadedError('Too many commands are waited on', { key: command }))
    known?.wait(taker)
    const worker = known ?? this.#createWorker(taker)
    room.use(worker)
  }

  /** `first`: its first taker. */
  #createWorker(first: Taker): TakingWorker {
    const { command } = first
    const announcementsFail = (error: unknown) => warnOfRefusal(this.#context, command, error)
    const worker = new TakingWorker(first, this.#context, this.#unanswered, {
      ...this.#hooks,
      announcementsFail,
    })
    this.#workers.set(command, worker)
    return worker
  }

  #hand(taker: Taker, { token, id, fence, options, payload }: HeldAttempt): boolean {
    if (taker.state === 'ended') return false
    const { command, attempt: number } = token
    this.#deps.events.started({ command, number, delivery: { id, fence } })
    this.#deps.duePoller.dueIn(taker.lease)
    this.#context.registration.use()
    taker.resolve(new TakenJob(token, this.#jobDeps, { options, payload }))
    return true
  }

  /** See {@link RedisQueue.taken}. */
  taken(token: TokenContent): TakenJob<undefined> {
    return new TakenJob(token, this.#jobDeps)
  }

  async #remove(worker: TakingWorker): Promise<void> {
    this.#workers.delete(worker.name.command)
    this.#deps.room.remove(worker)
    const closing = worker.close()
    this.#closing.add(closing)
    await closing
    this.#closing.delete(closing)
  }

  /** Rejects the takers that wait, and takes no more jobs. Those that were taken stay with their tokens. */
  async close(): Promise<void> {
    const searching = this.#unanswered.close()
    const asking = this.#asking.close()
    await Promise.all([...this.#workers.values()].map((worker) => this.#remove(worker)))
    await Promise.all([searching, asking, ...this.#closing])
  }
}
