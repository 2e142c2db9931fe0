import type { Clock } from '../../kernel/time.ts'
import { masked } from '../../secrets.ts'
import type { ClientCensusItem } from '../overview/census-items.ts'

/** Jobs and keys that one gateway knows to be held by its clients, each. Beyond it those that it heard of longest ago are left out. */
export const MAX_HELD = 10_000

interface Held {
  readonly since: number
  /** When the lease ends, unless it is renewed at another gateway. */
  readonly until: number
}

interface HeldJob extends Held {
  readonly queue: string
  readonly command: string
  readonly id: string
  readonly fence: number
  readonly worker: string
}

interface HeldKey extends Held, KeyLease {}

/** A job that was taken for a lease. */
export interface JobLease {
  readonly queue: string
  readonly command: string
  readonly id: string
  readonly fence: number
  /** ms */
  readonly lease: number
  /** The worker, if it has named itself. */
  readonly worker: string | undefined
}

/** A lease of a key that is held by its token. */
export interface KeyLease {
  readonly key: string
  readonly record: string
  readonly fence: number
  /** ms */
  readonly lease: number
  /** As it was shown last. */
  readonly progress: unknown
}

/** Longest progress that is kept, as JSON. */
const MAX_PROGRESS = 1_024

/**
 * The jobs and keys that clients hold, as far as this gateway has granted or renewed them. No process works on them that would tell so
 * in a census. One that is ended at another gateway is told here until its lease would have ended.
 */
export class Holdings {
  readonly #clock: Clock
  /** By fence, id and queue. In the order in which they were heard of last. */
  readonly #jobs = new Map<string, HeldJob>()
  readonly #keys = new Map<string, HeldKey>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** A job was taken, or its lease renewed. */
  holdsJob(job: JobLease): void {
    const { queue, command, id, fence, lease, worker } = job
    const name = jobName(queue, id, fence)
    const known = this.#jobs.get(name)
    const now = this.#clock.now()
    const since = known?.since ?? now
    const until = now + lease
    put(this.#jobs, name, { queue, command, id, fence, worker: worker ?? known?.worker ?? '', since, until })
  }

  jobEnded(queue: string, id: string, fence: number): void {
    this.#jobs.delete(jobName(queue, id, fence))
  }

  /** A key was granted, or its lease renewed, perhaps with progress. */
  holdsKey(key: Omit<KeyLease, 'progress'>, progress?: string): void {
    const found = this.#keys.get(key.record)
    const known = found?.fence === key.fence ? found : undefined
    const now = this.#clock.now()
    const isShown = progress !== undefined && progress.length <= MAX_PROGRESS
    put(this.#keys, key.record, {
      ...key,
      since: known?.since ?? now,
      until: now + key.lease,
      progress: isShown ? (JSON.parse(progress) as unknown) : known?.progress,
    })
  }

  keyEnded(record: string, fence: number): void {
    if (this.#keys.get(record)?.fence === fence) this.#keys.delete(record)
  }

  /** What this gateway answers to a census: keys without credentials. */
  *census(prefix: string): Generator<ClientCensusItem> {
    const now = this.#clock.now()
    for (const [name, { queue, command, id, fence, worker, since, until }] of this.#jobs) {
      if (until <= now) this.#jobs.delete(name)
      else
        yield {
          ...({ kind: 'job', prefix, queue, command, id, fence, worker } as const),
          ...{ age: now - since, left: until - now },
        }
    }
    for (const [record, { key, fence, since, until, lease, progress }] of this.#keys) {
      if (until <= now) this.#keys.delete(record)
      else
        yield {
          kind: 'key',
          ...{
            prefix,
            key: masked(key),
            record,
            fence,
            lease,
            age: now - since,
            left: until - now,
            progress,
          },
        }
    }
  }
}

function put<T>(held: Map<string, T>, name: string, value: T): void {
  held.delete(name)
  held.set(name, value)
  if (held.size <= MAX_HELD) return
  const [oldest] = held.keys()
  if (oldest !== undefined) held.delete(oldest)
}

function jobName(queue: string, id: string, fence: number): string {
  return `${fence} ${id} ${queue}`
}
