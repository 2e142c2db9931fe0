import { type Ending, History, type Moment } from '../locker/history.ts'

/** One call of `submit`, `enqueue` or `result`. */
export interface QueueCall {
  no: number
  process: number
  kind: 'submit' | 'enqueue' | 'result'
  id: string
  command: string
  /** Of the submission that it rests on; undefined when it is known by its generation. */
  nonce: string | undefined
  generation: number
  conflict: boolean
  /** Nothing else is ever handed in under its id. */
  single: boolean
  /** It does not want the job to end when nobody waits. */
  keeps: boolean
  begun: Moment
  /** By when it is to be settled: its timeout, its abort, the end of `close`. */
  deadline: number
  ended: (Moment & { ending: Ending }) | undefined
}

/** What the store said to a submission, every time that it ran there. */
export interface SubmitEffect extends Moment {
  id: string
  status: string
  generation: number
}

/** An attempt, as it was handed out and as its worker knew it. */
export interface AttemptRecord {
  id: string
  command: string
  generation: number
  fence: number
  process: number
  granted: Moment
  begun: Moment | undefined
  aborted: Moment | undefined
  ended: Moment | undefined
  /** When it was over in the store, and how. */
  over: (Moment & { how: string }) | undefined
  identity: string | undefined
}

/** An outcome that the store accepted. It is that of all generations above the one accepted before. */
export interface OutcomeRecord extends Moment {
  id: string
  generation: number
  fence: number
  kind: 'value' | 'error' | 'removed'
  identity: string
}

/** All that happened in a run. */
export class QueueHistory extends History {
  readonly jobCalls: QueueCall[] = []
  readonly effects: Map<string, SubmitEffect[]> = new Map()
  readonly attempts: AttemptRecord[] = []
  readonly outcomes: OutcomeRecord[] = []
  /** Those of jobs that were ended since nobody waited for them. */
  readonly unwanted: OutcomeRecord[] = []
  /** Jobs that were run once more by hand. */
  readonly retried: Set<string> = new Set()
  /** When all records were lost. */
  readonly wipes: Moment[] = []

  attempt(id: string, fence: number): AttemptRecord | undefined {
    return this.attempts.findLast((one) => one.id === id && one.fence === fence)
  }

  wipedSince(tick: number): boolean {
    return this.wipes.some((wipe) => wipe.tick > tick)
  }
}
