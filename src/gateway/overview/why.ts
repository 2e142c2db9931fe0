import { shown } from '../../kernel/options.ts'
import type { ProcessView } from './overview.ts'

// One sentence for each queue, job and key: why it waits. Times are in ms.

/** What can run the jobs of one command. */
export interface WorkerCapacity {
  /** Workers that are connected, of any kind. */
  readonly workers: number
  /** Jobs that they run at once, and that they run now. */
  readonly capacity: number
  readonly busy: number
}

/** Why a job of a command does not start. */
export interface CommandSituation extends WorkerCapacity {
  readonly command: string
  readonly queuePaused: boolean
  readonly commandPaused: boolean
  /** Whether every process has answered. */
  readonly complete: boolean
}

/** Why the first job of a queue waits. */
export interface QueueSituation {
  /** Of the command whose job has waited longest; undefined: no job is ready. */
  readonly first: CommandSituation | undefined
  /** Until the first delayed job falls due; undefined: none is delayed. */
  readonly dueIn: number | undefined
  /** ms since the epoch. */
  readonly now: number
}

/** The process or client that runs a job, as far as it is known. */
export type JobHolder =
  | { readonly kind: 'process'; readonly process: ProcessView; readonly age: number }
  /** A client of a gateway, by the name that it gave itself. */
  | {
      readonly kind: 'client'
      readonly worker: string | undefined
      readonly age: number
      readonly left: number | undefined
    }
  | { readonly kind: 'unknown' }

/** The state of a job, and what it waits for in that state. */
export type JobSituation =
  | { readonly state: 'waiting'; readonly command: CommandSituation }
  | { readonly state: 'delayed'; readonly until: number; readonly now: number; readonly retries: number }
  | { readonly state: 'active'; readonly holder: JobHolder; readonly complete: boolean }
  | { readonly state: 'completed' | 'failed' | 'removed' }

/** The process or client that holds a key, as far as it is known. */
export type KeyHolder =
  | { readonly kind: 'process'; readonly process: ProcessView }
  /** A client of the gateway in this process: the lease is held by its token. */
  | { readonly kind: 'client'; readonly process: ProcessView }
  /** A process that shares its outcome with nobody. */
  | { readonly kind: 'alone'; readonly process: ProcessView }
  /** The store names it, and it has not answered. */
  | { readonly kind: 'silent'; readonly process: ProcessView }
  | { readonly kind: 'none' }

/** What the waiters of a key wait for. */
export interface KeySituation {
  readonly key: string
  readonly holder: KeyHolder
  /** How long it has been held, or waited for. */
  readonly age: number
  /** Left of the lease; undefined: it is lost, or not known. */
  readonly left: number | undefined
  readonly waiters: number
}

/** Why the first job of a queue waits. Null if none does. */
export function whyQueue({ first, dueIn, now }: QueueSituation): string | null {
  if (first) return whyCommand(first)
  return dueIn === undefined ? null : delayedUntil(now + dueIn, now)
}

/** What a ready job of a command waits for. */
export function whyCommand(situation: CommandSituation): string {
  const { command, queuePaused, commandPaused, complete, capacity, busy, workers } = situation
  if (queuePaused) return 'The queue is paused.'
  if (commandPaused) return `The command ${shown(command)} is paused.`
  if (workers === 0 && complete) return `No worker is connected for command ${shown(command)}.`
  if (workers === 0)
    return `No worker is known for command ${shown(command)}: not every process has answered.`
  if (busy < capacity) return 'It is about to start: a worker has a free slot.'
  const slots = capacity === 1 ? 'The only slot' : `All ${capacity} slots`
  return `${slots} of its ${workers === 1 ? 'worker' : `${workers} workers`} ${capacity === 1 ? 'is' : 'are'} taken.`
}

/** What a job waits for, or what has become of it. */
export function whyJob(job: JobSituation): string {
  switch (job.state) {
    case 'waiting':
      return whyCommand(job.command)
    case 'delayed': {
      const until = delayedUntil(job.until, job.now)
      return job.retries === 0 ? until : `${until.slice(0, -1)}, after ${attempts(job.retries)} failed.`
    }
    case 'active':
      return whyRunning(job.holder, job.complete)
    case 'completed':
      return 'It is done.'
    case 'failed':
      return 'It has failed, and is not tried again.'
    case 'removed':
      return 'It was removed.'
  }
}

function attempts(count: number): string {
  return count === 1 ? 'an attempt has' : `${count} attempts have`
}

function whyRunning(holder: JobHolder, complete: boolean): string {
  switch (holder.kind) {
    case 'process':
      return `It has run in ${processText(holder.process)} for ${span(holder.age)}.`
    case 'client': {
      const who = holder.worker === undefined ? 'a client of a gateway' : `the worker ${shown(holder.worker)}`
      const left = holder.left === undefined ? '' : `; the lease ends in ${span(holder.left)}`
      return `It has been with ${who} for ${span(holder.age)}${left}.`
    }
    case 'unknown':
      if (!complete) return 'It runs in a process that has not answered.'
      return 'No process says that it runs it: unless it has just begun, another worker gets it when its lease ends.'
  }
}

/** What the waiters of a key wait for. */
export function whyKey({ key, holder, age, left, waiters }: KeySituation): string {
  const name = `Key ${shown(key)}`
  if (holder.kind === 'none')
    return `${name} is held by nobody: ${waiters === 1 ? 'one caller waits' : `${waiters} callers wait`} until somebody computes it.`
  const owner = processText(holder.process)
  const lease = left === undefined ? 'its lease is lost' : `its lease ends in ${span(left)}`
  switch (holder.kind) {
    case 'process':
      return `${name} is held by ${owner} for ${span(age)}; ${lease}.`
    case 'client':
      return `${name} is held by a client of the gateway of ${owner} for ${span(age)}; ${lease}.`
    case 'alone':
      return `${name} has been computed by ${owner} for ${span(age)}, for that process alone.`
    case 'silent':
      return `${name} is held by ${owner}, which does not answer; ${lease}, and a waiter replaces it then.`
  }
}

function processText({ pid, host }: ProcessView): string {
  return `pid ${pid} on host ${host}`
}

function delayedUntil(until: number, now: number): string {
  const [day, time = ''] = new Date(Math.ceil(until / 1000) * 1000).toISOString().split('T')
  const isToday = day === new Date(now).toISOString().split('T')[0]
  return `Delayed until ${isToday ? '' : `${day} `}${time.slice(0, 8)} UTC.`
}

/** A duration in ms as it is read. */
function span(ms: number): string {
  if (ms < 995) return `${(Math.max(0, ms) / 1000).toFixed(1)} s`
  if (ms < 120_000) return `${Math.round(ms / 1000)} s`
  return ms < 7_200_000 ? `${Math.round(ms / 60_000)} min` : `${Math.round(ms / 3_600_000)} h`
}
