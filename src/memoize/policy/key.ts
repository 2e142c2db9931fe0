import { digestOf } from '../../kernel/keys.ts'
import type { HeaderFields, HttpRequest } from '../engine/message.ts'
import type { ResolvedHttpOptions } from '../engine/options.ts'

/** Longer keys are replaced by their digest: they may contain whole header fields. */
const MAX_KEY_LENGTH = 2_048

/** Parts as one key, unambiguous whatever they contain. A long key becomes its SHA-256 over UTF-16. */
export function encodeKey(parts: readonly (string | null)[]): string {
  return bounded(JSON.stringify(parts))
}

function bounded(key: string): string {
  return key.length <= MAX_KEY_LENGTH ? key : digestOf(key)
}

/** The same for the target of most requests, in half the time of JSON: as lines. Only `path`, the last, may have several. */
function encodeTarget(method: string, scheme: string, host: string, path: string): string {
  const isPlain = !method.startsWith('[') && isLine(method) && isLine(scheme) && isLine(host)
  return isPlain ? bounded(`${method}\n${scheme}\n${host}\n${path}`) : encodeKey([method, scheme, host, path])
}

function isLine(text: string): boolean {
  return !text.includes('\n')
}

/**
 * The primary cache key of a request (RFC 9111 §2); undefined: the request bypasses the cache. GET and HEAD have the same.
 * @throws TypeError when the user's `key` returns anything but a string or undefined.
 */
export function primaryKeyOf(
  request: HttpRequest,
  { key }: Pick<ResolvedHttpOptions, 'key'>,
): string | undefined {
  const method = request.method === 'HEAD' ? 'GET' : request.method
  // The origin sees the absolute form, and may respond to it in another way.
  if (!request.url.startsWith('/')) return undefined
  if (key) {
    const custom: unknown = key(request)
    if (custom === undefined) return undefined
    if (typeof custom !== 'string')
      throw new TypeError(`Expected \`key\` to return a string or undefined, got ${typeof custom}`)
    return encodeKey([method, null, custom])
  }
  const target = targetOf(request)
  if (!target) return undefined
  const { host, path } = target
  const scheme = request.scheme?.toLowerCase() ?? ''
  const forwarded = forwardedOrigin(request.headers)
  return forwarded
    ? encodeKey([method, scheme, host, path, ...forwarded])
    : encodeTarget(method, scheme, host, path)
}

/** The scheme, host and port of the client's request as a proxy states them: handlers build URLs from these. */
function forwardedOrigin(headers: HeaderFields): string[] | undefined {
  const proto = headers['x-forwarded-proto']
  const host = headers['x-forwarded-host']
  const port = headers['x-forwarded-port']
  if (proto === undefined && host === undefined && port === undefined) return undefined
  return [proto, host, port].map((value) => String(value ?? ''))
}

const ABSOLUTE_FORM = /^https?:\/\/(?<authority>[^/?#@]+)(?<path>\/[^#]*)?$/i

/**
 * The host and the path of a request. The path is not normalized: the origin may tell `/a/../b` from `/b`. Undefined when
 * the host is ambiguous.
 */
export function targetOf({ url, headers }: HttpRequest): { host: string; path: string } | undefined {
  const field = headers['host'] ?? ''
  if (typeof field !== 'string' && field.length > 1) return undefined
  const host = String(field).toLowerCase()
  if (url.startsWith('/')) return { host, path: url }
  const { authority, path = '/' } = ABSOLUTE_FORM.exec(url)?.groups ?? {}
  // With two different hosts it is not known which one the response is for.
  return authority?.toLowerCase() === host ? { host, path } : undefined
}

/** The tags of a request. Throws TypeError when `tags` returns anything but an array of strings. */
export function tagsOf(request: HttpRequest, { tags }: Pick<ResolvedHttpOptions, 'tags'>): string[] {
  const names: unknown = tags?.(request) ?? []
  if (Array.isArray(names) && names.every((tag) => typeof tag === 'string')) return names
  throw new TypeError('Expected `tags` to return an array of strings')
}
