import { AbortedError, RemoteError, RemovedError } from '../../errors.ts'
import { reportHookError } from '../../kernel/hooks.ts'
import type { Job, JobStatus, LogEvent, RedisQueue } from '../../queue/index.ts'
import { jobMembers } from '../http/job-text.ts'
import { objectText, textOf } from '../http/json.ts'
import { internalProblem, problemOf } from '../problem.ts'
import type { Queues } from '../queues.ts'
import type { Feed } from './feed.ts'
import type { FeedSource } from './feeds.ts'
import type { QueueWatcher, QueueWatches } from './queue-watches.ts'

/** The id of a last event. A client that comes again with it has seen all. */
export const END_ID = 'end'

export function isFinished({ state }: JobStatus): boolean {
  return state === 'completed' || state === 'failed' || state === 'removed'
}

/** The job as JSON, as `GET /j` answers it. `status` is undefined if the job was removed. */
export function jobStateText(queue: string, id: string, status: JobStatus | undefined): string {
  const gone = { id: JSON.stringify(id), queue: JSON.stringify(queue), state: '"removed"' }
  return objectText(status ? jobMembers(queue, status) : gone)
}

/** The states, the progress and the new lines of the log of one job, and its outcome as the last event. One wait serves all clients. */
export function jobFeed(
  { watches, queues }: { readonly watches: QueueWatches; readonly queues: Queues },
  name: string,
  job: Job,
): FeedSource {
  return async (feed) => {
    const { queue, release } = queues.hold(name)
    const following = new FollowedJob(queue, name, job, feed)
    try {
      const watcher: QueueWatcher = {
        onEvent: (event) => {
          if (event.id !== job.id) return
          if (event.event === 'log') following.tellLines(event)
          else following.look()
        },
        onGap: () => following.look(),
      }
      const stopWatching = await watches.watch(name, watcher)
      following.start()
      return () => {
        following.stop()
        stopWatching()
        release()
      }
    } catch (error) {
      release()
      throw error
    }
  }
}

class FollowedJob {
  readonly #queue: RedisQueue
  readonly #name: string
  readonly #job: Job
  readonly #feed: Feed
  readonly #stopping = new AbortController()
  /** A look is under way; `again`: something has happened since it began. */
  #look: 'no' | 'once' | 'again' = 'no'
  #lastSent = ''

  constructor(queue: RedisQueue, name: string, job: Job, feed: Feed) {
    this.#queue = queue
    this.#name = name
    this.#job = job
    this.#feed = feed
  }

  start(): void {
    this.#follow(this.#job)
  }

  #follow(job: Job): void {
    const onProgress = (value: unknown) => this.#feed.publish({ event: 'progress', data: textOf(value) })
    const { signal } = this.#stopping
    // A client that watches a job does not cancel it by leaving.
    this.#queue
      .result(job, { timeout: Number.POSITIVE_INFINITY, signal, onProgress }, true)
      .catch((error: unknown) => {
        if (!(error instanceof RemoteError || error instanceof RemovedError)) throw error
      })
      .then(() => this.#ended())
      .catch((error: unknown) => this.#fail(error))
  }

  tellLines({ lines, skipped }: LogEvent): void {
    // Whoever may write to Redis can forge it.
    if (!Array.isArray(lines)) return
    const data = JSON.stringify({ lines: lines.map(String), skipped: Number(skipped) || 0 })
    this.#feed.publish({ event: 'log', data })
  }

  /** The state may have changed: tells it. */
  look(): void {
    if (this.#look !== 'no') this.#look = 'again'
    else void this.#lookUntilKnown()
  }

  async #lookUntilKnown(): Promise<void> {
    do {
      this.#look = 'once'
      // Best effort: without Redis, the wait for the outcome ends.
      const status = await this.#queue.status(this.#job.id).catch(() => undefined)
      if (status && !isFinished(status)) this.#tell(jobStateText(this.#name, this.#job.id, status))
    } while (this.#isAgain)
    this.#look = 'no'
  }

  get #isAgain(): boolean {
    return this.#look === 'again'
  }

  #tell(text: string): void {
    if (text !== this.#lastSent) this.#feed.publish({ event: 'state', data: text })
    this.#lastSent = text
  }

  /** A run has ended. If the next one of the same id has begun, that is followed. */
  async #ended(): Promise<void> {
    const { id } = this.#job
    const status = await this.#queue.status(id)
    const data = jobStateText(this.#name, id, status)
    const next = status && !isFinished(status) ? await this.#queue.job(id) : undefined
    if (next) {
      this.#tell(data)
      return this.#follow(next)
    }
    this.#feed.publish({ event: 'end', id: END_ID, data })
    this.#feed.end()
  }

  #fail(error: unknown): void {
    if (error instanceof AbortedError) return
    const problem = problemOf(error)
    if (!problem) reportHookError('gateway', error)
    this.#feed.publish({ event: 'error', data: JSON.stringify(problem ?? internalProblem()) })
    this.#feed.end()
  }

  stop(): void {
    this.#stopping.abort()
  }
}
