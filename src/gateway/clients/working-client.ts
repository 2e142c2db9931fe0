import { isPrintableName, MAX_NAME } from '../../kernel/names.ts'
import type { TakenJob } from '../../queue/index.ts'
import type { GatewayDeps } from '../deps.ts'
import type { Caller, RouteContext } from '../env.ts'
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
 * names, and is counted for that one: a job that it takes as processed, unless it goes back; one that it fails or puts back as
 * failed.
 */
export class WorkingClient {
  readonly #clients: GatewayDeps['clients']
  readonly #queue: string
  readonly #id: string | undefined
  readonly #caller: Caller | undefined

  /** `id`: undefined if it has not named itself. `caller`: needed by a client that takes jobs. */
  constructor({ clients }: GatewayDeps, queue: string, id: string | undefined, caller?: Caller | undefined) {
    this.#clients = clients
    this.#queue = queue
    this.#id = id
    this.#caller = caller
  }

  /** The client of a request. @throws Problem 400 if it names itself wrongly. */
  static of(c: RouteContext, deps: GatewayDeps, queue: string): WorkingClient {
    return new WorkingClient(deps, queue, workerId(c), deps.access.caller(c))
  }

  #seen(command?: string): ReturnType<GatewayDeps['clients']['workers']['seen']> {
    return this.#id === undefined ? undefined : this.#clients.workers.seen(this.#queue, this.#id, command)
  }

  /** It asks for jobs of a command, and waits for so many ms. @throws Problem 429 if its caller waits for too many commands. */
  waits<T>(command: string, wait: number, run: () => Promise<T>): Promise<T> {
    const { workers, commands } = this.#clients
    const waiting = () => {
      const worker = this.#seen(command)
      return worker ? workers.waits(worker, run) : run()
    }
    return wait > 0 ? commands.want(this.#queue, command, this.#caller, waiting) : waiting()
  }

  /** It was given jobs; with a lease (ms) it holds them. */
  taken(jobs: readonly TakenJob[], lease: number | undefined): void {
    const worker = this.#seen()
    if (worker) worker.taken += jobs.length
    if (lease !== undefined) for (const job of jobs) this.renewed(job, lease)
  }

  /** It was gone before it had received them. */
  missed(jobs: readonly TakenJob[]): void {
    const worker = this.#seen()
    if (worker) worker.returned += jobs.length
    for (const { id, fence } of jobs) this.#clients.holdings.jobEnded(this.#queue, id, fence)
  }

  /** Renews the lease of a job for so many ms, and notes what has become of it. */
  async renew(job: TakenJob, lease: number): Promise<Renewal> {
    const renewal = await job.renew(lease)
    if (renewal === 'held') this.renewed(job, lease)
    else this.ended(job)
    return renewal
  }

  /** It has renewed the lease of a job (ms). */
  renewed({ id, command, fence }: TakenJob, lease: number): void {
    this.#seen()
    this.#clients.holdings.holdsJob({ queue: this.#queue, id, command, fence, lease, worker: this.#id })
  }

  /** It does not hold a job any more: it has failed it, given it back, or neither. */
  ended({ id, fence }: TakenJob, how: { readonly failed?: boolean; readonly returned?: boolean } = {}): void {
    this.#clients.holdings.jobEnded(this.#queue, id, fence)
    const worker = this.#seen()
    if (worker && how.failed) worker.failed++
    if (worker && how.returned) worker.returned++
  }

  /** It has put back a job that it had taken for good. */
  failed(): void {
    const worker = this.#seen()
    if (worker) worker.failed++
  }
}
