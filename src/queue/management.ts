import { countFrom, oneOf, shownValue } from '../kernel/options.ts'
import { type JobPage, type JobStatus, statusOf } from './job.ts'
import { OUTCOME_RETENTION, type QueueContext } from './options.ts'
import type { Counts, JobSnapshot, JobState } from './store/store.ts'
import { CANCELLED_FAILURE } from './submitting/outcome-waits.ts'
import { checkName, isJobId } from './submitting/submission.ts'

/** Default number of jobs on a page, and number of jobs that `redrive` reads at once. */
const DEFAULT_PAGE_SIZE = 100

/** Largest number of jobs on a page. */
const MAX_PAGE_SIZE = 1_000

const STATES = ['waiting', 'delayed', 'active', 'completed', 'failed'] as const

const checkState = oneOf(STATES)
const checkLimit = countFrom(1)

/** The calls of a queue that inspect and change jobs by id or by state. Their contracts are stated at RedisQueue. */
export class QueueManagement {
  readonly #context: QueueContext

  constructor(context: QueueContext) {
    this.#context = context
  }

  async snapshot(id: string): Promise<JobSnapshot | undefined> {
    const { store, limits } = this.#context
    return isJobId(id) ? store.snapshot(id, limits) : undefined
  }

  async status(id: string): Promise<JobStatus | undefined> {
    const snapshot = await this.snapshot(id)
    return snapshot && statusOf(snapshot, this.#context.options.codec)
  }

  async jobs(
    state: JobState,
    { limit = DEFAULT_PAGE_SIZE, cursor = '0' }: { limit?: number; cursor?: string },
  ): Promise<JobPage> {
    checkState('state', state)
    checkLimit('limit', limit)
    const from = Number(cursor)
    if (!/^\d{1,15}$/.test(cursor))
      throw new TypeError(`Expected \`cursor\` to be the cursor of a page, got ${shownValue(cursor)}`)
    const { store, limits, options } = this.#context
    const size = Math.min(limit, MAX_PAGE_SIZE)
    const ids = await store.list(state, from, size, limits)
    const snapshots = await Promise.all(ids.map((id) => store.snapshot(id, limits)))
    // Jobs that changed state since they were listed are left out.
    const listed = snapshots.filter((snapshot) => snapshot?.state === state) as JobSnapshot[]
    const jobs = listed.map((snapshot) => statusOf(snapshot, options.codec))
    return { jobs, cursor: ids.length < size ? undefined : String(from + ids.length) }
  }

  counts(): Promise<Counts> {
    const { store, limits } = this.#context
    return store.counts(limits)
  }

  pause(command: string | undefined): Promise<void> {
    if (command !== undefined) checkName('command', command)
    const { store, limits } = this.#context
    return store.pause(command ?? '', limits)
  }

  resume(command: string | undefined): Promise<void> {
    if (command !== undefined) checkName('command', command)
    const { store, limits } = this.#context
    return store.resume(command ?? '', limits)
  }

  paused(): Promise<string[]> {
    const { store, limits } = this.#context
    return store.pausedCommands(limits)
  }

  async drain(delayed: boolean): Promise<number> {
    const { store, limits } = this.#context
    // Delayed jobs first: those that become due meanwhile are waiting jobs then.
    const later = delayed ? await store.drain('delayed', OUTCOME_RETENTION, limits) : 0
    return later + (await store.drain('waiting', OUTCOME_RETENTION, limits))
  }

  async retry(id: string): Promise<boolean> {
    const snapshot = await this.snapshot(id)
    if (!snapshot?.outcome || snapshot.outcome.kind === 'removed') return false
    const { store, limits } = this.#context
    return (await store.retry(id, snapshot.command, snapshot.generation, limits)) !== undefined
  }

  async redrive(limit: number): Promise<number> {
    checkLimit('limit', limit)
    const { store, limits } = this.#context
    // A bound: a job that fails again meanwhile is listed again.
    const most = Math.min(limit, (await store.counts(limits)).failed)
    let done = 0
    let skipped = 0
    while (done < most) {
      const ids = await store.list('failed', skipped, Math.min(DEFAULT_PAGE_SIZE, most - done), limits)
      if (ids.length === 0) break
      const retried = await Promise.all(ids.map((id) => this.retry(id)))
      const count = retried.filter(Boolean).length
      done += count
      skipped += ids.length - count
    }
    return done
  }

  cancel(id: string): Promise<boolean> {
    return this.#terminate(id, 'error', CANCELLED_FAILURE)
  }

  remove(id: string): Promise<boolean> {
    return this.#terminate(id, 'removed', Buffer.alloc(0))
  }

  async #terminate(id: string, kind: 'error' | 'removed', bytes: Buffer): Promise<boolean> {
    const snapshot = await this.snapshot(id)
    if (!snapshot) return false
    const { store, limits } = this.#context
    return store.terminate(
      {
        id,
        command: snapshot.command,
        kind,
        bytes,
        outcomeRetention: OUTCOME_RETENTION,
        onlyIfUnwanted: false,
      },
      limits,
    )
  }

  async logs(id: string): Promise<string[]> {
    const { store, limits } = this.#context
    return isJobId(id) ? store.readLog(id, limits) : []
  }
}
