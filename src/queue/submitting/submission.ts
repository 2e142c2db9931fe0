import { createHash } from 'node:crypto'
import serialize from 'canonicalize'
import {
  AbortedError,
  ClosedError,
  CodecError,
  ConflictError,
  OverloadedError,
  TooLargeError,
  UnknownCommandError,
} from '../../errors.ts'
import { JsonValidator, messageOf } from '../../kernel/codec/codec.ts'
import { JsonText } from '../../kernel/codec/json-text.ts'
import { callHook } from '../../kernel/hooks.ts'
import { MAX_TRACE_LENGTH, newId } from '../../kernel/keys.ts'
import { isWellFormedName, MAX_NAME } from '../../kernel/names.ts'
import { shownValue } from '../../kernel/options.ts'
import {
  checkSubmitOptions,
  type QueueContext,
  type ResolvedQueueOptions,
  type SubmitOptions,
} from '../options.ts'
import type { Submission, SubmitReply } from '../store/store.ts'
import { type Backoff, checkBackoff } from '../working/backoff.ts'

// A submission as it is stored: the id of its job, its payload and its options as text, and how each is read again.

/** What names a submission of a post. */
export type PlaceInPost = Pick<Submission, 'id' | 'nonce'>

/**
 * Creates a submission from the arguments of a call. `awaited`: its outcome is sent to this process. `place`: in its post.
 * @throws TypeError, CodecError, TooLargeError
 */
export function createSubmission(
  command: string,
  payload: unknown,
  options: SubmitOptions,
  awaited: boolean,
  defaults: ResolvedQueueOptions,
  place?: PlaceInPost,
): Submission {
  checkName('command', command)
  checkSubmitOptions(options)
  const { sentWithJob, maxPayload } = defaults
  const { dedupe, ttl, errorTtl, attempts, backoff } = options
  // Without deduplication the payload is compared with no other, so it needs no canonical form.
  const text = encodePayload(payload, maxPayload, dedupe !== false)
  const packed = packOptions(
    {
      ttl: ttl ?? (dedupe === false ? undefined : sentWithJob.ttl),
      errorTtl: errorTtl ?? sentWithJob.errorTtl,
      attempts: attempts ?? sentWithJob.attempts,
      backoff: backoff ?? sentWithJob.backoff,
    },
    traceContext(defaults),
  )
  const { id, nonce } = place ?? { id: jobIdFor(command, dedupe, text), nonce: newId() }
  return new NewSubmission(id, nonce, command, text, packed, awaited, options, defaults)
}

/** A class, so that it is allocated by a constructor: see kernel/collections.ts. */
class NewSubmission implements Submission {
  readonly id: string
  readonly command: string
  readonly payload: string
  readonly options: string
  readonly nonce: string
  readonly awaited: boolean
  readonly conflict: Submission['conflict']
  readonly delay: number
  readonly priority: number
  readonly lifo: boolean
  readonly abortUnwanted: boolean
  readonly requiresWorker: boolean

  /** `packed`: the options for the worker, as text. */
  constructor(
    id: string,
    nonce: string,
    command: string,
    payload: string,
    packed: string,
    awaited: boolean,
    options: SubmitOptions,
    defaults: ResolvedQueueOptions,
  ) {
    this.id = id
    this.nonce = nonce
    this.command = command
    this.payload = payload
    this.options = packed
    this.awaited = awaited
    this.conflict = options.conflict ?? defaults.conflict
    this.delay = Math.round(options.delay ?? 0)
    this.priority = options.priority ?? 0
    this.lifo = options.lifo ?? false
    this.abortUnwanted = options.abortUnwanted ?? defaults.abortUnwanted
    this.requiresWorker = defaults.unknownCommands === 'refuse'
  }
}

function traceContext({ trace }: ResolvedQueueOptions): string | undefined {
  const context: unknown = trace && callHook(undefined, 'trace', trace)
  return typeof context === 'string' ? context : undefined
}

/** The store has accepted a submission. */
export type AcceptedReply = Extract<SubmitReply, { generation: number }>

/** A job that the store has accepted, or has already. */
export interface AcceptedJob extends Pick<AcceptedReply, 'status' | 'generation'> {
  readonly id: string
  readonly command: string
}

/** Submits a job without a waiter. Rejects if the store refuses it. */
export function submitDetached(
  submission: Submission,
  { store, within }: QueueContext,
): Promise<AcceptedReply> {
  const { id, command } = submission
  return new Promise((resolve, reject) => {
    store.submit(submission, within, {
      onReply: (reply) => {
        if ('generation' in reply) resolve(reply)
        else reject(refusalError(reply.status, id, command))
      },
      onError: reject,
      onNotice: () => {},
    })
  })
}

