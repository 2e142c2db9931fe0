import pDefer, { type DeferredPromise } from 'p-defer'
import { ClosedError, OverloadedError } from '../../errors.ts'
import type { RedisQueue, TakenJob } from '../../queue/index.ts'
import { WorkingClient } from '../clients/working-client.ts'
import type { GatewayDeps } from '../deps.ts'
import { objectText } from '../http/json.ts'
import { leaseHeader } from '../http/lease.ts'
import { problemText, type SocketSession } from './socket-session.ts'
import type { MessageId, Subscription } from './subscriptions.ts'

export interface JobSubscriptionOptions {
  readonly queue: string
  readonly command: string
  /** ms */
  readonly lease: number
  /** Jobs that the client has at once, at most. */
  readonly concurrency: number
}

/** Pauses between attempts while the store does not answer, ms: doubles up to the maximum. */
const MIN_RETRY = 100
const MAX_RETRY = 5_000

/**
 * Sends jobs to a client as its slots become free. A slot is taken when a job was sent, and free when the client has finished
 * it, failed it or given it back, or has learned by a renewal that it is not its own any more. Nothing is renewed here.
 */
export class JobSubscription implements Subscription {
  readonly #session: SocketSession
  readonly #id: MessageId
  readonly #options: JobSubscriptionOptions
  readonly #ended = new AbortController()
  /** The jobs that the client has, by their tokens. */
  readonly #held = new Map<string, DeferredPromise<void>>()

  constructor(session: SocketSession, id: MessageId, options: JobSubscriptionOptions) {
    this.#session = session
    this.#id = id
    this.#options = options
  }

  /** Takes jobs until it ends. */
  start(): void {
    if (this.#ended.signal.aborted) return
    const { queue, command, concurrency } = this.#options
    const { deps, caller } = this.#session
    const fill = (open: RedisQueue) =>
      Promise.all(Array.from({ length: concurrency }, () => this.#fillSlot(open)))
    const client = new WorkingClient(deps, queue, undefined, caller)
    const run = client.waits(command, Number.POSITIVE_INFINITY, () => deps.queues.wait(queue, fill))
    run.catch((error) => this.#onFailed(error))
  }

  #onFailed(error: unknown): void {
    // The gateway is closing, and its sockets with it.
    if (error instanceof ClosedError) return
    void this.#session.push(this.#id, { problem: problemText(error) })
    void this.#session.unsubscribe(this.#id)
  }

  async #fillSlot(queue: RedisQueue): Promise<void> {
    const { command, lease } = this.#options
    const { signal } = this.#ended
    for (let pause = MIN_RETRY; !signal.aborted; ) {
      try {
        const job = await queue.take(command, { lease, wait: Number.POSITIVE_INFINITY, signal })
        pause = MIN_RETRY
        if (job) await this.#hand(job)
      } catch (error) {
        if (signal.aborted) return
        if (error instanceof ClosedError || error instanceof OverloadedError) throw error
        await this.#pause(pause)
        pause = Math.min(2 * pause, MAX_RETRY)
      }
    }
  }

  /** Sends a job, and resolves when its slot is free. A job that could not be sent goes back. */
  async #hand(job: TakenJob): Promise<void> {
    const { lease, queue } = this.#options
    const freed = pDefer<void>()
    this.#held.set(job.token, freed)
    new WorkingClient(this.#session.deps, queue, undefined).taken([job], lease)
    const isSent = await this.#session.push(this.#id, { job: takenJobText(job, lease) })
    if (!isSent) {
      this.#held.delete(job.token)
      return release(this.#session.deps, queue, job)
    }
    await freed.promise
  }

  /** The client does not have the job of this token any more. */
  free(token: string): void {
    this.#held.get(token)?.resolve()
    this.#held.delete(token)
  }

  #pause(ms: number): Promise<void> {
    return new Promise((resolve) => this.#session.deps.clock.after(ms, resolve, true))
  }

  /** What the client has stays its own until the leases are over. */
  end(): void {
    this.#ended.abort()
    for (const token of [...this.#held.keys()]) this.free(token)
  }
}

/** A job, as it is sent to a client. */
export function takenJobText({ id, attempt, token, payloadText }: TakenJob, lease: number): string {
  return objectText({
    id: JSON.stringify(id),
    attempt: String(attempt),
    lease: JSON.stringify(leaseHeader(token, lease)),
    job: payloadText || 'null',
  })
}

/** Gives a job back that was not sent. If the store does not answer, its lease ends. Never rejects. */
export function release(deps: GatewayDeps, name: string, job: TakenJob): void {
  const { lifecycle, queues } = deps
  new WorkingClient(deps, name, undefined).missed([job])
  lifecycle.track(() => queues.use(name, () => job.release())).catch(() => {})
}
