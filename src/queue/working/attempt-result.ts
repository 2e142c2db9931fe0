import { CodecError, type RemoteFailure, type SoloflightError } from '../../errors.ts'
import { encodeWith } from '../../kernel/codec/codec.ts'
import { encodeFailure, exposedFailure } from '../../kernel/codec/failure.ts'
import { callHook } from '../../kernel/hooks.ts'
import type { AsyncContext } from '../../kernel/time.ts'
import { OUTCOME_RETENTION, type ResolvedQueueOptions } from '../options.ts'
import { type AttemptOutcome, type AttemptRef, MAX_DELAY } from '../store/store.ts'
import { isDedupeId, type JobOptions } from '../submitting/submission.ts'
import { backoffDelay } from './backoff.ts'

/** Result of an attempt, as it is reported to the store. `error` is the value that the handler threw. */
export type AttemptResult = Pick<AttemptOutcome, 'kind' | 'bytes' | 'ttl' | 'delay'> & { error?: unknown }

/** The attempt that a result belongs to. */
export interface ResultSource {
  readonly id: string
  /** Number of the attempt, from 1. */
  readonly number: number
  /** The next attempt starts after so long at least, ms. Infinity: there is none. Absent: 0. */
  readonly minRetryDelay?: number
  /** Options of the submission. Those of the worker's queue apply where they are undefined. */
  readonly jobOptions: JobOptions
  readonly options: ResolvedQueueOptions
  /** Context in which the hooks run. */
  readonly context: AsyncContext
}

const NO_BYTES = Buffer.alloc(0)

/** The job is given back unfinished. */
export const REQUEUE: AttemptResult = { kind: 'requeue', bytes: NO_BYTES, ttl: 0, delay: 0 }

/** The handler returned a value. Throws CodecError if it cannot be encoded. */
export function valueResult({ id, jobOptions, options }: ResultSource, value: unknown): AttemptResult {
  const defaultTtl = isDedupeId(id) ? options.ttl : 0
  const bytes = encodeWith(options.codec, value)
  return { kind: 'value', bytes, ttl: jobOptions.ttl ?? Math.round(defaultTtl), delay: 0 }
}

/** A result as it is reported to the store. `releasesSlot`: the worker can take another job. */
export function outcomeOf(
  { worker, id, fence }: AttemptRef,
  { kind, bytes, ttl, delay }: AttemptResult,
  { retain: { completed, failed } }: ResolvedQueueOptions,
  releasesSlot: boolean,
): AttemptOutcome {
  const retain = kind === 'value' ? completed : failed
  const outcomeRetention = OUTCOME_RETENTION
  return { worker, id, fence, kind, bytes, ttl, outcomeRetention, delay, retain, releasesSlot }
}

/** The attempt failed: the job is retried, or fails. */
export function failureResult(source: ResultSource, error: unknown): AttemptResult {
  const { number, minRetryDelay = 0, jobOptions, options } = source
  const { attempts = options.attempts, errorTtl = options.errorTtl } = jobOptions
  const isFinal = minRetryDelay === Number.POSITIVE_INFINITY
  // A value that cannot be encoded cannot be encoded by the next attempt either.
  if (number < attempts && !isFinal && !(error instanceof CodecError)) {
    const delay = Math.max(retryDelay(source, error), Math.min(Math.ceil(minRetryDelay), MAX_DELAY))
    return { kind: 'retry', bytes: NO_BYTES, ttl: 0, delay, error }
  }
  const bytes = encodeFailure(failureOf(source, error))
  return { kind: 'error', bytes, ttl: Math.round(errorTtl), delay: 0, error }
}

/** The connection was lost when the result was sent: it is too large to be sent. */
export function tooLargeResult(source: ResultSource, cause: SoloflightError): AttemptResult {
  const message = `The result cannot be sent: ${cause.message}`
  return failureResult(source, new CodecError(message, { key: source.id, cause }))
}

/** The part of an error that leaves the process. */
export function failureOf({ options, context }: ResultSource, error: unknown): RemoteFailure {
  return exposedFailure(options.exposeError, context, error)
}

/** Delay until the next attempt, ms; 0 if the user's function fails. */
function retryDelay({ number, jobOptions, options, context }: ResultSource, error: unknown): number {
  const { backoff = options.backoff } = jobOptions
  const hook = typeof backoff === 'function' ? backoff : undefined
  const returned = hook && callHook(context, 'backoff', hook, number, error)
  // The conversion of the returned value to a number may throw as well.
  const delay = () => backoffDelay(hook ? () => returned ?? 0 : backoff, number, error)
  return callHook(context, 'backoff', delay) ?? 0
}
