import type { SubmitOptions } from '../options.ts'
import { type Backoff, checkBackoff } from '../working/backoff.ts'

/** What of a submission's options goes with the job to wherever it runs. */
export interface JobOptions {
  ttl?: number
  errorTtl?: number
  attempts?: number
  backoff?: Backoff
  /** Trace context of the submitter. */
  trace?: string
}

/** Longest trace context that is carried, in characters. */
const MAX_TRACE = 512

/** As text, as short as it gets: most jobs say nothing, and carry nothing. Durations are whole there. */
export function packOptions(
  options: Pick<SubmitOptions, keyof JobOptions & keyof SubmitOptions>,
  trace: string | undefined,
): string {
  const { ttl, errorTtl, attempts, backoff } = options
  const said: Record<string, unknown> = {}
  if (ttl !== undefined) said['t'] = Math.round(ttl)
  if (errorTtl !== undefined) said['e'] = Math.round(errorTtl)
  if (attempts !== undefined) said['a'] = attempts === Number.POSITIVE_INFINITY ? 0 : attempts
  if (backoff !== undefined) said['b'] = backoff
  if (trace) said['c'] = trace.slice(0, MAX_TRACE)
  return Object.keys(said).length === 0 ? '' : JSON.stringify(said)
}

/** Reads them. What cannot be read says nothing: the options of a job must not keep it from being run. */
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

/** As it may stand in a script's arguments. */
function isDuration(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0
}
