import type { HttpRequest } from '../engine/message.ts'
import type { ResolvedHttpOptions } from '../engine/options.ts'
import type { ForwardReason } from './cache-status.ts'
import { connectionNamesFields, linesOf } from './fields.ts'
import { overridesMethod, unkeyedFields } from './unkeyed.ts'

/** Safe methods. RFC 9110 §9.2.1, RFC 4918, RFC 3253, RFC 5323. */
const SAFE_METHODS: ReadonlySet<string> = new Set([
  'GET',
  'HEAD',
  'OPTIONS',
  'TRACE',
  'PROPFIND',
  'REPORT',
  'SEARCH',
])

/** How a request is handled: looked up, forwarded (for a reason), or forwarded and followed by an invalidation. */
export type Route = 'cache' | 'invalidate' | ForwardReason

export function routeOf(request: HttpRequest, options: ResolvedHttpOptions): Route {
  const { method, headers } = request
  if (!options.methods.has(method)) return SAFE_METHODS.has(method) ? 'method' : 'invalidate'
  const plain = method === 'GET' || method === 'HEAD'
  if (plain && hasBody(request)) return 'bypass'
  // The origin would see another request than the key stands for.
  if (connectionNamesFields(headers)) return 'bypass'
  if (!plain && overridesMethod(headers)) return 'bypass'
  if (options.unkeyed === 'bypass' && unkeyedFields(request, options).length > 0) return 'bypass'
  if (headers['cookie'] !== undefined && options.cookies === 'bypass') return 'bypass'
  // Only the origin knows the current state. RFC 9110 §13.1.1, §13.1.4.
  if (headers['if-match'] !== undefined || headers['if-unmodified-since'] !== undefined) return 'bypass'
  return 'cache'
}

function hasBody({ headers }: HttpRequest): boolean {
  if (headers['transfer-encoding'] !== undefined) return true
  if (headers['content-length'] === undefined) return false
  return linesOf(headers, 'content-length').some((length) => length.trim() !== '0')
}
