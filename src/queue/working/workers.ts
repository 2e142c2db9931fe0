import { DuplicateWorkerError } from '../../errors.ts'
import { encodeFailure } from '../../kernel/codec/failure.ts'
import { shown } from '../../kernel/options.ts'
import { isErrorReply } from '../../kernel/redis/diagnosis.ts'
import { warnOnce } from '../../kernel/telemetry.ts'
import { refProcess, unrefProcess } from '../../kernel/waiter.ts'
import type { EventReporter } from '../events.ts'
import { OUTCOME_RETENTION, type QueueContext } from '../options.ts'
import type { QueueCensusItem } from '../store/census-item.ts'
import { DuePoller, type DuePollerDeps } from './due-poller.ts'
import type { Handler } from './running-job.ts'
import { Worker } from './worker.ts'

/** The failure of a job that lost its worker more than `maxStalls` times. */
const STALLED_FAILURE = encodeFailure({
  name: 'StalledError',
  message: 'The job lost its worker too often',
  code: 'E_STALLED',
})

/** The poller of the due jobs of a queue. Jobs that stall too often have failed, by the options of the queue. */
export function createDuePoller(context: QueueContext, deps: DuePollerDeps): DuePoller {
  const { maxStalls, errorTtl, retain } = context.options
  const policy = { maxStalls, errorTtl, failure: STALLED_FAILURE, outcomeRetention: OUTCOME_RETENTION }
  return new DuePoller(context, { ...policy, retain: retain.failed }, deps)
}

/** Emits a process warning: a worker has no caller that could receive the error of its announcements. */
export function warnOfRefusal({ connection, queue }: QueueContext, command: string, error: unknown): void {
  const cause = connection?.lastError ?? (error as Error).cause
  // A missing connection has a warning of its own.
  if (!connection?.connected || !isErrorReply(cause)) return
  const message = `The queue ${shown(queue)} gets no jobs of ${shown(command)} in this process: Redis refused: ${cause.message}`
  warnOnce('SOLOFLIGHT_WORKER_REFUSED', message)
}

/** The workers of a queue in this process. */
export class Workers {
  readonly #context: QueueContext
  readonly #events: EventReporter
  readonly #duePoller: DuePoller
  readonly #workers = new Map<string, Worker>()

  constructor(context: QueueContext, events: EventReporter, duePoller: DuePoller) {
    this.#context = context
    this.#events = events
    this.#duePoller = duePoller
  }

  get size(): number {
    return this.#workers.size
  }

  has(command: string): boolean {
    return this.#workers.has(command)
  }

  /** Number of handlers that run or are about to. */
  get running(): number {
    return [...this.#workers.values()].reduce((sum, worker) => sum + worker.busy, 0)
  }

  /** The workers and their running jobs, for a census. */
  *census(): Generator<QueueCensusItem> {
    const now = this.#context.clock.now()
    for (const worker of this.#workers.values()) yield* worker.census(now)
  }

  /** Throws DuplicateWorkerError if there is a worker for the command. */
  add(command: string, handler: Handler, concurrency: number): void {
    if (this.#workers.has(command))
      throw new DuplicateWorkerError(`\`${command}\` is processed here already`, { key: command })
    const worker = new Worker(command, handler, concurrency, this.#context, this.#events, {
      dueIn: (ms) => this.#duePoller.dueIn(ms),
      announcementsFail: (error) => warnOfRefusal(this.#context, command, error),
    })
    this.#workers.set(command, worker)
    if (this.#workers.size > 1) return
    refProcess(this.#context.clock)
    this.#context.connection?.warnIfUnreachable()
    this.#duePoller.dueIn(0)
  }

  /** Takes no more jobs, waits up to `grace` ms for running handlers, and requeues the other jobs. */
  async close(grace: number): Promise<void> {
    const workers = [...this.#workers.values()]
    await Promise.all(workers.map((worker) => worker.stopDeliveries()))
    await Promise.all(workers.map((worker) => worker.drained(grace)))
    await Promise.all(workers.map((worker) => worker.cancelAndRequeue()))
  }

  /** Keeps the process alive no longer. */
  unref(): void {
    if (this.#workers.size > 0) unrefProcess(this.#context.clock)
  }
}
