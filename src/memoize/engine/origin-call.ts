import pDefer from 'p-defer'
import { AbortedError, SoloflightError, TimeoutError } from '../../errors.ts'
import type { Clock } from '../../kernel/time.ts'
import { CONDITIONAL_FIELDS, freshenedFields, validatorsOf } from '../policy/conditional.ts'
import { endToEndFields, reasonPhraseOf } from '../policy/fields.ts'
import { normalizeFields } from '../policy/request.ts'
import type { HttpRequest, Origin, OriginRequest, OriginResponse } from './message.ts'
import { discard } from './recording.ts'
import type { StoredResponse } from './stored-response.ts'

/** One call of an origin, with a timeout. */
export class OriginCall {
  readonly #clock: Clock
  readonly #abort = new AbortController()
  /** Settles the call in place of the origin: after the timeout, or when it is cancelled. */
  readonly #substitute = pDefer<OriginResponse>()
  #timedOut = false

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** For the origin: aborts when its response is not wanted any more. */
  get signal(): AbortSignal {
    return this.#abort.signal
  }

  get timedOut(): boolean {
    return this.#timedOut
  }

  /** Resolves with the origin's response, or with a 504 when it has not begun after `timeout` (ms). */
  async send(origin: Origin, request: OriginRequest, timeout: number): Promise<OriginResponse> {
    const timer =
      timeout < Number.POSITIVE_INFINITY ? this.#clock.after(timeout, () => this.#onTimeout()) : undefined
    const response = (async () => origin(request))()
    response.then(({ body }) => this.signal.aborted && discard(body)).catch(() => undefined)
    return Promise.race([response, this.#substitute.promise]).finally(() => timer?.cancel())
  }

  #onTimeout(): void {
    this.#timedOut = true
    const headers = { 'content-type': 'text/plain; charset=utf-8' }
    this.#substitute.resolve({ status: 504, headers, body: 'No answer in time\n' })
    this.#abort.abort(new TimeoutError('The origin did not answer in time'))
  }

  /** The response is not wanted any more: aborts the origin's signal and rejects the call. */
  cancel(reason: unknown): void {
    const message = 'Nobody waits for the response any more'
    const error = reason instanceof SoloflightError ? reason : new AbortedError(message, { cause: reason })
    this.#abort.abort(error)
    this.#substitute.reject(error)
    // No caller may be listening yet.
    this.#substitute.promise.catch(() => undefined)
  }
}

/** Sends a request to the origin as it is, without its hop-by-hop fields. The response is private. */
export async function fetchOrigin(request: HttpRequest, origin: Origin): Promise<OriginResponse> {
  const { method, url, headers, signal } = request
  return origin({ method, url, headers: endToEndFields(headers), shared: false, signal })
}

interface SharedRequestTerms {
  signal: AbortSignal
  /** The stored response that the origin may validate by a 304. */
  validated: StoredResponse | undefined
  /** Fields that the cache key does not cover: see `unkeyedFields`. */
  unkeyed: readonly string[]
  /** Whether the client has been answered already. */
  background: boolean
}

/**
 * The request whose response all clients of an entry may receive. It lacks the conditions and the range of this client,
 * which are applied to the response afterwards, and the fields that the key does not cover. It has the validators of
 * `validated`.
 */
export function sharedRequest(
  { method, url, headers: given }: HttpRequest,
  { signal, validated, unkeyed, background }: SharedRequestTerms,
): OriginRequest {
  const headers = endToEndFields(given)
  for (const name of CONDITIONAL_FIELDS) delete headers[name]
  for (const name of unkeyed) delete headers[name]
  // The origin must not see a difference that the key does not make.
  if (typeof headers['host'] === 'string') headers['host'] = headers['host'].toLowerCase()
  normalizeFields(headers)
  if (validated) Object.assign(headers, validatorsOf(validated.headers))
  return { method: method === 'HEAD' ? 'GET' : method, url, headers, shared: true, signal, background }
}

/**
 * The response with its end-to-end fields. A 304 becomes the stored response that it validates, freshened by its fields.
 * RFC 9111 §4.3.3, §4.3.4.
 */
export function freshenedResponse(
  response: OriginResponse,
  validated: StoredResponse | undefined,
): OriginResponse {
  const headers = endToEndFields(response.headers)
  if (response.status !== 304 || !validated)
    return { ...response, statusText: reasonPhraseOf(response), headers }
  discard(response.body)
  const { status, statusText, headers: stored, body } = validated
  return { ...response, status, statusText, headers: freshenedFields(stored, headers), body }
}
