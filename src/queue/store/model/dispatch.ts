import type { Delivery } from '../store.ts'
import type { CommandBook } from './command-state.ts'
import type { JobRecord } from './job-record.ts'
import type { BookState, QueueSurroundings } from './queue-state.ts'

/** What one transition gives to one worker. */
interface Parcel {
  command: CommandBook
  deliveries: Delivery[]
}

/**
 * Hands jobs to places, for one transition: what it hands out is sent at its end.
 *
 * Nothing waits while a place may be handed out, except what was put off.
 */
export class Dispatch {
  readonly #book: BookState
  readonly #at: QueueSurroundings
  #parcels = new Map<string, Parcel>()

  constructor(book: BookState, at: QueueSurroundings) {
    this.#book = book
    this.#at = at
  }

  /** Hands out what waits for a command, as long as there are places. */
  run(command: CommandBook): void {
    while (command.line.length > 0 && command.isFree) {
      const job = this.#book.jobs.get(command.line.shift() ?? '')
      const worker = job && command.take()
      if (job && worker !== undefined) this.hand(job, worker)
    }
  }

  /** Begins an attempt. */
  hand(job: JobRecord, worker: string): void {
    const { now, micros, seen, accept } = this.#at
    job.worker = worker
    job.fence = Math.max(job.fence + 1, micros, seen + 1)
    this.#book.times.set(job.id, now + accept)
    let parcel = this.#parcels.get(worker)
    if (!parcel) {
      parcel = { command: this.#book.command(job.command), deliveries: [] }
      this.#parcels.set(worker, parcel)
    }
    parcel.deliveries.push(deliveryOf(job, accept))
  }

  /** Sends what was handed out. What goes to a worker that is not there any more goes to another. */
  deliver(): void {
    while (this.#parcels.size > 0) {
      const parcels = this.#parcels
      this.#parcels = new Map()
      const returned = new Set<CommandBook>()
      for (const [worker, { command, deliveries }] of parcels) {
        if (this.#at.deliver(worker, deliveries)) continue
        for (const { id } of deliveries.toReversed()) this.#takeBack(id, command)
        command.forget(worker)
        returned.add(command)
      }
      for (const command of returned) this.run(command)
    }
  }

  #takeBack(id: string, command: CommandBook): void {
    const job = this.#book.jobs.get(id)
    if (job) job.worker = ''
    this.#book.times.delete(id)
    command.line.putFirst(id)
  }
}

function deliveryOf(job: JobRecord, accept: number): Delivery {
  const { id, fence, generation, failed, stalled, options, payload } = job
  // One that stalled before may only start once it is accepted: it might be what kills its worker.
  return {
    id,
    fence,
    generation,
    failures: failed,
    stalls: stalled,
    leaseLeft: stalled > 0 ? 0 : accept,
    options,
    payload,
  }
}
