import { CONDITIONAL_FIELDS, validatorsOf } from '../../policy/conditional.ts'
import { endToEndFields } from '../../policy/fields.ts'
import { normalizeFields } from '../../policy/vary.ts'
import type { HttpRequest, Origin, OriginRequest, OriginResponse } from '../message.ts'
import type { StoredResponse } from '../storage/stored-response.ts'

/** Sends a request to the origin as it is, without its hop-by-hop fields. The response is private. */
export async function fetchOrigin(request: HttpRequest, origin: Origin): Promise<OriginResponse> {
  const { method, url, headers, signal } = request
  return origin({ method, url, headers: endToEndFields(headers), shared: false, signal })
}

export interface SharedRequestTerms {
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
