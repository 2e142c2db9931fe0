import type { HttpRequest } from '../engine/message.ts'
import type { ResolvedHttpOptions } from '../engine/options.ts'
import type { Forwarded } from './cache-status.ts'
import { linesOf, namesOthers } from './fields.ts'
import { overridesMethod, unkeyedFields } from './unkeyed.ts'

/** Methods that change nothing. RFC 9110 §9.2.1, and those of WebDAV. */
const SAFE: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS', 'TRACE', 'PROPFIND', 'REPORT', 'SEARCH'])

/** What is done with a request: answered from the cache if possible, handed on, or handed on and then made to invalidate. */
export type Route = 'cache' | 'invalidate' | Forwarded

export function routeOf(request: HttpRequest, options: ResolvedHttpOptions): Route {
  const { method, headers } = request
  if (!options.methods.has(method)) return SAFE.has(method) ? 'method' : 'invalidate'
  const plain = method === 'GET' || method === 'HEAD'
  if (plain && hasBody(request)) return 'bypass'
  // The answer would be to another question than the one it is kept for.
  if (namesOthers(headers)) return 'bypass'
  if (!plain && overridesMethod(headers)) return 'bypass'
  if (options.unkeyed === 'bypass' && unkeyedFields(request, options).length > 0) return 'bypass'
  if (headers['cookie'] !== undefined && options.cookies === 'bypass') return 'bypass'
  // They ask for an error when the state is another: only the origin knows the state.
  if (headers['if-match'] !== undefined || headers['if-unmodified-since'] !== undefined) return 'bypass'
  return 'cache'
}

function hasBody({ headers }: HttpRequest): boolean {
  if (headers['transfer-encoding'] !== undefined) return true
  if (headers['content-length'] === undefined) return false
  return linesOf(headers, 'content-length').some((length) => length.trim() !== '0')
}
