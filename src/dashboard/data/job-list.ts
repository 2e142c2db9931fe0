import type { Filter } from '../router.ts'
import { reasonOf } from './http.ts'
import { type JobRow, listJobs } from './jobs.ts'
import { noticeRefusal } from './session.ts'
import { Signal } from './signal.ts'

/** Jobs of one page. */
const PAGE = 25
/** Jobs that a list holds at most: a filter finds the others. */
const MOST = 500

/** The jobs of a queue that match a filter, as far as they have been read. */
export interface JobListState {
  readonly jobs: readonly JobRow[]
  /** Jobs that were looked at. */
  readonly scanned: number
  /** Where to go on; undefined if all were looked at. */
  readonly cursor: string | undefined
  readonly status: 'reading' | 'resting' | { readonly failed: string }
}

const EMPTY: JobListState = { jobs: [], scanned: 0, cursor: undefined, status: 'reading' }

/**
 * Reads a list page by page. A search by text looks at a bounded number of jobs in each request, so that it asks again until a
 * page is full or it is stopped.
 */
export class JobList {
  readonly state: Signal<JobListState> = new Signal(EMPTY)
  readonly #queue: string
  readonly #filter: Filter
  #reading = new AbortController()

  constructor(queue: string, filter: Filter) {
    this.#queue = queue
    this.#filter = filter
  }

  get isFull(): boolean {
    return this.state.value.jobs.length >= MOST
  }

  /** Reads the first page anew. What is shown stays until it is there. */
  refresh(): Promise<void> {
    return this.#read(EMPTY, PAGE)
  }

  /** Reads one more page. */
  more(): Promise<void> {
    return this.#read(this.state.value, PAGE)
  }

  stop(): void {
    this.#reading.abort()
    if (this.state.value.status === 'reading') this.state.value = { ...this.state.value, status: 'resting' }
  }

  async #read(from: JobListState, wanted: number): Promise<void> {
    this.#reading.abort()
    const reading = new AbortController()
    this.#reading = reading
    const isSearch = this.#filter.text !== ''
    let { jobs, scanned, cursor } = from
    const enough = Math.min(MOST, jobs.length + wanted)
    if (isSearch || jobs.length === 0)
      this.state.value = { ...(jobs.length > 0 ? from : this.state.value), status: 'reading' }
    try {
      do {
        const limit = Math.min(PAGE, enough - jobs.length)
        const page = await listJobs(this.#queue, this.#filter, cursor, limit, reading.signal)
        const known = new Set(jobs.map(({ id }) => id))
        jobs = [...jobs, ...page.jobs.filter(({ id }) => !known.has(id))]
        scanned += page.scanned
        cursor = page.cursor ?? undefined
        const isDone = cursor === undefined || jobs.length >= enough
        this.state.value = { jobs, scanned, cursor, status: isDone ? 'resting' : 'reading' }
      } while (cursor !== undefined && jobs.length < enough && !reading.signal.aborted)
    } catch (error) {
      if (reading.signal.aborted) return
      noticeRefusal(error)
      this.state.value = { ...this.state.value, status: { failed: reasonOf(error) } }
    }
  }
}
