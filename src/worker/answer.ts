import { parseRetryAfter } from '../kernel/http-date.ts'

/** An answer of a gateway that was read. */
export interface Answer {
  readonly status: number
  readonly headers: Headers
  /** Undefined if the body is larger than was to be read. */
  readonly text: string | undefined
}

/** Reads an answer, up to `limit` bytes of its body. Rejects if the connection ends before. */
export async function readAnswer({ status, headers, body }: Response, limit: number): Promise<Answer> {
  if (!body) return { status, headers, text: '' }
  const reader = body.getReader()
  const chunks: Uint8Array[] = []
  let length = 0
  for (;;) {
    const { done, value } = await reader.read()
    if (done) break
    length += value.byteLength
    if (length > limit) {
      await reader.cancel().catch(() => {})
      return { status, headers, text: undefined }
    }
    chunks.push(value)
  }
  // Byte for byte: a byte order mark too.
  return {
    status,
    headers,
    text: new TextDecoder('utf-8', { ignoreBOM: true }).decode(Buffer.concat(chunks)),
  }
}

/** The `error` of a problem; '' if the answer is none. */
export function problemError({ text = '' }: Answer): string {
  return member(text, 'error') ?? ''
}

/** What an answer says of a refusal, for people. */
export function describeAnswer(answer: Answer): string {
  const { status, text = '' } = answer
  const parts = [problemError(answer), member(text, 'detail') ?? ''].filter((part) => part !== '')
  return [String(status), ...parts].join(', ').slice(0, 500)
}

/** A text in an object that is given as JSON. */
function member(json: string, name: string): string | undefined {
  try {
    const value: unknown = (JSON.parse(json) as Record<string, unknown> | null)?.[name]
    return typeof value === 'string' ? value : undefined
  } catch {
    return undefined
  }
}

/** Longest pause that a gateway may ask for, ms. */
const MAX_RETRY_AFTER = 5 * 60_000

/** `Retry-After`, ms; 0 without one. */
export function retryAfterOf({ headers }: Pick<Answer, 'headers'>): number {
  return parseRetryAfter(headers.get('retry-after') ?? undefined, MAX_RETRY_AFTER)
}

/** Whether a request was refused for its body: it will be refused again. */
export function isAboutBody(status: number): boolean {
  return status === 400 || status === 413 || status === 422
}

/** The job has ended under its lease: it was cancelled, or removed. */
export function isCancelled({ status, text }: Answer): boolean {
  if (status !== 200) return false
  try {
    return (JSON.parse(text ?? '') as { cancelled?: unknown } | null)?.cancelled === true
  } catch {
    return false
  }
}
