import { ClosedError, OverloadedError, type Ran, UnavailableError } from '../../errors.ts'
import type { TransientSet } from '../../kernel/collections.ts'
import type { AsyncContext, Deadlines } from '../../kernel/time.ts'
import type { CallMode } from '../messages.ts'
import type { Choice, ServicesContext } from '../options.ts'
import type { Calls } from './calls.ts'

/** What is called, and how. Durations are ms. */
export interface CallTerms {
  readonly service: string
  readonly event: string
  /** Encoded arguments. */
  readonly args: Buffer
  readonly mode: CallMode
  /** Of each try. */
  readonly timeout: number
  /** Infinity: until the deadline. */
  readonly tries: number
  /** Of all tries together. */
  readonly within: number
  /** For a first process. */
  readonly wait: number
  readonly choose: Choice
  readonly signal: AbortSignal | undefined
  readonly trace: string | undefined
  readonly onProgress: ((value: unknown) => void) | undefined
  /** Of the caller, for `onProgress`. */
  readonly context: AsyncContext | undefined
}

/** A call that is not over. */
export interface OpenCall {
  /** Rejects it with ClosedError: the Services object is closed. */
  close(): void
}

/** What calls need of the Services object. */
export interface CallingDeps extends ServicesContext {
  readonly calls: Calls
  readonly deadlines: Deadlines
  /** The calls that are not over. */
  readonly open: TransientSet<OpenCall>
  /** Calls `arrived` once when a process registers for the service. The returned function cancels that. */
  onArrival(service: string, arrived: () => void): () => void
}

/**
 * Whether a request of the store that has failed may have taken effect. A request that was sent, and waits to be sent again,
 * ends with ClosedError when the connection is closed.
 */
export function mayHaveHappened(error: Error): boolean {
  return error instanceof UnavailableError ? error.sent : error instanceof ClosedError
}

/** The error of the store for a call: the same, but it says whether the handler has run. */
export function withRan(error: Error, info: { key: string; ran: Ran }): Error {
  const { message, cause } = error
  if (error instanceof UnavailableError)
    return new UnavailableError(message, {
      ...info,
      cause,
      lostConnections: error.lostConnections,
      sent: error.sent,
    })
  if (error instanceof OverloadedError) return new OverloadedError(message, info)
  return error instanceof ClosedError ? new ClosedError(message, info) : error
}
