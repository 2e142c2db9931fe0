import { isPrintableName, MAX_NAME } from '../../kernel/names.ts'
import type { TakenJob } from '../../queue/index.ts'
import type { GatewayDeps } from '../deps.ts'
import type { RouteContext } from '../env.ts'
import type { Renewal } from '../http/lease.ts'
import { Problem } from '../problem.ts'

/** The header in which a worker names itself. */
const HEADER = 'x-presque-workerid'

/** The id that a worker gives itself by the header X-presque-workerid; undefined without it. @throws Problem 400 */
export function workerId({ req }: RouteContext): string | undefined {
  const id = req.header(HEADER)
  if (id === undefined || isPrintableName(id)) return id
  throw new Problem(400, 'invalid worker id', {
    detail: `Expected X-presque-workerid to be 1 to ${MAX_NAME} characters without control characters`,
  })
}

/**
 * A client that takes or finishes jobs of a queue, by one request or one message. Each is a sign of life of the worker that it
 * names, and is counted for that one: a job that it takes as processed, one that it fails or puts back as failed.
 */
export class WorkingClient {
  readonly #clients: GatewayDeps['clients']
  readonly #queue: string
  readonly #id: string | undefined

  /** `id`: undefined if it has not named itself. */
  constructor({ clients }: GatewayDeps, queue: string, id: string | undefined) {
    this.#clients = clients
    this.#queue = queue
    this.#id = id
  }

  /** The client of a request. @throws Problem 400 if it names itself wrongly. */
  static of(c: RouteContext, deps: GatewayDeps, queue: string): WorkingClient {
    return new WorkingClient(deps, queue, workerId(c))
  }

  #seen(command?: string): ReturnType<GatewayDeps['clients']['workers']['seen']> {
    return this.#id === undefined ? undefined : this.#clients.workers.seen(this.#queue, this.#id, command)
  }

  /** It waits for a job. */
  waits<T>(command: string, run: () => Promise<T>): Promise<T> {
    return this.#clients.workers.waits(this.#seen(command), run)
  }

  /** It was given jobs; with a lease (ms) it holds them. */
  taken(jobs: readonly TakenJob[], lease: number | undefined): void {
    const worker = this.#seen()
    if (worker) worker.processed += jobs.length
    if (lease !== undefined) for (const job of jobs) this.renewed(job, lease)
  }

  /** It was gone before it had received them. */
  missed(jobs: readonly TakenJob[]): void {
    const worker = this.#seen()
    if (worker) worker.processed = Math.max(0, worker.processed - jobs.length)
    for (const { id, fence } of jobs) this.#clients.holdings.jobEnded(this.#queue, id, fence)
  }

  /** Renews the lease of a job for so many ms, and notes what has become of it. */
  async renew(job: TakenJob, lease: number): Promise<Renewal> {
    const renewal = await job.renew(lease)
    if (renewal === 'held') this.renewed(job, lease)
    else this.ended(job, { failed: false })
    return renewal
  }

  /** It has renewed the lease of a job (ms). */
  renewed({ id, command, fence }: TakenJob, lease: number): void {
    this.#seen()
    this.#clients.holdings.holdsJob({ queue: this.#queue, id, command, fence, lease, worker: this.#id })
  }

  /** It does not hold a job any more. */
  ended({ id, fence }: TakenJob, { failed }: { failed: boolean }): void {
    this.#clients.holdings.jobEnded(this.#queue, id, fence)
    if (failed) this.failed()
    else this.#seen()
  }

  /** It has failed a job, or put it back. */
  failed(): void {
    const worker = this.#seen()
    if (worker) worker.failed++
  }
}
