import type { QueueOptions, SubmitOptions } from '../../src/index.ts'
import type { Address } from './daemon.ts'

/** What of the queue's options can be sent to another process, and what the process does with the queue. */
export type ChildQueueOptions = Omit<QueueOptions, 'redis' | 'store' | 'codec' | 'trace' | 'exposeError'> & {
  redis: Address
  /** Jobs of the command 'work' at once; without it, none. */
  concurrency?: number
  /** Of `close` at SIGTERM. @default 0 */
  grace?: number
  /** Tells nothing of attempts: for very many jobs. */
  quiet?: boolean
}

/** The payload of 'work': what its handler does. */
export interface Task {
  name: string
  /** It takes so long, ms. Without it, it goes on until `finish`. */
  ms?: number
  /** So many attempts fail. */
  fails?: number
  /** Keeps the event loop of the first that takes it from turning so long, ms. */
  blocks?: number
  /** Kills its process. */
  dies?: boolean
  /** Shows and logs its value at its end. */
  tells?: boolean
  /** The result; without it, `<pid>/<fence>`. */
  echo?: unknown
}

export type ChildSubmitOptions = Omit<SubmitOptions, 'signal' | 'onProgress'>

/** What happened, and when by the clock that all processes of a machine share (ms). */
export interface QueueEntry {
  at: number
  pid: number
  what: What
  /** Name of the task; its id where that is not known. */
  job: string
  id?: string
  /** Of what is asked: tells it apart. */
  op?: string
  /** Of what is asked: whether no other submission is the same. */
  single?: boolean
  /** Of what is asked: whether the outcome is waited for. */
  waits?: boolean
  generation?: number
  disposition?: string
  fence?: number
  attempt?: number
  stalls?: number
  /** Of what was accepted. */
  kind?: 'value' | 'error' | 'retry'
  value?: unknown
  /** Of a failure; of a job's own, that of the original. */
  code?: string
  done?: boolean
}

export const WHATS = [
  ...(['asked', 'acknowledged', 'refused', 'settled', 'progress'] as const),
  ...(['begun', 'fired', 'ended', 'accepted', 'lost', 'stalled'] as const),
  ...(['cancelling', 'cancelled', 'paused', 'resumed', 'killed'] as const),
]

export type What = (typeof WHATS)[number]

/** What is known of a job that was handed in. */
export interface Handed {
  id: string
  op: string
  generation: number
  disposition: string | undefined
}
