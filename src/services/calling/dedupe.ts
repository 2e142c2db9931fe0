import {
  AbortedError,
  BusyError,
  ClosedError,
  CodecError,
  DeadlockError,
  NoServiceError,
  OverloadedError,
  ProcessLostError,
  type Ran,
  RemoteError,
  type RemoteFailure,
  SoloflightError,
  type SoloflightErrorOptions,
  TimeoutError,
  UnavailableError,
  UnknownEventError,
} from '../../errors.ts'
import { encodeFailure, remoteError } from '../../kernel/codec/failure.ts'
import { digestOf } from '../../kernel/keys.ts'
import type { Locker } from '../../locker/index.ts'
import type { CallingDeps, CallTerms } from './call-terms.ts'
import { OutgoingCall } from './outgoing-call.ts'

/** What shared runs need of the Services object. */
export interface DedupeDeps extends CallingDeps {
  /** The locker by which identical calls share one run. */
  locker(): Locker
}

/** What makes calls identical; without a `key`, their arguments. `ttl`: for how long the result is kept, ms. */
export interface Sharing {
  readonly key: string | undefined
  readonly ttl: number
}

/** Calls an event, once for all identical calls in all processes. */
export async function shareRun(terms: CallTerms, { key, ttl }: Sharing, deps: DedupeDeps): Promise<unknown> {
  const { service, event, args, timeout, tries, wait, within, signal, onProgress } = terms
  const identity = key === undefined ? `=${digestOf(args.toString('latin1'))}` : `#${key}`
  const run = deps.locker().run(
    `services/${JSON.stringify([service, event])}${identity}`,
    (work) => {
      // Others may wait for longer than this caller. The signal aborts when nobody waits any more.
      const patience = tries === 1 ? Math.max(timeout, deps.options.timeout) : timeout
      const bounds = { timeout: patience, within: Number.POSITIVE_INFINITY }
      const shared = { ...terms, ...bounds, signal: work.signal, onProgress: work.progress }
      return new OutgoingCall(shared, deps).promise
    },
    {
      ttl,
      abortUnwanted: true,
      timeout: Math.min(within, wait + timeOfTries(timeout, tries)),
      ...(signal && { signal }),
      ...(onProgress && { onProgress }),
    },
  )
  return run.catch((error) => {
    throw callError(error, event)
  })
}

/** How long all tries may take together, ms. Without an end of the tries, even those that take no time have none. */
function timeOfTries(timeout: number, tries: number): number {
  return tries === Number.POSITIVE_INFINITY ? tries : timeout * tries
}

/** The errors of a call, and of the wait for one, by their codes. */
const ERRORS: Record<string, new (message: string, options: SoloflightErrorOptions) => SoloflightError> = {
  E_NO_SERVICE: NoServiceError,
  E_BUSY: BusyError,
  E_UNKNOWN_EVENT: UnknownEventError,
  E_PROCESS_LOST: ProcessLostError,
  E_TIMEOUT: TimeoutError,
  E_ABORTED: AbortedError,
  E_UNAVAILABLE: UnavailableError,
  E_OVERLOADED: OverloadedError,
  E_CLOSED: ClosedError,
  E_CODEC: CodecError,
  E_DEADLOCK: DeadlockError,
}

/** The error of a shared run, as the call itself would have failed. */
function callError(error: unknown, event: string): unknown {
  if (!(error instanceof SoloflightError)) return error
  if (!(error instanceof RemoteError)) {
    // The wait for the run has failed.
    const { code, message } = error
    return made(code, message, { key: event, ran: 'maybe', cause: error.cause }) ?? error
  }
  // The call was made by this process.
  const { cause } = error
  if (cause instanceof SoloflightError && (cause.ran === 'maybe' || cause.ran === 'yes')) return cause
  const { code, message, fields } = error.remote
  const { remote, ran } = (fields ?? {}) as { remote?: RemoteFailure; ran?: unknown }
  if (code === 'E_REMOTE' && remote) return remoteError(encodeFailure(remote), event, undefined, 'yes')
  return made(code, message, { key: event, ran: ranOf(ran) }) ?? error
}

function made(
  code: string | number | undefined,
  message: string,
  options: SoloflightErrorOptions,
): SoloflightError | undefined {
  const type = code !== undefined && Object.hasOwn(ERRORS, code) ? ERRORS[code] : undefined
  return type && new type(message, options)
}

/** A process may have begun the run, and died or closed, before the one whose call has failed: 'no' is not certain. */
function ranOf(value: unknown): Ran {
  return value === 'yes' ? value : 'maybe'
}
