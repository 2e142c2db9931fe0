/**
 * One class per failure, each with a stable `code`. All errors of the library extend {@link SoloflightError}, except that
 * invalid arguments throw the built-in `TypeError`.
 */

import { masked } from './secrets.ts'

/**
 * Whether the handler of a call has run: no, perhaps, or yes. 'no' is certain: the call may be repeated. After 'maybe', another
 * run may be the second one.
 */
export type Ran = 'no' | 'maybe' | 'yes'

/** Options of the constructor of an error. */
export interface SoloflightErrorOptions {
  /** The resource key that the error concerns, if any. */
  key?: string | undefined
  /** Whether the handler has run, for errors of a call to a service. */
  ran?: Ran | undefined
  /** The cause. The error of a Redis client is a copy of its name, message and code. */
  cause?: unknown
}

/** The base class of all errors of the library. Programs should compare `code`, which is stable; `message` may change. */
export class SoloflightError extends Error {
  /** Stable, `E_…`. */
  readonly code: string = 'E_SOLOFLIGHT'
  /** The name of the class, as a literal: a bundler may rename the class. */
  override readonly name: string = 'SoloflightError'
  /** The resource key that the error concerns, if any. */
  readonly key: string | undefined
  /** Whether the handler has run; present if the error is that of a call to a service. */
  declare readonly ran?: Ran

  constructor(message: string, options: SoloflightErrorOptions = {}) {
    super(masked(message), options.cause === undefined ? undefined : { cause: options.cause })
    this.key = options.key
    if (options.ran !== undefined) this.ran = options.ran
  }
}

/** Thrown when the `timeout` of a waiter has passed before the outcome. The work goes on. */
export class TimeoutError extends SoloflightError {
  override readonly code = 'E_TIMEOUT'
  override readonly name = 'TimeoutError'
}

/** Thrown when the `signal` of a waiter was aborted; `cause` is the reason of the signal. */
export class AbortedError extends SoloflightError {
  override readonly code = 'E_ABORTED'
  override readonly name = 'AbortedError'
}

/** Thrown when the locker, queue, Services object, bus or connection was closed, or a queue or channel of a bus has ended. */
export class ClosedError extends SoloflightError {
  override readonly code = 'E_CLOSED'
  override readonly name = 'ClosedError'
}

/** Thrown when Redis did not reply within `unavailableAfter`, or replied with an error, which is the `cause`. */
export class UnavailableError extends SoloflightError {
  override readonly code = 'E_UNAVAILABLE'
  override readonly name = 'UnavailableError'
  /**
   * Above 0 if this many connections ended one after the other while the command or its reply was being sent: it may be larger
   * than the limit of the connection. 0 otherwise.
   */
  readonly lostConnections: number
  /** False if the command was certainly not executed: it was never sent. */
  readonly sent: boolean

  constructor(
    message: string,
    options: SoloflightErrorOptions & {
      lostConnections?: number | undefined
      sent?: boolean | undefined
    } = {},
  ) {
    super(message, options)
    this.lostConnections = options.lostConnections ?? 0
    this.sent = options.sent ?? true
  }
}

/** Thrown by `locker.publish` when this locker holds no lease, or more than one, for the key. */
export class NotLockedError extends SoloflightError {
  override readonly code = 'E_NOT_LOCKED'
  override readonly name = 'NotLockedError'
}

/**
 * Thrown when a lease was superseded, released or settled, or has expired beyond its grace: its holder cannot publish. Of an
 * `ack`: the message is delivered again.
 */
export class LeaseLostError extends SoloflightError {
  override readonly code = 'E_LEASE_LOST'
  override readonly name = 'LeaseLostError'
}

/** Thrown to waiters, only with `takeover: false`, if the processor has died or its lease has ended at `maxHold`. */
export class LockTimeoutError extends SoloflightError {
  override readonly code = 'E_LOCK_TIMEOUT'
  override readonly name = 'LockTimeoutError'
}

/** Thrown when a value cannot be encoded without change; the message names the path of the part concerned. */
export class CodecError extends SoloflightError {
  override readonly code = 'E_CODEC'
  override readonly name = 'CodecError'
}

/**
 * Thrown when a limit is reached: waiters parked on one key, commands or messages that wait for Redis, waiters in this process,
 * bytes of a memory store, `maxUnshared`.
 */
export class OverloadedError extends SoloflightError {
  override readonly code = 'E_OVERLOADED'
  override readonly name = 'OverloadedError'
}

/** Thrown when a work waits, directly or through other works of this process, for the key that it computes. */
export class DeadlockError extends SoloflightError {
  override readonly code = 'E_DEADLOCK'
  override readonly name = 'DeadlockError'
}

/** Thrown to waiters of a job that was removed, or that the store does not know. */
export class RemovedError extends SoloflightError {
  override readonly code = 'E_REMOVED'
  override readonly name = 'RemovedError'
}

/**
 * Thrown when a job is submitted under the key of another job with a different payload; with `conflict: 'exclusive'`, of any job
 * that waits.
 */
