import { DuplicateWorkerError } from '../../errors.ts'
import { encodeFailure } from '../../kernel/codec/failure.ts'
import { shown } from '../../kernel/options.ts'
import { isErrorReply } from '../../kernel/redis/diagnosis.ts'
import { warnOnce } from '../../kernel/telemetry.ts'
import { refProcess, unrefProcess } from '../../kernel/waiter.ts'
import type { EventReporter } from '../events.ts'
import { OUTCOME_RETENTION, type QueueContext } from '../options.ts'
import type { QueueCensusItem } from '../store/store.ts'
import { DuePoller } from './due-poller.ts'
import type { Handler } from './running-job.ts'
import { Worker } from './worker.ts'

/** The failure of a job that lost its worker more than `maxStalls` times. */
const STALLED_FAILURE = encodeFailure({
  name: 'StalledError',
  message: 'The job lost its worker too often',
  code: 'E_STALLED',
})

/** The workers of a queue in this process, and the due poller that they share. */
export class Workers {
  readonly #context: QueueContext
  readonly #events: EventReporter
  readonly #workers = new Map<string, Worker>()
  /** Undefined until the first worker is added. */
  #duePoller: DuePoller | undefined

  constructor(context: QueueContext, events: EventReporter) {
    this.#context = context
    this.#events = events
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
      dueIn: (ms) => this.#duePoller?.dueIn(ms),
      announcementsFail: (error) => this.#warnOfRefusal(command, error),
    })
    this.#workers.set(command, worker)
    this.#duePoller ??= this.#startPolling()
  }

  #startPolling(): DuePoller {
    const { connection, clock, options } = this.#context
    const { maxStalls, errorTtl, retain } = options
    refProcess(clock)
    connection?.warnIfUnreachable()
    const policy = { maxStalls, errorTtl, failure: STALLED_FAILURE, outcomeRetention: OUTCOME_RETENTION }
    return new DuePoller(this.#context, { ...policy, retain: retain.failed }, (results) =>
      this.#events.dueProcessed(results),
    )
  }

  /** Emits a process warning: a worker has no caller that could receive the error. */
  #warnOfRefusal(command: string, error: unknown): void {
    const { connection, queue } = this.#context
    const cause = connection?.lastError ?? (error as Error).cause
    // A missing connection has a warning of its own.
    if (!connection?.connected || !isErrorReply(cause)) return
    const message = `The queue ${shown(queue)} gets no jobs of ${shown(command)} in this process: Redis refused: ${cause.message}`
    warnOnce('SOLOFLIGHT_WORKER_REFUSED', message)
  }

  /** Takes no more jobs, waits up to `grace` ms for running handlers, and requeues the other jobs. */
  async close(grace: number): Promise<void> {
    this.#duePoller?.close()
    const workers = [...this.#workers.values()]
    await Promise.all(workers.map((worker) => worker.stopDeliveries()))
    await Promise.all(workers.map((worker) => worker.drained(grace)))
    await Promise.all(workers.map((worker) => worker.cancelAndRequeue()))
  }

  /** Keeps the process alive no longer. */
  unref(): void {
    if (this.#duePoller) unrefProcess(this.#context.clock)
  }
}
