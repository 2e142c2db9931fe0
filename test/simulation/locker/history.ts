import { type Ending, History, type Moment } from '../history.ts'

/** One call of `run` or `request`. */
export interface CallRecord {
  id: number
  process: number
  key: string
  begun: Moment
  /** The server's time at the same moment. */
  serverNow: number
  refresh: boolean
  strict: boolean
  local: boolean
  takeover: boolean
  /** Accepted staleness, ms; and the wait after which any stale value is accepted. */
  staleWhileRevalidate: number
  staleIfError: number
  softTimeout: number
  /** When it must be settled: its timeout, its abort, or the end of `close`. */
  deadline: number
  ended: (Moment & { ending: Ending }) | undefined
}

/** A work, or a lease held by a caller of `request`. */
export interface WorkRecord {
  process: number
  key: string
  fence: number
  shared: boolean
  begun: Moment
  /** When its signal aborted. */
  aborted: Moment | undefined
  ended: Moment | undefined
  /** Whether callers of its process are told of its failure, also if it cannot be published. */
  failed: boolean
  /** What it published or failed with, shared or not. */
  identities: string[]
}

/** A grant that the store made. */
export interface GrantRecord extends Moment {
  key: string
  fence: number
  token: string
  process: number
  lease: number
  takeover: boolean
  /** When the reply reached the process. */
  delivered: Moment | undefined
  /** When the process sent its release. */
  returned: Moment | undefined
  /** When the process first sent its settlement, and when it received the reply. */
  settling: Moment | undefined
  settled: Moment | undefined
  /** When it was settled or released in the store. */
  over: Moment | undefined
}

/** A value or failure that the store accepted. */
export interface Acceptance extends Moment {
  key: string
  fence: number
  kind: 'value' | 'error'
  /** Whether it is also for callers that did not wait for it. */
  kept: boolean
  identity: string
  ttl: number
  /** How long it is kept as stale, ms; names of its tags. */
  stale: number
  tags: string[]
  serverNow: number
}

/** A call of `invalidate`, or of `invalidateTags`. */
export interface Invalidation {
  process: number
  /** A key or a tag. */
  what: 'key' | 'tag'
  key: string
  begun: Moment
  /** When it first took effect in the store. */
  effect: Moment | undefined
  acknowledged: Moment | undefined
}

/** All events of a run. */
export class LockerHistory extends History {
  readonly calls: CallRecord[] = []
  readonly works: WorkRecord[] = []
  readonly grants: GrantRecord[] = []
  readonly acceptances: Acceptance[] = []
  readonly invalidations: Invalidation[] = []
  /** When all records were lost, or the server's clock was set. */
  readonly disasters: Moment[] = []
  /** An excused fence was granted twice: fences do not identify grants any more. */
  repeats = false
}
