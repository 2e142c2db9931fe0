/** When something happened: the time, and its place in the order of everything. */
export interface Moment {
  at: number
  tick: number
}

/** What a call was settled with. Values and failures are known by what they say. */
export type Ending =
  | { kind: 'value'; identity: string }
  | { kind: 'lease'; fence: number; shared: boolean }
  | { kind: 'error'; code: string; identity: string }

/** One call of `run` or `request`. */
export interface CallRecord {
  id: number
  process: number
  key: string
  begun: Moment
  /** The time of the server at that moment. */
  serverNow: number
  refresh: boolean
  strict: boolean
  local: boolean
  takeover: boolean
  /** For how long a value may have been over, ms, and after which wait any will do that is kept. */
  staleWhileRevalidate: number
  staleIfError: number
  softTimeout: number
  /** By when it is to be settled: its timeout, its abort, the end of `close`. */
  deadline: number
  ended: (Moment & { ending: Ending }) | undefined
}

/** A work, or a lease in the hands of a caller. */
export interface WorkRecord {
  process: number
  key: string
  fence: number
  shared: boolean
  begun: Moment
  /** When its signal fired. */
  aborted: Moment | undefined
  ended: Moment | undefined
  /** What it published or failed with, in this process alone too. */
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
  /** When it was asked to be released by the process. */
  returned: Moment | undefined
  /** When the process first tried to settle it, and when it knew that it had. */
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
  /** Whether it is for others than those who waited for it. */
  kept: boolean
  identity: string
  ttl: number
  /** How long it is kept beyond that, ms, and names of its tags. */
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
  /** When it first had its effect. */
  effect: Moment | undefined
  acknowledged: Moment | undefined
}

/** A call of `close`. */
export interface ClosingRecord {
  process: number
  begun: Moment
  /** By when it is to be done. */
  deadline: number
  ended: Moment | undefined
}

/** Something that must not be. */
export interface Violation {
  /** The id of the guarantee that it breaks. */
  guarantee: string
  what: string
}

/** All that happened in a run. */
export class History {
  readonly calls: CallRecord[] = []
  readonly works: WorkRecord[] = []
  readonly grants: GrantRecord[] = []
  readonly acceptances: Acceptance[] = []
  readonly invalidations: Invalidation[] = []
  readonly closings: ClosingRecord[] = []
  /** Times when all records were lost, or the clock of the server was set. */
  readonly disasters: Moment[] = []
  /** A fence came twice, and that was excused: nothing can be told by fences any more. */
  repeats = false
  /** What was seen to be wrong while it happened. */
  readonly violations: Violation[] = []
  /** What happened, line by line, when it is to be shown. */
  readonly trace: string[] = []
  readonly #now: () => number
  readonly #traced: boolean
  #tick = 0

  constructor(now: () => number, traced: boolean) {
    this.#now = now
    this.#traced = traced
  }

  moment(): Moment {
    return { at: this.#now(), tick: ++this.#tick }
  }

  violate(guarantee: string, what: string): void {
    this.violations.push({ guarantee, what: `${what} (at ${this.#now().toFixed(1)})` })
    this.say(() => `!!! ${guarantee}: ${what}`)
  }

  /** Adds a line to the trace. */
  say(line: () => string): void {
    if (this.#traced) this.trace.push(`${this.#now().toFixed(3).padStart(10)}  ${line()}`)
  }
}

/** What a value is known by. */
export function identityOf(value: unknown): string {
  return JSON.stringify(value) ?? 'undefined'
}
