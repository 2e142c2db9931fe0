import {
  AbortedError,
  AlreadyAttachedError,
  ClosedError,
  CodecError,
  LeaseLostError,
  NotAttachedError,
  OverloadedError,
  QueueFullError,
  SoloflightError,
  type SoloflightErrorOptions,
  TimeoutError,
  TooLargeError,
  UnavailableError,
} from '../../errors.ts'

/** A problem of the gateway, as it stands in a reply. */
export interface RemoteProblem {
  readonly status?: number
  readonly error?: string
  readonly detail?: string
  /** Of the error of the library that it stands for. */
  readonly code?: string
}

const CLASSES: Readonly<Record<string, new (message: string, options?: SoloflightErrorOptions) => Error>> = {
  E_ABORTED: AbortedError,
  E_ALREADY_ATTACHED: AlreadyAttachedError,
  E_CLOSED: ClosedError,
  E_CODEC: CodecError,
  E_LEASE_LOST: LeaseLostError,
  E_NOT_ATTACHED: NotAttachedError,
  E_OVERLOADED: OverloadedError,
  E_QUEUE_FULL: QueueFullError,
  E_TIMEOUT: TimeoutError,
  E_TOO_LARGE: TooLargeError,
  E_UNAVAILABLE: UnavailableError,
}

/**
 * Whether the answer to the first message refuses the client for good: its token, or what it has said. Otherwise the gateway
 * cannot serve it now, as one that closes or has too much to do, and is asked again.
 */
export function isRefusal({ status = 500 }: RemoteProblem): boolean {
  return status >= 400 && status < 500 && status !== 408 && status !== 429
}

/** The error of a problem: of the class that a bus on Redis would throw, if there is one. */
export function errorOf({ status, error, detail, code }: RemoteProblem, key: string): Error {
  const message = `The gateway answers: ${error ?? status}${detail ? ` (${detail})` : ''}`
  const Class = Object.hasOwn(CLASSES, code ?? '') ? CLASSES[code ?? ''] : undefined
  if (Class) return new Class(message, { key })
  return status === 400 ? new TypeError(message) : new SoloflightError(message, { key })
}
