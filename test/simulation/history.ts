import { SoloflightError } from '../../src/errors.ts'

/** When an event happened: the time, and its position in the order of all events. */
export interface Moment {
  at: number
  tick: number
}

/** The result of a call. Values and failures are identified by their content. */
export type Ending =
  | { kind: 'value'; identity: string }
  /** Of `request`. */
  | { kind: 'lease'; fence: number; shared: boolean }
  | { kind: 'error'; code: string; identity: string }

/** A call of `close`. */
export interface ClosingRecord {
  process: number
  begun: Moment
  /** When it must be done. */
  deadline: number
  ended: Moment | undefined
}

/** A violation of a guarantee. */
export interface Violation {
  /** The id of the guarantee. */
  guarantee: string
  what: string
}

/** The events that runs of the Locker and of the queue have in common, and the trace. */
export class History {
  readonly closings: ClosingRecord[] = []
  /** Violations that were found during the run. */
  readonly violations: Violation[] = []
  /** The trace, if it is wanted. */
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

/** What a rejected call is identified by. */
export function endingOf(error: unknown): Ending {
  if (error instanceof SoloflightError) return { kind: 'error', code: error.code, identity: error.message }
  const identity = error instanceof Error ? `${error.stack}` : String(error)
  return { kind: 'error', code: 'E_FOREIGN', identity }
}

/** The identity of a value. */
export function identityOf(value: unknown): string {
  return JSON.stringify(value) ?? 'undefined'
}
