import type { Counts } from './counts.ts'
import type { QueueTotals } from './totals.ts'

/** Commands that {@link QueueLoad} tells of at most. */
export const MAX_LOAD_COMMANDS = 100

/**
 * Most delayed jobs that are counted by command, most delayed and active jobs together, and most failed jobs. If there are more,
 * the numbers by command are left out: of active jobs also if there are too many delayed ones, as one index has both.
 */
export const MAX_LOAD_JOBS = 1_000

/** What a queue has to do, read in one step. Times in ms. */
export interface QueueLoad {
  readonly counts: Counts
  readonly totals: QueueTotals
  /** The paused commands; '' among them: all. */
  readonly paused: readonly string[]
  readonly commands: readonly CommandLoad[]
  /** Until the first delayed job falls due; undefined: none is delayed. */
  readonly dueIn: number | undefined
  /** Whether these are all commands, and every job is counted by its command. */
  readonly complete: boolean
}

/** What one command of a queue has to do. A number is undefined if there are too many jobs to count them: see {@link MAX_LOAD_JOBS}. */
export interface CommandLoad {
  readonly command: string
  readonly waiting: number
  readonly delayed: number | undefined
  readonly active: number | undefined
  readonly failed: number | undefined
  /** The job that runs next, and how long ago it was submitted. */
  readonly first: { readonly id: string; readonly age: number } | undefined
}
