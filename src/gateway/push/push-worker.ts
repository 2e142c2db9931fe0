import type { Clock } from '../../kernel/time.ts'
import type { JsonText, QueueOptions, RedisQueue, RunningJob } from '../../queue/index.ts'
import { InternalAddressError } from './addresses.ts'
import type { PushFigures } from './figures.ts'
import type { ResolvedPushWorkerOptions } from './options.ts'
import { PushError, resultOf } from './outcome.ts'
import { Receiver } from './receiver.ts'
import { signaturesOf } from './signature.ts'

/** What a push worker uses. */
export interface PushWorkerDeps {
  readonly clock: Clock
  /** Largest result, in bytes. */
  readonly maxBody: number
  /** Opens a queue of the gateway, with these options beside those of the gateway. */
  openQueue(name: string, options: QueueOptions): RedisQueue
}

/**
 * A worker of a queue that posts its jobs to a URL. It renews the lease of a job while the request runs, as every worker does.
 * A job that is cancelled, or lost to another worker, ends its request.
 */
export class PushWorker {
  readonly #options: ResolvedPushWorkerOptions
  readonly #deps: PushWorkerDeps
  readonly #queue: RedisQueue
  readonly #receiver: Receiver

  /** @throws TypeError if the name of the queue or of the command, or the backoff, is invalid. */
  constructor(options: ResolvedPushWorkerOptions, deps: PushWorkerDeps) {
    const { queue, command, url, attempts, backoff, concurrency } = options
    this.#options = options
    this.#deps = deps
    // The request has a limit of its own.
    this.#queue = deps.openQueue(queue, { attempts, backoff, maxHold: Number.POSITIVE_INFINITY })
    this.#receiver = new Receiver(url, options)
    try {
      this.#queue.process(command, (_, job) => this.#push(job), { concurrency })
    } catch (error) {
      void this.close(0)
      throw error
    }
  }

  async #push(job: RunningJob): Promise<JsonText> {
    try {
      return await this.#post(job)
    } catch (error) {
      const failure = error instanceof PushError ? error : unreachable(error)
      job.retryAfter(failure.retryAfter)
      // The failure of an attempt that is retried is kept nowhere else.
      job.log(`Attempt ${job.attempt}: ${failure.message}`)
      throw failure
    }
  }

  async #post(job: RunningJob): Promise<JsonText> {
    const { timeout } = this.#options
    const body = Buffer.from(job.payloadText || 'null')
    const ending = new AbortController()
    const onAbort = () => ending.abort(job.signal.reason)
    const timer = this.#deps.clock.after(timeout, () =>
      ending.abort(new PushError(`The receiver has not answered within ${timeout} ms`, { retryAfter: 0 })),
    )
    job.signal.addEventListener('abort', onAbort, { once: true })
    if (job.signal.aborted) onAbort()
    try {
      const headers = this.#headersOf(job, body)
      const { maxBody: maxBytes } = this.#deps
      return resultOf(await this.#receiver.post({ headers, body, signal: ending.signal, maxBytes }))
    } finally {
      timer.cancel()
      job.signal.removeEventListener('abort', onAbort)
    }
  }

  #headersOf({ id, queue, command, attempt, fence }: RunningJob, body: Buffer): Record<string, string> {
    const timestamp = Math.floor(Date.now() / 1_000)
    const { keys } = this.#options
    const headers: Record<string, string> = {
      'content-type': 'application/json',
      'content-length': String(body.length),
      'user-agent': 'soloflight',
      'webhook-id': id,
      'webhook-timestamp': String(timestamp),
      'x-job-id': id,
      'x-job-attempt': String(attempt),
      'x-job-fence': String(fence),
      // A header has no room for all characters of a name.
      'x-job-queue': encodeURIComponent(queue),
      'x-job-command': encodeURIComponent(command),
    }
    if (keys.length > 0) headers['webhook-signature'] = signaturesOf(keys, { id, timestamp, body })
    return headers
  }

  /** What became of its jobs, since it was made. */
  get figures(): PushFigures {
    const { queue, command } = this.#options
    const { completed, failed, retried, lost, running } = this.#queue.stats()
    return { queue, command, running, outcomes: { completed, failed, retried, lost } }
  }

  /** Takes no more jobs. Requests that still run after `grace` ms are ended, and their jobs go back. Never rejects. */
  async close(grace: number): Promise<void> {
    await this.#queue.close({ grace })
    this.#receiver.close()
  }
}

/** The failure of a connection: the job is retried. An attempt that was lost is not, whatever it fails with. */
function unreachable(error: unknown): PushError {
  const { code = 'the request was ended' } = error as NodeJS.ErrnoException
  const reason = error instanceof InternalAddressError ? error.message : code
  return new PushError(`The receiver cannot be reached: ${reason}`, { retryAfter: 0 })
}
