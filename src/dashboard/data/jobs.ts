import type { Filter, State } from '../router.ts'
import { type CallOptions, call, pathOf, Refusal } from './http.ts'
import { memberTexts } from './json-text.ts'

/** A failure, as the routes tell it. */
export interface Failure {
  readonly name?: string
  readonly message?: string
  readonly code?: string | number
  readonly stack?: string
}

/** A job, as the routes tell it. */
export interface JobView {
  readonly id: string
  readonly command: string
  readonly state: State | 'removed'
  readonly retries: number
  readonly stalls: number
  readonly waiters: number
  readonly progress?: unknown
  readonly failure?: Failure
  /** When its delay ends: seconds since 1970. */
  readonly due?: number
  readonly runner?: Runner
  /** Why it waits, or what has become of it, in one sentence. */
  readonly why: string
}

/** The process that runs a job. Times in seconds. */
export interface Runner {
  readonly host: string
  readonly pid: number
  /** The client that has taken it there, by the name that it gave itself. */
  readonly worker?: string
  readonly age: number
  readonly left?: number
}

/** A job with its texts as they were posted. */
export interface WholeJob extends JobView {
  /** JSON, byte for byte. */
  readonly job: string
  readonly result: string | undefined
}

export interface JobRow extends Omit<JobView, 'why' | 'runner'> {
  readonly job?: unknown
  /** Of a payload that is too long to be listed, in characters. */
  readonly length?: number
}

export interface JobPage {
  readonly jobs: readonly JobRow[]
  /** Undefined: there are no more. */
  readonly cursor?: string | null
  /** Jobs that were looked at for this page. */
  readonly scanned: number
}

export async function listJobs(
  queue: string,
  filter: Filter,
  cursor: string | undefined,
  limit: number,
  signal: AbortSignal,
): Promise<JobPage> {
  const params = { ...paramsOf(filter), cursor, limit }
  return JSON.parse(await call('GET', ['jobs', queue], { params, signal })) as JobPage
}

function paramsOf({ state, command, text }: Filter) {
  return { state, command: command || undefined, text: text || undefined }
}

export type Action = 'retry' | 'remove' | 'cancel'

export interface Matching {
  readonly matched: number
  /** False: there may be more, which are left for the next time. */
  readonly complete: boolean
}

/** How many jobs match. */
export async function countAll(queue: string, action: Action, filter: Filter): Promise<Matching> {
  return JSON.parse(
    await call('POST', ['jobs', queue, action], { params: { ...paramsOf(filter), dry: 1 } }),
  ) as Matching
}

export interface Done {
  readonly done: number
  readonly failed: number
}

/** Acts on all jobs that match. Refused if they are not as many as `expect`. */
export async function actOnAll(queue: string, action: Action, filter: Filter, expect: number): Promise<Done> {
  return JSON.parse(
    await call('POST', ['jobs', queue, action], { params: { ...paramsOf(filter), expect } }),
  ) as Done
}

/** @throws Refusal 404 if there is no such job */
export async function readJob(queue: string, id: string, signal?: AbortSignal): Promise<WholeJob> {
  const text = await call('GET', ['j', queue, id], { signal })
  const texts = memberTexts(text)
  return { ...(JSON.parse(text) as JobView), job: texts.get('job') ?? '', result: texts.get('result') }
}

export async function readLog(queue: string, id: string, signal?: AbortSignal): Promise<readonly string[]> {
  const { log } = JSON.parse(await call('GET', ['j', queue, id, 'log'], { signal })) as { log: string[] }
  return log
}

/** What happens to a job within such a time is told together, ms. */
const TOGETHER = 200

/** Calls `onChange` when something has happened to a job, until it has finished or the returned function is called. */
export function watchJob(queue: string, id: string, onChange: () => void): () => void {
  const source = new EventSource(pathOf(['j', queue, id, 'events']))
  let isTold = true
  const tellLater = () => {
    if (isTold) setTimeout(tell, TOGETHER)
    isTold = false
  }
  const tell = () => {
    isTold = true
    onChange()
  }
  for (const event of ['state', 'progress', 'log', 'end']) source.addEventListener(event, tellLater)
  source.addEventListener('end', () => source.close())
  return () => source.close()
}

export async function actOnJob(queue: string, id: string, action: Action): Promise<void> {
  if (action === 'remove') await call('DELETE', ['j', queue, id])
  else await call('POST', ['j', queue, id, action])
}

export async function setPaused(queue: string, isPaused: boolean): Promise<void> {
  await call('POST', ['control', queue], { body: JSON.stringify({ status: isPaused ? 'stop' : 'start' }) })
}

/** Posts a job, and returns its id. */
export async function postJob(queue: string, options: CallOptions): Promise<string> {
  const { id } = JSON.parse(await call('POST', ['q', queue], options)) as { id: string }
  return id
}

/** Queues that are asked at once for a job. */
const AT_ONCE = 6

/** The first of these queues that has the job. */
export async function findJob(queues: readonly string[], id: string): Promise<string | undefined> {
  for (let at = 0; at < queues.length; at += AT_ONCE) {
    const some = queues.slice(at, at + AT_ONCE)
    const found = await Promise.all(some.map((queue) => hasJob(queue, id)))
    const queue = some.find((_, index) => found[index])
    if (queue !== undefined) return queue
  }
  return undefined
}

async function hasJob(queue: string, id: string): Promise<boolean> {
  try {
    await call('GET', ['j', queue, id, 'log'])
    return true
  } catch (error) {
    if (error instanceof Refusal && error.status === 404) return false
    throw error
  }
}