export function assertNotAborted(key: string, signal: AbortSignal | undefined): void {
  if (!signal?.aborted) return
  throw new AbortedError('The signal had aborted before the call', { key, cause: signal.reason })
}

/** The error for a submission that the store refused. */
export function refusalError(
  status: Exclude<SubmitReply, AcceptedReply>['status'],
  key: string,
  command: string,
): Error {
  if (status === 'conflict')
    return new ConflictError('Another payload runs, or is kept, under the same key', { key })
  if (status === 'unknown') return new UnknownCommandError(`No worker for \`${command}\` is known`, { key })
  return new OverloadedError('Too many calls wait for this job', { key })
}

/** The error of calls after `close`. */
export function closedError(): ClosedError {
  return new ClosedError('The queue is closed')
}

/** Throws TypeError unless `name` is a well-formed string of 1 to 256 UTF-16 code units. Redis would change a lone surrogate. */
export function checkName(what: string, name: unknown): asserts name is string {
  if (isWellFormedName(name)) return
  const got = typeof name === 'string' ? describeName(name) : `${shownValue(name)} (${typeof name})`
  throw new TypeError(`Expected \`${what}\` to be a string of 1 to ${MAX_NAME} characters, got ${got}`)
}

/** What is wrong with a name, without showing it: it may be as long as a payload. */
function describeName({ length }: string): string {
  return length > 0 && length <= MAX_NAME ? 'one with a lone surrogate' : `${length} characters`
}

/** Length of a dedupe id: 192 bits in base64url. */
export const DEDUPE_ID_LENGTH = 32

function jobIdFor(command: string, dedupe: SubmitOptions['dedupe'], payload: string): string {
  if (dedupe === false) return newId()
  return dedupe === undefined ? dedupeId(command, 'payload', payload) : dedupeId(command, 'key', dedupe)
}

/** The id of a job that is deduplicated: a hash of its command, and of its payload or the key of the submitter. */
export function dedupeId(command: string, kind: 'payload' | 'key', of: string): string {
  const hash = createHash('sha256').update(`${kind} ${command.length} `)
  hash.update(command, 'utf16le')
  hash.update(of, kind === 'key' ? 'utf16le' : 'utf8')
  return hash.digest('base64url').slice(0, DEDUPE_ID_LENGTH)
}

/** Whether a job, or the post that it is part of, is deduplicated. If not, no later submission has its id. */
export function isDedupeId(id: string): boolean {
  return id.length === DEDUPE_ID_LENGTH
}

/** Whether a value has the format of a job id. */
export function isJobId(id: unknown): id is string {
  return typeof id === 'string' && /^[\w-]{22}(?:[\w-]{10})?$/.test(id)
}

// The types declare a default export, but the CommonJS module exports the function itself.
const canonicalize = serialize as unknown as (value: unknown) => string

/**
 * Encodes a payload as JSON; `undefined` as ''. `canonical`: in the canonical form of RFC 8785, so equal payloads have equal
 * texts; a JsonText as its text. Throws CodecError with the path to a value that JSON cannot represent, TooLargeError above
 * `maxBytes`.
 */
export function encodePayload(payload: unknown, maxBytes: number, canonical: boolean): string {
  if (payload === undefined) return ''
  const text =
    payload instanceof JsonText ? payload.text : toJson(payload, canonical ? canonicalize : JSON.stringify)
  const bytes = Buffer.byteLength(text)
  if (bytes <= maxBytes) return text
  throw new TooLargeError(`The payload has ${bytes} bytes; \`maxPayload\` is ${maxBytes}`)
}

function toJson(payload: unknown, write: (value: unknown) => string): string {
  new JsonValidator({ plain: true }).validate(payload)
  try {
    return write(payload)
  } catch (cause) {
    // The payload was valid a moment ago: one of its getters returns another value each time.
    throw new CodecError(`The payload cannot be encoded as JSON: ${messageOf(cause)}`, { cause })
  }
}

/** Decodes a payload that {@link encodePayload} encoded. Throws CodecError if the text is not JSON. */
export function decodePayload(text: string): unknown {
  if (text === '') return undefined
  try {
    return JSON.parse(text)
  } catch (cause) {
    throw new CodecError('The stored payload is not JSON', { cause })
  }
}

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
      checkBackoff('backoff', b)
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
