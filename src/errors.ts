/**
 * One class per failure, each with a stable `code`. Every error that the library itself raises extends
 * {@link SoloflightError}; wrong arguments raise the built-in `TypeError`.
 */

import { masked } from './secrets.ts'

/** What every error of the library can be told about. */
export interface SoloflightErrorOptions {
  /** The resource key that it is about, where there is one. */
  key?: string | undefined
  /** What led to it. What a Redis client threw comes as a copy: its name, message and code. */
  cause?: unknown
}

/** The base of all errors of the library: `code` is stable, `message` is for people. */
export class SoloflightError extends Error {
  /** Stable, `E_…`: what programs compare. */
  readonly code: string = 'E_SOLOFLIGHT'
  /** The name of its class, said literally: a bundler may rename the class itself. */
  override readonly name: string = 'SoloflightError'
  /** The resource key that it is about, where there is one. */
  readonly key: string | undefined

  constructor(message: string, options: SoloflightErrorOptions = {}) {
    super(masked(message), options.cause === undefined ? undefined : { cause: options.cause })
    this.key = options.key
  }
}

/** Thrown when a waiter's `timeout` passed before there was an outcome. The work itself goes on. */
export class TimeoutError extends SoloflightError {
  override readonly code = 'E_TIMEOUT'
  override readonly name = 'TimeoutError'
}

/** Thrown when a waiter's own `signal` was aborted; `cause` is the signal's reason. */
export class AbortedError extends SoloflightError {
  override readonly code = 'E_ABORTED'
  override readonly name = 'AbortedError'
}

/** Thrown when the locker or its connection was closed. */
export class ClosedError extends SoloflightError {
  override readonly code = 'E_CLOSED'
  override readonly name = 'ClosedError'
}

/** Thrown when Redis did not answer in `unavailableAfter`, or answered that it cannot serve; `cause` tells which. */
export class UnavailableError extends SoloflightError {
  override readonly code = 'E_UNAVAILABLE'
  override readonly name = 'UnavailableError'
  /**
   * Above 0 when the command was given up because each of so many connections ended while it, or its reply, was on its
   * way: it may be larger than a connection carries. 0 otherwise.
   */
  readonly lostConnections: number

  constructor(
    message: string,
    options: SoloflightErrorOptions & { lostConnections?: number | undefined } = {},
  ) {
    super(message, options)
    this.lostConnections = options.lostConnections ?? 0
  }
}

/** Thrown by `locker.publish` when this locker holds no lease, or more than one, for the key. */
export class NotLockedError extends SoloflightError {
  override readonly code = 'E_NOT_LOCKED'
  override readonly name = 'NotLockedError'
}

/** Thrown when a lease was superseded, expired beyond its grace, let go or already settled. Its holder cannot publish. */
export class LeaseLostError extends SoloflightError {
  override readonly code = 'E_LEASE_LOST'
  override readonly name = 'LeaseLostError'
}

/** Thrown, with `takeover: false` only, to those who waited for a processor that died or was let go at `maxHold`. */
export class LockTimeoutError extends SoloflightError {
  override readonly code = 'E_LOCK_TIMEOUT'
  override readonly name = 'LockTimeoutError'
}

/** Thrown when a value cannot be carried unchanged; the message names the path to the culprit. */
export class CodecError extends SoloflightError {
  override readonly code = 'E_CODEC'
  override readonly name = 'CodecError'
}

/** Thrown when a bound was reached: waiters parked on one key, commands waiting for Redis, waiters in this process. */
export class OverloadedError extends SoloflightError {
  override readonly code = 'E_OVERLOADED'
  override readonly name = 'OverloadedError'
}

/** Thrown when a work asks, directly or through other works of this process, for the key that it is computing. */
export class DeadlockError extends SoloflightError {
  override readonly code = 'E_DEADLOCK'
  override readonly name = 'DeadlockError'
}

/** Thrown to those who wait for a job that was removed, or of which nothing is known any more. */
export class RemovedError extends SoloflightError {
  override readonly code = 'E_REMOVED'
  override readonly name = 'RemovedError'
}

/** Thrown when a job was submitted under the key of another whose payload is not the same. */
export class ConflictError extends SoloflightError {
  override readonly code = 'E_CONFLICT'
  override readonly name = 'ConflictError'
}

/** Thrown, with `unknownCommands: 'refuse'`, when no worker is known that processes a command. */
export class UnknownCommandError extends SoloflightError {
  override readonly code = 'E_UNKNOWN_COMMAND'
  override readonly name = 'UnknownCommandError'
}

/** The stream cannot be read on: its producer died, or its chunks are not kept any more, after some were received. */
export class StreamInterruptedError extends SoloflightError {
  override readonly code = 'E_STREAM_INTERRUPTED'
  override readonly name = 'StreamInterruptedError'
}

/** Thrown when a queue is to process a command that it processes in this process already. */
export class DuplicateWorkerError extends SoloflightError {
  override readonly code = 'E_DUPLICATE_WORKER'
  override readonly name = 'DuplicateWorkerError'
}

/** Thrown when a payload is larger than `maxPayload`. */
export class TooLargeError extends SoloflightError {
  override readonly code = 'E_TOO_LARGE'
  override readonly name = 'TooLargeError'
}

/** A failure as it travels between processes: data, never code. */
export interface RemoteFailure {
  /** The original's `name`. */
  name: string
  /** The original's `message`. */
  message: string
  /** The original's `code`, where it had one. */
  code?: string | number
  /** The original's own enumerable fields, as far as the codec carries them, they fit, and they carry no secrets. */
  fields?: Record<string, unknown>
  /** The original's `cause`, where that was an error. */
  cause?: RemoteFailure
}

/**
 * Thrown to every waiter when the work failed. `message` is the original's; `remote` carries its name, message,
 * code and own enumerable fields as data. `cause` is the original itself in the process where the work ran, and only
 * there; elsewhere it is the original's own cause, as a RemoteError. {@link isRemote} tells failures apart everywhere.
 */
export class RemoteError extends SoloflightError {
  override readonly code = 'E_REMOTE'
  override readonly name = 'RemoteError'
  /** The original, as data. */
  readonly remote: RemoteFailure

  constructor(remote: RemoteFailure, options: SoloflightErrorOptions = {}) {
    const cause =
      options.cause ??
      (remote.cause && new RemoteError(remote.cause, options.key === undefined ? {} : { key: options.key }))
    super(remote.message, { key: options.key, cause })
    this.remote = remote
  }
}

/**
 * Whether an error is the failure of a work or handler whose error had this name, or one of these names, wherever it ran
 * and whatever copy of this package or of the error's class there is. `error.remote.code` and `.fields` say the rest.
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
