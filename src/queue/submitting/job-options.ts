import { MAX_TRACE_LENGTH } from '../../kernel/limits.ts'
import type { SubmitOptions } from '../options.ts'
import { type Backoff, checkBackoff } from '../working/backoff.ts'

/** Options of a submission that are stored with the job, for the worker that runs it. */
export interface JobOptions {
  ttl?: number
  errorTtl?: number
  attempts?: number
  backoff?: Backoff
  /** Trace context of the submitter. */
  trace?: string
}

/** Serializes the options, durations rounded to ms. '' if none is set: then the job takes up no space for them. */
export function packOptions(
  options: Pick<SubmitOptions, keyof JobOptions & keyof SubmitOptions>,
  trace: string | undefined,
): string {
  const { ttl, errorTtl, attempts, backoff } = options
  const packed: Record<string, unknown> = {}
  if (ttl !== undefined) packed['t'] = Math.round(ttl)
  if (errorTtl !== undefined) packed['e'] = Math.round(errorTtl)
  if (attempts !== undefined) packed['a'] = attempts === Number.POSITIVE_INFINITY ? 0 : attempts
  if (backoff !== undefined) packed['b'] = backoff
  if (trace) packed['c'] = trace.slice(0, MAX_TRACE_LENGTH)
  return Object.keys(packed).length === 0 ? '' : JSON.stringify(packed)
}

/** Parses options. Ignores what is invalid: a job runs whatever its options are. */
export function unpackOptions(text: string): JobOptions {
  if (text === '') return {}
  try {
    const { t, e, a, b, c } = JSON.parse(text) as Record<string, unknown>
    const options: JobOptions = {}
    if (isDuration(t)) options.ttl = t
    if (isDuration(e)) options.errorTtl = e
    if (Number.isInteger(a) && typeof a === 'number' && a >= 0)
      options.attempts = a === 0 ? Number.POSITIVE_INFINITY : a
    if (typeof c === 'string') options.trace = c
    if (b !== undefined) {
      checkBackoff(b)
      options.backoff = b as Backoff
    }
    return options
  } catch {
    return {}
  }
}

/** Whether a script accepts the value as a duration. */
function isDuration(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0
}
