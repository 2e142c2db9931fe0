// Calls of the gateway's routes. All paths are relative to the page, so that they work below a base path.

/** A refusal of the gateway: what its `application/problem+json` says. */
export class Refusal extends Error {
  override readonly name = 'Refusal'
  readonly status: number
  /** The short text that does not change. */
  readonly error: string

  constructor(status: number, error: string, detail: string | undefined) {
    super(detail ? `${error}: ${detail}` : error)
    this.status = status
    this.error = error
  }
}

export type Params = Readonly<Record<string, string | number | undefined>>

export interface CallOptions {
  readonly params?: Params | undefined
  readonly body?: string | undefined
  readonly signal?: AbortSignal | undefined
}

/** How long a call may take, ms. */
const CALL_WITHIN = 20_000

/** The path of a route: each segment encoded, with the parameters that have a value. */
export function pathOf(segments: readonly string[], params: Params = {}): string {
  const query = new URLSearchParams()
  for (const [name, value] of Object.entries(params)) if (value !== undefined) query.set(name, `${value}`)
  const text = query.toString()
  return segments.map(encodeURIComponent).join('/') + (text && `?${text}`)
}

/**
 * Calls a route, and returns the text of its answer.
 * @throws Refusal if the gateway refuses; TypeError if it is not reached; a DOMException if it is aborted or too slow.
 */
export async function call(
  method: 'GET' | 'POST' | 'DELETE',
  segments: readonly string[],
  { params, body, signal }: CallOptions = {},
): Promise<string> {
  const timeout = AbortSignal.timeout(CALL_WITHIN)
  const response = await fetch(pathOf(segments, params), {
    method,
    credentials: 'same-origin',
    cache: 'no-store',
    signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
    ...(body !== undefined && { body, headers: { 'content-type': 'application/json' } }),
  })
  const text = await response.text()
  if (response.ok) return text
  throw refusalOf(response.status, text)
}

function refusalOf(status: number, text: string): Refusal {
  try {
    const { error, detail } = JSON.parse(text) as { error?: unknown; detail?: unknown }
    if (typeof error === 'string')
      return new Refusal(status, error, typeof detail === 'string' ? detail : undefined)
  } catch {
    // A proxy before the gateway answers with a page of its own.
  }
  return new Refusal(status, `the gateway answered ${status}`, undefined)
}

/** Why a call failed, in a few words. */
export function reasonOf(error: unknown): string {
  if (error instanceof Refusal) return error.message
  if (error instanceof TypeError) return 'the gateway cannot be reached'
  if (error instanceof DOMException && error.name === 'TimeoutError')
    return 'the gateway did not answer in time'
  return error instanceof Error ? error.message : String(error)
}