export class ConflictError extends SoloflightError {
  override readonly code = 'E_CONFLICT'
  override readonly name = 'ConflictError'
}

/** Thrown, with `unknownCommands: 'refuse'`, if no known worker processes the command. */
export class UnknownCommandError extends SoloflightError {
  override readonly code = 'E_UNKNOWN_COMMAND'
  override readonly name = 'UnknownCommandError'
}

/** Thrown to a reader that has received chunks when its producer has died, or the next chunks are no longer retained. */
export class StreamInterruptedError extends SoloflightError {
  override readonly code = 'E_STREAM_INTERRUPTED'
  override readonly name = 'StreamInterruptedError'
}

/** Thrown when a queue already processes the command in this process. */
export class DuplicateWorkerError extends SoloflightError {
  override readonly code = 'E_DUPLICATE_WORKER'
  override readonly name = 'DuplicateWorkerError'
}

/** Thrown when a payload exceeds `maxPayload`, or arguments, a message, a setting or a property exceed `maxMessage`. */
export class TooLargeError extends SoloflightError {
  override readonly code = 'E_TOO_LARGE'
  override readonly name = 'TooLargeError'
}

/** Thrown if no process serves the service. */
export class NoServiceError extends SoloflightError {
  override readonly code = 'E_NO_SERVICE'
  override readonly name = 'NoServiceError'
}

/** Thrown if all processes of the service are full, their backlogs included. */
export class BusyError extends SoloflightError {
  override readonly code = 'E_BUSY'
  override readonly name = 'BusyError'
}

/** Thrown if the called process has no handler for the event. */
export class UnknownEventError extends SoloflightError {
  override readonly code = 'E_UNKNOWN_EVENT'
  override readonly name = 'UnknownEventError'
}

/** Thrown if the called process has died, is paused beyond its lease, or was closed before it replied. */
export class ProcessLostError extends SoloflightError {
  override readonly code = 'E_PROCESS_LOST'
  override readonly name = 'ProcessLostError'
}

/** Thrown when a service has a handler for the event already, or a process registers a service twice. */
export class DuplicateHandlerError extends SoloflightError {
  override readonly code = 'E_DUPLICATE_HANDLER'
  override readonly name = 'DuplicateHandlerError'
}

/** Thrown when a queue has `maxsize` waiting messages, and no room within the `wait` of the push. */
export class QueueFullError extends SoloflightError {
  override readonly code = 'E_QUEUE_FULL'
  override readonly name = 'QueueFullError'
}

/**
 * Thrown by a call that needs an attached queue, or a connected channel or service; also if the process was paused for longer
 * than its lease.
 */
export class NotAttachedError extends SoloflightError {
  override readonly code = 'E_NOT_ATTACHED'
  override readonly name = 'NotAttachedError'
}

/** Thrown if the object is attached, consumes, is connected, is subscribed or serves already. */
export class AlreadyAttachedError extends SoloflightError {
  override readonly code = 'E_ALREADY_ATTACHED'
  override readonly name = 'AlreadyAttachedError'
}

/** A failure as data, as it is sent between processes. */
export interface RemoteFailure {
  /** `name` of the original. */
  name: string
  /** `message` of the original. */
  message: string
  /** `code` of the original, if any. */
  code?: string | number
  /** Own enumerable fields of the original that can be encoded, fit, and may not be secrets. */
  fields?: Record<string, unknown>
  /** `cause` of the original, if that was an error. */
  cause?: RemoteFailure
}

/**
 * Thrown to every waiter when the work has failed. `message` is that of the original error; `remote` has its name, message,
 * code and own enumerable fields as data. In the process in which the work ran, `cause` is the original error; elsewhere it
 * is the cause of the original, as a RemoteError. Use {@link isRemote} to distinguish failures in all processes.
 */
export class RemoteError extends SoloflightError {
  override readonly code = 'E_REMOTE'
  override readonly name = 'RemoteError'
  /** The original error, as data. */
  readonly remote: RemoteFailure

  constructor(remote: RemoteFailure, options: SoloflightErrorOptions = {}) {
    const cause =
      options.cause ??
      (remote.cause && new RemoteError(remote.cause, options.key === undefined ? {} : { key: options.key }))
    super(remote.message, { key: options.key, ran: options.ran, cause })
    this.remote = remote
  }
}

/**
 * Whether an error is the failure of a work or handler whose error had one of these names (without names: any failure), in
 * any process, and with any copy of this package or of the error's class. See `error.remote.code` and `.fields` for details.
 *
 * @example
 * if (isRemote(error, 'ValidationError')) response.status(400).json(error.remote.fields)
 */
export function isRemote<Name extends string = string>(
  error: unknown,
  ...names: readonly Name[]
): error is RemoteError & { readonly remote: RemoteFailure & { readonly name: Name } } {
  const { code, remote } = (error ?? {}) as Partial<RemoteError>
  if (code !== 'E_REMOTE' || typeof remote?.name !== 'string') return false
  return names.length === 0 || names.some((name) => name === remote.name)
}
