import type { Delivery, TakenAttempt } from '../store.ts'
import type { JobRecord } from './job-record.ts'
import type { CommandState, QueueState, TransitionContext } from './queue-state.ts'

/** The attempts that one transition assigns to one worker. */
interface DeliveryBatch {
  command: CommandState
  deliveries: Delivery[]
}

/**
 * Assigns ready jobs to free slots during one transition, and sends the attempts at its end.
 *
 * After each transition, a command has no ready job or no free slot, unless it is paused.
 */
export class Dispatcher {
  readonly #state: QueueState
  readonly #context: TransitionContext
  #batches = new Map<string, DeliveryBatch>()

  constructor(state: QueueState, context: TransitionContext) {
    this.#state = state
    this.#context = context
  }

  assignReady(command: CommandState): void {
    while (command.ready.length > 0 && command.hasFreeSlot) {
      const job = this.#state.jobs.get(command.ready.shift() ?? '')
      const worker = job && command.takeSlot()
      if (job && worker !== undefined) this.assign(job, worker)
    }
  }

  /** How many attempts a worker was assigned that have not been sent yet. */
  assignedTo(worker: string): number {
    return this.#batches.get(worker)?.deliveries.length ?? 0
  }

  /** The fence of the next attempt of a job: above all that the record and the caller have seen. */
  #fenceOf(job: JobRecord): number {
    const { micros, highestFence } = this.#context
    return Math.max(job.fence + 1, micros, highestFence + 1)
  }

  /** Gives the first ready job to a holder, which has accepted its attempt then. */
  take(
    command: CommandState,
    lease: number,
    addressOf: (attempt: TakenAttempt) => string,
  ): TakenAttempt | undefined {
    let job: JobRecord | undefined
    while (!job && command.ready.length > 0) job = this.#state.jobs.get(command.ready.shift() ?? '')
    if (!job) return undefined
    job.fence = this.#fenceOf(job)
    const { id, fence, failures, options, payload } = job
    const attempt = { id, fence, failures, options, payload }
    job.moveTo({ kind: 'active', worker: addressOf(attempt) })
    this.#state.deadlines.set(id, this.#context.now + lease)
    this.#state.totals.taken++
    return attempt
  }

  /** Begins an attempt. */
  assign(job: JobRecord, worker: string): void {
    const { now, acceptWithin } = this.#context
    job.moveTo({ kind: 'assigned', worker })
    job.fence = this.#fenceOf(job)
    this.#state.deadlines.set(job.id, now + acceptWithin)
    let batch = this.#batches.get(worker)
    if (!batch) {
      batch = { command: this.#state.command(job.command), deliveries: [] }
      this.#batches.set(worker, batch)
    }
    batch.deliveries.push(deliveryOf(job, acceptWithin))
  }

  /** Sends the attempts. Those of a worker that does not listen any more are assigned to others. */
  sendBatches(): void {
    while (this.#batches.size > 0) {
      const batches = this.#batches
      this.#batches = new Map()
      const requeued = new Set<CommandState>()
      for (const [worker, { command, deliveries }] of batches) {
        if (this.#context.deliver(worker, deliveries)) continue
        for (const { id } of deliveries.toReversed()) this.#requeue(id, command)
        command.forgetWorker(worker)
        requeued.add(command)
      }
      for (const command of requeued) this.assignReady(command)
    }
  }

  #requeue(id: string, command: CommandState): void {
    this.#state.jobs.get(id)?.moveTo({ kind: 'ready' })
    this.#state.deadlines.delete(id)
    command.ready.requeueFirst(id)
  }
}

function deliveryOf(job: JobRecord, acceptWithin: number): Delivery {
  const { id, fence, generation, failures, stalls, options, payload } = job
  // A job that stalled before must be accepted before it starts: it might be what kills its worker.
  const leaseLeft = stalls > 0 ? 0 : acceptWithin
  return { id, fence, generation, failures, stalls, leaseLeft, options, payload }
}
