import { CONDITIONS, validatorsOf } from '../../policy/conditional.ts'
import { endToEnd } from '../../policy/fields.ts'
import { normalise } from '../../policy/vary.ts'
import type { HttpRequest, Origin, OriginRequest, OriginResponse } from '../message.ts'
import type { StoredResponse } from '../storage/stored-response.ts'

/** Asks the origin a request as it is, but for what is of its connection. */
export async function ask(request: HttpRequest, origin: Origin): Promise<OriginResponse> {
  const { method, url, headers, signal } = request
  return origin({ method, url, headers: endToEnd(headers), shared: false, signal })
}

/** What makes a question of a request. */
export interface QuestionTerms {
  signal: AbortSignal
  /** What the origin may confirm. */
  stored: StoredResponse | undefined
  /** Fields that it is not to see. */
  unkeyed: readonly string[]
  /** Whether the request has been answered already. */
  background: boolean
}

/**
 * What the origin is asked on behalf of all who may have the answer: without the conditions of the one who asks first,
 * which are held against the answer afterwards, and without the fields `unkeyed`; with the conditions under which `stored`
 * is still right, where there is one.
 */
export function question(
  { method, url, headers: given }: HttpRequest,
  { signal, stored, unkeyed, background }: QuestionTerms,
): OriginRequest {
  const headers = endToEnd(given)
  for (const name of CONDITIONS) delete headers[name]
  for (const name of unkeyed) delete headers[name]
  // What the key does not tell apart the origin must not either.
  if (typeof headers['host'] === 'string') headers['host'] = headers['host'].toLowerCase()
  normalise(headers)
  if (stored) Object.assign(headers, validatorsOf(stored.headers))
  return { method: method === 'HEAD' ? 'GET' : method, url, headers, shared: true, signal, background }
}
