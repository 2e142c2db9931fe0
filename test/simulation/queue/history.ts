import { type Ending, History, type Moment } from '../history.ts'

/** One call of `submit`, `enqueue` or `result`. */
export interface QueueCall {
  no: number
  process: number
  kind: 'submit' | 'enqueue' | 'result'
  id: string
  command: string
  /** Nonce of the submission behind the call; undefined if `generation` identifies it. */
  nonce: string | undefined
  generation: number
  conflict: boolean
  /** Its `conflict` is 'exclusive'. */
  isExclusive: boolean
  /** No other submission has its id. */
  single: boolean
  /** The job must go on when no waiter is left. */
  keeps: boolean
  begun: Moment
  /** Time by which it must be settled: by its timeout, its abort, or the end of `close`. */
  deadline: number
  ended: (Moment & { ending: Ending }) | undefined
}

/** One call of `take`. */
export interface TakeCall {
  no: number
  process: number
  command: string
  /** ms; 0: it does not wait. */
  wait: number
  /** Whether its signal aborts at some time. */
  aborts: boolean
  begun: Moment
  deadline: number
  /** The identity of a value is the id of the job; '': none. */
  ended: (Moment & { ending: Ending }) | undefined
}

/** The effect of one execution of a submission in the store. */
export interface SubmitEffect extends Moment {
  id: string
  status: string
  generation: number
}

/** A post that the store has made. */
export interface PostEffect extends Moment {
  key: string
  digest: string
  nonce: string
  generation: number
  ids: string[]
}

/** An attempt, from its delivery to its end. */
export interface AttemptRecord {
  id: string
  command: string
  generation: number
  fence: number
  process: number
  /** Whether it was given to a taker or to a worker of takers. */
  toTaker: boolean
  /** Whether a holder has it: whoever has the token ends it, in any process. */
  isHeld: boolean
  /** Its holder gives it back. */
  released: boolean
  granted: Moment
  begun: Moment | undefined
  aborted: Moment | undefined
  ended: Moment | undefined
  /** When and how it ended in the store. */
  over: (Moment & { how: string }) | undefined
  identity: string | undefined
}

/** An outcome that the store accepted. It is the outcome of all generations since the previous one. */
export interface OutcomeRecord extends Moment {
  id: string
  generation: number
  fence: number
  kind: 'value' | 'error' | 'removed'
  identity: string
}

/** Everything that happened in a run. */
export class QueueHistory extends History {
  readonly jobCalls: QueueCall[] = []
  readonly takes: TakeCall[] = []
  readonly effects: Map<string, SubmitEffect[]> = new Map()
  readonly posts: PostEffect[] = []
  readonly attempts: AttemptRecord[] = []
  readonly outcomes: OutcomeRecord[] = []
  /** Outcomes of jobs that were cancelled because no waiter was left. */
  readonly unwanted: OutcomeRecord[] = []
  /** Jobs that were retried by a call. */
  readonly retried: Set<string> = new Set()
  /** Moments at which all records were lost. */
  readonly wipes: Moment[] = []

  attempt(id: string, fence: number): AttemptRecord | undefined {
    return this.attempts.findLast((one) => one.id === id && one.fence === fence)
  }

  wipedSince(tick: number): boolean {
    return this.wipes.some((wipe) => wipe.tick > tick)
  }
}
