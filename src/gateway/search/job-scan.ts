import type { JobStatus, RedisQueue } from '../../queue/index.ts'
import { textOf } from '../http/json.ts'

/** States of jobs, in the order in which they are searched. */
export const STATES = ['active', 'waiting', 'delayed', 'failed', 'completed'] as const

export type SearchedState = (typeof STATES)[number]

/** Jobs that are read at once, at first and at most. */
const FIRST_STEP = 4
const MAX_STEP = 20

/** Characters of payloads that should be read at once: the number of jobs follows from the payloads that were read before. */
const STEP_LENGTH = 1024 * 1024

/** Which jobs are looked for. */
export interface JobFilter {
  readonly states: readonly SearchedState[]
  readonly command: string | undefined
  /** Stands in the payload, in letters of either case. */
  readonly text: string | undefined
}

/** Where a scan stands: in which of its states, and how many jobs of that were passed. */
export interface ScanPosition {
  readonly state: number
  readonly offset: number
}

/** How much one scan may find and read at most. */
export interface ScanBounds {
  readonly found: number
  readonly scanned: number
  /** Characters of the payloads. */
  readonly length: number
}

/** What a scan has found. */
export interface ScanResult<T> {
  readonly jobs: readonly T[]
  readonly scanned: number
  /** Where the next scan goes on; undefined: all jobs were read. */
  readonly next: ScanPosition | undefined
}

/**
 * Reads the jobs of a queue in the states of the filter, and returns what `keep` makes of those that it matches. Jobs that change their state
 * meanwhile may be left out, or found twice.
 */
export async function scanJobs<T>(
  queue: RedisQueue,
  { states, command, text }: JobFilter,
  from: ScanPosition,
  bounds: ScanBounds,
  keep: (job: JobStatus) => T,
  signal: AbortSignal,
): Promise<ScanResult<T>> {
  const needle = text?.toLowerCase()
  const jobs: T[] = []
  let { state: at, offset } = from
  let scanned = 0
  let length = 0
  let step = FIRST_STEP
  while (at < states.length) {
    const isFull = jobs.length >= bounds.found || scanned >= bounds.scanned || length >= bounds.length
    if (isFull || signal.aborted) return { jobs, scanned, next: { state: at, offset } }
    // No page has more jobs than there is room for: the next scan begins behind it.
    const limit = Math.min(step, bounds.found - jobs.length, bounds.scanned - scanned)
    const page = await queue.jobs(states[at] as SearchedState, { limit, cursor: String(offset) })
    let read = 0
    for (const job of page.jobs) {
      const payload = textOf(job.payload)
      read += payload.length
      if (command !== undefined && job.command !== command) continue
      if (needle === undefined || payload.toLowerCase().includes(needle)) jobs.push(keep(job))
    }
    if (needle !== undefined) length += read
    step = stepFor(read / page.jobs.length)
    scanned += page.cursor === undefined ? page.jobs.length : Number(page.cursor) - offset
    offset = Number(page.cursor ?? 0)
    if (page.cursor === undefined) at++
  }
  return { jobs, scanned, next: undefined }
}

/** How many jobs to read at once whose payloads have this length. NaN: none was read. */
function stepFor(length: number): number {
  return Math.max(1, Math.min(MAX_STEP, Math.floor(STEP_LENGTH / (length || 1))))
}
