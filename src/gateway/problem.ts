import type * as errors from '../errors.ts'
import { type Ran, RemoteError, type RemoteFailure, SoloflightError, UnavailableError } from '../errors.ts'
import { reportHookError } from '../kernel/hooks.ts'
import { Answer } from './http/answer.ts'

/** What an answer says of a failure beside its status and its text. */
export interface ProblemOptions {
  /** A sentence about this occurrence. */
  detail?: string | undefined
  /** The job that it concerns. */
  id?: string | undefined
  /** The failure of a job or of a computation, as data. */
  failure?: RemoteFailure | undefined
  /** Of a call to a service: whether its handler has run. */
  ran?: Ran | undefined
  /** The request may have taken effect: the answer does not ask for it again. */
  mayHaveHappened?: boolean | undefined
  headers?: Readonly<Record<string, string>> | undefined
  cause?: unknown
}

/** Statuses of requests that may be made again, a little later. */
const REPEATABLE = [429, 503]

/** Seconds until then. */
const RETRY_AFTER = { 'retry-after': '1' }

/**
 * A failure that is answered as `application/problem+json` (RFC 9457). `error` is one of a fixed set of short texts, in lower
 * case: it is presque's `error`, and `type` and `title` follow from it.
 */
export class Problem extends Error {
  override readonly name = 'Problem'
  readonly status: number
  readonly error: string
  readonly detail: string | undefined
  readonly id: string | undefined
  readonly failure: RemoteFailure | undefined
  readonly ran: Ran | undefined
  readonly mayHaveHappened: boolean
  readonly headers: Readonly<Record<string, string>>

  constructor(status: number, error: string, options: ProblemOptions = {}) {
    super(error, options.cause === undefined ? undefined : { cause: options.cause })
    this.status = status
    this.error = error
    this.detail = options.detail
    this.id = options.id
    this.failure = options.failure
    this.ran = options.ran
    this.mayHaveHappened = options.mayHaveHappened ?? false
    const isRepeatable = REPEATABLE.includes(status) && !this.mayHaveHappened
    this.headers = isRepeatable ? { ...RETRY_AFTER, ...options.headers } : (options.headers ?? {})
  }

  /** The same, about a job. */
  about(id: string | undefined): Problem {
    const { status, error, detail, failure, ran, mayHaveHappened, headers, cause } = this
    return new Problem(status, error, { detail, id, failure, ran, mayHaveHappened, headers, cause })
  }

  /** The answer to the client. */
  toAnswer(): Answer {
    const headers = { ...this.headers, 'content-type': 'application/problem+json' }
    return new Answer(this.status, headers, JSON.stringify(this))
  }

  /** The members of the answer. */
  toJSON(): Record<string, unknown> {
    const { status, error, detail, id, failure, ran } = this
    const type = `urn:soloflight:problem:${error.replace(/[^a-z0-9]+/g, '-')}`
    const title = error.charAt(0).toUpperCase() + error.slice(1)
    return { type, title, status, detail, id, error, failure, ran }
  }
}

interface Row {
  status: number
  error: string
  /** Whether clients are given the message of the error. Other messages may name addresses and keys of this side. */
  tells?: true
}

type Errors = typeof errors

/** The codes of all errors of the library. */
type ErrorCode = {
  [Name in keyof Errors]: Errors[Name] extends new (
    ...args: never[]
  ) => { readonly code: infer Code }
    ? string extends Code
      ? never
      : Code & string
    : never
}[keyof Errors]

/** The answer to each error of the library, by its code. TypeScript says so if one is missing. */
const ROWS: Readonly<Record<ErrorCode, Row>> = {
  E_TIMEOUT: { status: 504, error: 'timeout' },
  E_ABORTED: { status: 503, error: 'aborted' },
  E_CLOSED: { status: 503, error: 'gateway is closing' },
  E_UNAVAILABLE: { status: 503, error: 'store is unavailable' },
  E_OVERLOADED: { status: 503, error: 'overloaded' },
  E_NOT_LOCKED: { status: 409, error: 'not locked' },
  E_LEASE_LOST: { status: 409, error: 'lease lost' },
  E_LOCK_TIMEOUT: { status: 504, error: 'lock timeout' },
  E_CODEC: { status: 500, error: 'unreadable value' },
  E_DEADLOCK: { status: 409, error: 'deadlock', tells: true },
  E_REMOVED: { status: 410, error: 'job was removed' },
  E_CONFLICT: { status: 409, error: 'job already exists' },
  E_UNKNOWN_COMMAND: { status: 404, error: 'no worker for the command', tells: true },
  E_STREAM_INTERRUPTED: { status: 409, error: 'stream interrupted' },
  E_DUPLICATE_WORKER: { status: 409, error: 'command is processed already' },
  E_TOO_LARGE: { status: 413, error: 'too large', tells: true },
  E_NO_SERVICE: { status: 404, error: 'no service', tells: true },
  E_BUSY: { status: 429, error: 'busy', tells: true },
  E_UNKNOWN_EVENT: { status: 404, error: 'unknown event', tells: true },
  E_PROCESS_LOST: { status: 502, error: 'process lost' },
  E_DUPLICATE_HANDLER: { status: 409, error: 'handler exists already' },
  E_QUEUE_FULL: { status: 429, error: 'queue is full' },
  E_NOT_ATTACHED: { status: 409, error: 'not attached' },
  E_ALREADY_ATTACHED: { status: 409, error: 'attached already' },
  E_REMOTE: { status: 500, error: 'remote', tells: true },
}

/**
 * The answer to anything that was thrown: a Problem as it is, an error of the library by its code. Undefined for everything
 * else: that is a fault of the gateway, whose text may not leave it.
 */
export function problemOf(thrown: unknown): Problem | undefined {
  if (thrown instanceof Problem) return thrown
  if (!(thrown instanceof SoloflightError)) return undefined
  const row = (ROWS as Readonly<Record<string, Row | undefined>>)[thrown.code]
  if (!row) return undefined
  // It must not be made again as if nothing had happened.
  const mayHaveHappened = thrown instanceof UnavailableError && thrown.sent
  const detail = row.tells ? thrown.message : mayHaveHappened ? 'It may have taken effect' : undefined
  return new Problem(row.status, row.error, {
    detail,
    failure: thrown instanceof RemoteError ? thrown.remote : undefined,
    ran: thrown.ran,
    mayHaveHappened: mayHaveHappened || (thrown.ran !== undefined && thrown.ran !== 'no'),
    cause: thrown,
  })
}

/** The answer to a fault of the gateway. */
export function internalProblem(): Problem {
  return new Problem(500, 'internal error')
}

/** The answer to anything that was thrown. A fault of the gateway is reported here, and told to nobody else. */
export function answerTo(error: unknown): Answer {
  const problem = problemOf(error)
  if (problem) return problem.toAnswer()
  reportHookError('gateway', error)
  return internalProblem().toAnswer()
}
