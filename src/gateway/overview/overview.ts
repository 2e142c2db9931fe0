// What `GET /overview` answers, and what the dashboard shows. Times are in seconds, as everywhere in the routes.

/** All that is known of the queues, keys, workers and services at one moment. */
export interface Overview {
  /** When it was made: seconds since 1970, by the clock of the gateway. */
  readonly at: number
  readonly store: StoreView
  /** Those that were used last. `queueCount` counts all. */
  readonly queues: readonly QueueView[]
  readonly queueCount: number
  readonly workers: readonly WorkerView[]
  /** Keys of the locker that are held or awaited. */
  readonly keys: readonly KeyView[]
  readonly services: readonly ServiceView[]
  /** False if a process did not answer in time, or a list was cut. */
  readonly complete: boolean
}

/** Where the jobs are. While Redis is away, the lists are those that were read last. */
export interface StoreView {
  readonly kind: 'redis' | 'memory'
  readonly reachable: boolean
  /** Since when it is so: seconds since 1970. */
  readonly since: number
}

export interface JobCountsView {
  readonly waiting: number
  readonly delayed: number
  readonly running: number
  /** Failed for good, and kept. */
  readonly failed: number
}

export interface QueueView extends JobCountsView {
  readonly name: string
  /** The whole queue is paused. */
  readonly paused: boolean
  /** Since the queue was first used. Rates are differences of these. */
  readonly totals: { readonly submitted: number; readonly completed: number; readonly failed: number }
  /** Age of the job that runs next; null if none waits. */
  readonly oldest: number | null
  readonly commands: readonly CommandView[]
  /** Whether these are all commands, 100 at most, and every job is counted by its command. */
  readonly commandsComplete: boolean
  /** One sentence: why its first job waits. Null if none waits, and none is delayed. */
  readonly why: string | null
}

export interface CommandView extends Pick<JobCountsView, 'waiting'> {
  readonly command: string
  /** These three are null if the queue has more than 1,000 of them. */
  readonly delayed: number | null
  readonly running: number | null
  readonly failed: number | null
  readonly paused: boolean
  /** Jobs of the command that its live workers run at once; 0 if there is none. */
  readonly capacity: number
}

/** A process that takes jobs of one command of one queue. */
export interface WorkerView {
  /** The process, or the id that a worker gave itself by the header X-presque-workerid. */
  readonly id: string
  /** '' and null if the worker gave itself an id. */
  readonly host: string
  readonly pid: number | null
  readonly queue: string
  readonly command: string
  readonly busy: number
  readonly concurrency: number
  /** Since when its process runs: seconds since 1970. */
  readonly since: number
}

/** One key: who holds it, and who waits for it. */
export interface KeyView {
  readonly key: string
  readonly holder: ProcessView | null
  readonly fence: number
  /** How long it has been held; with no holder known, how long the first has waited. */
  readonly age: number
  /** Left of the lease, and how long it was; null if it is not known. */
  readonly left: number | null
  readonly lease: number | null
  readonly waiters: number
  /** Processes that wait. */
  readonly waiting: readonly (ProcessView & { readonly waiters: number })[]
  readonly progress: unknown
  /** One sentence: what it waits for. */
  readonly why: string
}

export interface ProcessView {
  readonly process: string
  readonly host: string
  readonly pid: number
}

export interface ServiceView {
  readonly name: string
  readonly processes: readonly (ProcessView & {
    readonly version: string
    readonly busy: number
    /** Null: no limit. */
    readonly capacity: number | null
    readonly left: number
    readonly since: number
  })[]
}
