import { ContextEmitter } from '../kernel/hooks.ts'
import { countFrom, oneOf, shownValue } from '../kernel/options.ts'
import { type FeedEvent, type QueueEvents, type WatchOptions, watchFeed } from './events.ts'
import { type AnyJobs, type CommandOf, type JobMap, type JobPage, type JobStatus, statusOf } from './job.ts'
import { OUTCOME_RETENTION, type QueueContext } from './options.ts'
import type { QueueLoad } from './store/load.ts'
import type { Counts, JobSnapshot, JobState } from './store/store.ts'
import type { QueueTotals } from './store/totals.ts'
import { CANCELLED_FAILURE } from './submitting/outcome-waits.ts'
import { checkName, isJobId } from './submitting/submission.ts'

/** Default number of jobs on a page, and number of jobs that `redrive` reads at once. */
const DEFAULT_PAGE_SIZE = 100

/** Largest number of jobs on a page. */
const MAX_PAGE_SIZE = 1_000

const STATES = ['waiting', 'delayed', 'active', 'completed', 'failed'] as const

const checkState = oneOf(STATES)
const checkLimit = countFrom(1)

/** A job as the store has it; undefined if there is none with this id. */
export async function snapshotOf(
  id: string,
  { store, within }: QueueContext,
): Promise<JobSnapshot | undefined> {
  return isJobId(id) ? store.snapshot(id, within) : undefined
}

/** The part of a queue that inspects and changes its jobs, by id or by state. */
export abstract class QueueManagement<
  Jobs extends JobMap<Jobs> = AnyJobs,
