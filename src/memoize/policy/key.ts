import { digestOf } from '../../kernel/redis/keys.ts'
import type { HeaderFields, HttpRequest } from '../engine/message.ts'
import type { ResolvedHttpOptions } from '../engine/options.ts'

/** Longer keys are kept by their digest: they may hold whole header fields. */
const MAX_LENGTH = 2_048

/** The parts as one key. Unambiguous, whatever they contain; those that are long stay apart by SHA-256 over UTF-16. */
export function keyFrom(parts: readonly (string | null)[]): string {
  return bounded(JSON.stringify(parts))
}

function bounded(key: string): string {
  return key.length <= MAX_LENGTH ? key : digestOf(key)
}

/** The same of the target of most requests, in half the time of JSON: as lines, the last of which may be several. */
function keyOfTarget(method: string, scheme: string, host: string, path: string): string {
  const isPlain = !method.startsWith('[') && isLine(method) && isLine(scheme) && isLine(host)
  return isPlain ? bounded(`${method}\n${scheme}\n${host}\n${path}`) : keyFrom([method, scheme, host, path])
}

function isLine(text: string): boolean {
  return !text.includes('\n')
}

/**
 * The key of the resource that a request names, whatever it varies by. Undefined when there is none: such a request has no
 * place in the cache. GET and HEAD name the same. Throws TypeError when `key` returns what is no key.
 */
export function keyOf(request: HttpRequest, { key }: Pick<ResolvedHttpOptions, 'key'>): string | undefined {
  const method = request.method === 'HEAD' ? 'GET' : request.method
  // Whoever answers sees the absolute form, and may answer that otherwise than the plain one.
  if (!request.url.startsWith('/')) return undefined
  if (key) {
    const own: unknown = key(request)
    if (own === undefined) return undefined
    if (typeof own !== 'string')
      throw new TypeError(`Expected \`key\` to return a string or undefined, got ${typeof own}`)
    return keyFrom([method, null, own])
  }
  const target = targetOf(request)
  if (!target) return undefined
  const { host, path } = target
  const scheme = request.scheme?.toLowerCase() ?? ''
  const seen = seenAs(request.headers)
  return seen ? keyFrom([method, scheme, host, path, ...seen]) : keyOfTarget(method, scheme, host, path)
}

/** Where the client sees the resource by the word of a proxy, which handlers rely upon. Undefined where none says so. */
function seenAs(headers: HeaderFields): string[] | undefined {
  const proto = headers['x-forwarded-proto']
  const host = headers['x-forwarded-host']
  const port = headers['x-forwarded-port']
  if (proto === undefined && host === undefined && port === undefined) return undefined
  return [proto, host, port].map((value) => String(value ?? ''))
}

const ABSOLUTE = /^https?:\/\/(?<authority>[^/?#@]+)(?<path>\/[^#]*)?$/i

/**
 * Host and path that a request is about, as they stand: whoever answers it may take `/a/../b` for something else than `/b`.
 * Undefined when that is not certain.
 */
export function targetOf({ url, headers }: HttpRequest): { host: string; path: string } | undefined {
  const field = headers['host'] ?? ''
  if (typeof field !== 'string' && field.length > 1) return undefined
  const host = String(field).toLowerCase()
  if (url.startsWith('/')) return { host, path: url }
  const { authority, path = '/' } = ABSOLUTE.exec(url)?.groups ?? {}
  // Of two hosts nobody knows which one the answer is for.
  return authority?.toLowerCase() === host ? { host, path } : undefined
}

/** The tags of a request. Throws TypeError when `tags` returns anything but an array of strings. */
export function tagsOf(request: HttpRequest, { tags }: Pick<ResolvedHttpOptions, 'tags'>): string[] {
  const own: unknown = tags?.(request) ?? []
  if (Array.isArray(own) && own.every((tag) => typeof tag === 'string')) return own
  throw new TypeError('Expected `tags` to return an array of strings')
}
