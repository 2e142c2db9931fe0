import { JsonText } from '../../kernel/codec/json-text.ts'
import { parseRetryAfter } from '../../kernel/http-date.ts'
import { parseJson } from '../http/json.ts'
import type { ReceiverAnswer } from './receiver.ts'

// What the answer of a receiver means for the job:
//
//   answer                              the job
//   2xx                                 is done, with the body as its result
//   2xx, body too large or unreadable   has failed
//   408, 425, 429, 5xx                  is retried, after Retry-After at least
//   any other                           has failed: the same request would get the same answer. Redirects are not followed

/** A push has failed. Its submitters see name, message, code, `status` and `answer`. */
export class PushError extends Error {
  override readonly name = 'PushError'
  readonly code: string = 'E_PUSH'
  /** Of the answer. Undefined if there was none. */
  readonly status: number | undefined
  /** The beginning of the answer's body. */
  readonly answer: string | undefined
  readonly #retryAfter: number

  constructor(message: string, { retryAfter, status, answer }: PushErrorOptions) {
    // Without a cause, which would tell submitters of addresses of this side.
    super(message)
    this.#retryAfter = retryAfter
    this.status = status
    this.answer = answer
  }

  /** The next attempt starts after so long at least, ms. Infinity: there is none. */
  get retryAfter(): number {
    return this.#retryAfter
  }
}

export interface PushErrorOptions {
  retryAfter: number
  status?: number
  answer?: string | undefined
}

/** No attempt follows. */
const NEVER = Number.POSITIVE_INFINITY

/** The longest Retry-After that is observed, ms. */
const MAX_RETRY_AFTER = 24 * 60 * 60_000

/** Statuses below 500 after which the same request may succeed. */
const RETRIED = [408, 425, 429]

/** Length of `answer`, in bytes of the body. */
const ANSWER_BYTES = 1_000

/** The result of the job. @throws PushError */
export function resultOf(received: ReceiverAnswer): JsonText {
  const { status, headers, body } = received
  if (status >= 200 && status < 300) return readResult(received)
  const isRetried = status >= 500 || RETRIED.includes(status)
  const retryAfter = isRetried ? parseRetryAfter(headers['retry-after'], MAX_RETRY_AFTER) : NEVER
  const answer = body.subarray(0, ANSWER_BYTES).toString() || undefined
  const what = status >= 300 && status < 400 ? 'redirected, which is not followed' : 'answered'
  throw new PushError(`The receiver ${what}: ${status}`, { status, retryAfter, answer })
}

/**
 * The body as JSON, byte for byte. An empty one is null. One that is not JSON is a string, unless its type says that it is JSON.
 */
function readResult({ status, headers, body, isCut }: ReceiverAnswer): JsonText {
  const failed = (message: string) => new PushError(message, { status, retryAfter: NEVER })
  if (isCut) throw failed(`The answer of the receiver is too large: the largest has ${body.length} bytes`)
  const text = decode(body)
  if (text === undefined) throw failed('The answer of the receiver is not UTF-8')
  if (text === '') return JsonText.parse('null')
  const type = typeOf(headers['content-type'])
  try {
    if (type === 'json' || type === 'unknown') return parseJson(text)
  } catch {
    if (type === 'json') throw failed('The answer of the receiver is not JSON, or is nested too deeply')
  }
  return JsonText.parse(JSON.stringify(text))
}

/** What a Content-Type says of a body. */
function typeOf(header: string | undefined): 'json' | 'other' | 'unknown' {
  if (header === undefined) return 'unknown'
  const type = header.split(';', 1)[0]?.trim().toLowerCase() ?? ''
  return type.endsWith('/json') || type.endsWith('+json') ? 'json' : 'other'
}

/** Undefined if the bytes are not UTF-8. */
function decode(bytes: Buffer): string | undefined {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    return undefined
  }
}