> extends ContextEmitter<QueueEvents> {
  /** Throws ClosedError after `close`. @internal */
  protected abstract open(): QueueContext

  /** Returns the current status of the job with this id; undefined if there is none. */
  async status(id: string): Promise<JobStatus | undefined> {
    const context = this.open()
    const snapshot = await snapshotOf(id, context)
    return snapshot && statusOf(snapshot, context.options.codec)
  }

  /**
   * Lists the jobs in a state, one page at a time, in the order in which they will run or have finished.
   * @param page `limit`: jobs per page, at most 1,000, 100 by default; `cursor`: that of the previous page.
   */
  async jobs(
    state: JobState,
    { limit = DEFAULT_PAGE_SIZE, cursor = '0' }: { limit?: number; cursor?: string } = {},
  ): Promise<JobPage> {
    const { store, within, options } = this.open()
    checkState('state', state)
    checkLimit('limit', limit)
    const from = Number(cursor)
    if (!/^\d{1,15}$/.test(cursor))
      throw new TypeError(`Expected \`cursor\` to be the cursor of a page, got ${shownValue(cursor)}`)
    const size = Math.min(limit, MAX_PAGE_SIZE)
    const ids = await store.list(state, from, size, within)
    const snapshots = await Promise.all(ids.map((id) => store.snapshot(id, within)))
    // Jobs that changed state since they were listed are left out.
    const listed = snapshots.filter((snapshot) => snapshot?.state === state) as JobSnapshot[]
    const jobs = listed.map((snapshot) => statusOf(snapshot, options.codec))
    return { jobs, cursor: ids.length < size ? undefined : String(from + ids.length) }
  }

  /** Returns the number of jobs in each state. Completed and failed jobs count while `retain` keeps them. */
  async counts(): Promise<Counts> {
    const { store, within } = this.open()
    return store.counts(within)
  }

  /** Returns how many jobs the queue has had since it was first used, or erased. Kept for 90 days after its last use. */
  async totals(): Promise<QueueTotals> {
    const { store, within } = this.open()
    return store.totals(within)
  }

  /** What the queue has to do, also by command. @internal */
  async load(timeout?: number): Promise<QueueLoad> {
    const { store, within } = this.open()
    return store.load(timeout ?? within)
  }

  /** Counts a failure that no attempt has reported: of a job that was taken for good. @internal */
  async countFailure(): Promise<void> {
    const { store, within } = this.open()
    return store.countFailure(within)
  }

  /**
   * Removes all waiting and delayed jobs, as {@link drain} does, forgets the keys of posts (`enqueueAll`), sets the totals to 0,
   * and removes the queue from the register of queues until it is used again; a process with a worker for it lists it again after
   * 10 minutes. Running jobs go on, and are counted when they end. Jobs that are submitted meanwhile may stay.
   */
  async erase(): Promise<void> {
    await this.drain({ delayed: true })
    const { store, within, registration } = this.open()
    await store.resetTotals(within)
    await registration.leave()
  }

  /** Stops the start of jobs of a command, or of all commands, in all processes until {@link resume}. Running jobs go on. */
  async pause(command?: CommandOf<Jobs>): Promise<void> {
    const { store, within } = this.open()
    if (command !== undefined) checkName('command', command)
    return store.pause(command ?? '', within)
  }

  /** Undoes {@link pause}. A command that was paused by name stays paused until it is resumed by name. */
  async resume(command?: CommandOf<Jobs>): Promise<void> {
    const { store, within } = this.open()
    if (command !== undefined) checkName('command', command)
    return store.resume(command ?? '', within)
  }

  /** Returns the paused commands; '' stands for a pause of all commands. */
  async paused(): Promise<string[]> {
    const { store, within } = this.open()
    return store.pausedCommands(within)
  }

  /**
   * Removes all waiting jobs, and with `delayed` the delayed ones. Never removes a running job. Waiters of a removed job are
   * rejected with RemovedError. Returns the number of removed jobs.
   */
  async drain({ delayed = false }: { delayed?: boolean } = {}): Promise<number> {
    const { store, within } = this.open()
    // Delayed jobs first: those that become due meanwhile are waiting jobs then.
    const later = delayed ? await store.drain('delayed', OUTCOME_RETENTION, within) : 0
    return later + (await store.drain('waiting', OUTCOME_RETENTION, within))
  }

  /** Runs a completed or failed job again. Returns false if there is no such job, or it has not finished. */
  async retry(id: string): Promise<boolean> {
    return retryJob(id, this.open())
  }

  /** Runs failed jobs again, the oldest first, up to `limit`. Returns their number. */
  async redrive({ limit = Number.POSITIVE_INFINITY }: { limit?: number } = {}): Promise<number> {
    const context = this.open()
    const { store, within } = context
    checkLimit('limit', limit)
    // A bound: a job that fails again meanwhile is listed again.
    const most = Math.min(limit, (await store.counts(within)).failed)
    let done = 0
    let skipped = 0
    while (done < most) {
      const ids = await store.list('failed', skipped, Math.min(DEFAULT_PAGE_SIZE, most - done), within)
      if (ids.length === 0) break
      const retried = await Promise.all(ids.map((id) => retryJob(id, context)))
      const count = retried.filter(Boolean).length
      done += count
      skipped += ids.length - count
    }
    return done
  }

  /**
   * Cancels a job that has not finished: aborts the signal of its handler, and rejects its waiters with a RemoteError whose
   * `remote.code` is 'E_CANCELLED'. Returns false if there is no such job, or it has finished.
   */
  async cancel(id: string): Promise<boolean> {
    return terminate(id, 'error', CANCELLED_FAILURE, this.open())
  }

  /** Removes a job and its outcome. Its waiters are rejected with RemovedError. Returns false if there is no such job. */
  async remove(id: string): Promise<boolean> {
    return terminate(id, 'removed', Buffer.alloc(0), this.open())
  }

  /**
   * Calls `listener` with the events of this queue from all processes, best effort, until the returned function is called.
   * Events are sent only while at least one process watches. `onGap` is called when events may have been lost, because the
   * connection was.
   * @throws UnavailableError, ClosedError, TypeError.
   */
  async watch(listener: (event: FeedEvent) => void, options: WatchOptions = {}): Promise<() => void> {
    return watchFeed(this.open(), listener, options)
  }

  /** Returns the lines that handlers wrote with `job.log`: the last 1,000, kept for a day. */
  async logs(id: string): Promise<string[]> {
    const { store, within } = this.open()
    return isJobId(id) ? store.readLog(id, within) : []
  }
}

async function retryJob(id: string, context: QueueContext): Promise<boolean> {
  const snapshot = await snapshotOf(id, context)
  if (!snapshot?.outcome || snapshot.outcome.kind === 'removed') return false
  const { store, within } = context
  return (await store.retry(id, snapshot.command, snapshot.generation, within)) !== undefined
}

async function terminate(
  id: string,
  kind: 'error' | 'removed',
  bytes: Buffer,
  context: QueueContext,
): Promise<boolean> {
  const snapshot = await snapshotOf(id, context)
  if (!snapshot) return false
  const { command } = snapshot
  const termination = {
    id,
    command,
    kind,
    bytes,
    outcomeRetention: OUTCOME_RETENTION,
    when: 'always',
  } as const
  return context.store.terminate(termination, context.within)
}
