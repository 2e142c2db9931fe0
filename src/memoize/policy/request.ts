/**
 * How the cache reads a request: what is done with it, and by which keys its response is found.
 *
 * - Route: safe methods (RFC 9110 §9.2.1), preconditions (§13.1)
 * - Request directives (RFC 9111 §5.2.1, Pragma §5.4)
 * - Primary cache key (RFC 9111 §2) and tags
 * - Fields that the key does not cover
 * - Variants: Vary and the variant key (RFC 9111 §4.1, RFC 9110 §12.5.5)
 */

import { digestOf } from '../../kernel/keys.ts'
import type { HeaderFields, HttpRequest } from '../engine/message.ts'
import type { ResolvedHttpOptions } from '../engine/options.ts'
import { CacheControl, connectionNamesFields, linesOf, listField, parseList } from './fields.ts'

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

/** Why a request is forwarded to the origin: `fwd` of Cache-Status. RFC 9211 §2.2. */
export type ForwardReason = 'bypass' | 'method' | 'request' | 'uri-miss' | 'vary-miss' | 'stale' | 'miss'

/** How a request is handled: looked up, forwarded (for a reason), or forwarded and followed by an invalidation. */
export type Route = 'cache' | 'invalidate' | ForwardReason

export function routeOf(request: HttpRequest, options: ResolvedHttpOptions): Route {
  const { method, headers } = request
  if (!options.methods.has(method)) return SAFE_METHODS.has(method) ? 'method' : 'invalidate'
  const plain = method === 'GET' || method === 'HEAD'
  if (plain && hasBody(request)) return 'bypass'
  // The origin would see another request than the key stands for.
  if (connectionNamesFields(headers)) return 'bypass'
  // A framework may replace the method.
  if (!plain && METHOD_OVERRIDE_FIELDS.some((name) => headers[name] !== undefined)) return 'bypass'
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

/** The Cache-Control directives of a request. Durations are ms. RFC 9111 §5.2.1. */
export interface RequestDirectives {
  /** The response must not be stored. */
  noStore: boolean
  /** A stored response needs validation. */
  noCache: boolean
  /** The greatest age that the client accepts. */
  maxAge: number
  /** The least remaining freshness lifetime that the client accepts. */
  minFresh: number
  /** The greatest staleness that the client accepts. */
  maxStale: number
  /** The origin must not be called. */
  onlyIfCached: boolean
}

/** The directives of a request that has none. */
export const NO_DIRECTIVES: RequestDirectives = {
  noStore: false,
  noCache: false,
  maxAge: Number.POSITIVE_INFINITY,
  minFresh: 0,
  maxStale: 0,
  onlyIfCached: false,
}

export function requestDirectives(headers: HeaderFields): RequestDirectives {
  const lines = linesOf(headers, 'cache-control')
  if (lines.length === 0) {
    // Pragma counts only without Cache-Control. RFC 9111 §5.4.
    if (headers['pragma'] === undefined) return NO_DIRECTIVES
    const noCache = new CacheControl(linesOf(headers, 'pragma')).has('no-cache')
    return noCache ? { ...NO_DIRECTIVES, noCache } : NO_DIRECTIVES
  }
  const control = new CacheControl(lines)
  const duration = (name: string, absent: number): number => {
    const seconds = control.seconds(name)
    return seconds === undefined ? absent : seconds * 1_000
  }
  return {
    noStore: control.has('no-store'),
    noCache: control.has('no-cache'),
    maxAge: duration('max-age', Number.POSITIVE_INFINITY),
    minFresh: duration('min-fresh', 0),
    maxStale: control.hasNoArgument('max-stale') ? Number.POSITIVE_INFINITY : duration('max-stale', 0),
    onlyIfCached: control.has('only-if-cached'),
  }
}

/** Longer keys are replaced by their digest: they may contain whole header fields. */
const MAX_KEY_LENGTH = 2_048

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

/** The parts as one key, unambiguous whatever they contain. A long key becomes its SHA-256 over UTF-16. */
function encodeKey(parts: readonly (string | null)[]): string {
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

/** Fields by which proxies state the client or its request, and on which frameworks act. */
const FORWARDING_FIELDS: readonly string[] = [
  'cf-connecting-ip',
  'cf-pseudo-ipv4',
  'cf-visitor',
  'client-ip',
  'cloudfront-forwarded-proto',
  'fastly-client-ip',
  'fly-client-ip',
  'forwarded',
  'forwarded-for',
  'front-end-https',
  'true-client-ip',
  'x-appengine-user-ip',
  'x-azure-clientip',
  'x-client-ip',
  'x-cluster-client-ip',
  'x-envoy-external-address',
  'x-forwarded',
  'x-forwarded-by',
  'x-forwarded-client-cert',
  'x-forwarded-for',
  'x-forwarded-host',
  'x-forwarded-path',
  'x-forwarded-port',
  'x-forwarded-prefix',
  'x-forwarded-proto',
  'x-forwarded-protocol',
  'x-forwarded-scheme',
  'x-forwarded-server',
  'x-forwarded-ssl',
  'x-forwarded-uri',
  'x-forwarded-user',
  'x-host',
  'x-http-host-override',
  'x-original-forwarded-for',
  'x-original-host',
  'x-original-uri',
  'x-original-url',
  'x-real-ip',
  'x-remote-user',
  'x-rewrite-url',
  'x-scheme',
  'x-url-scheme',
]

/** Fields by which frameworks replace the method of a request. */
const METHOD_OVERRIDE_FIELDS: readonly string[] = [
  'x-http-method',
  'x-http-method-override',
  'x-method-override',
]

const UNKEYED_FIELDS: readonly string[] = [...FORWARDING_FIELDS, ...METHOD_OVERRIDE_FIELDS]

/** The fields of these lists that a request has and that neither `vary` nor its key covers. */
export function unkeyedFields(request: HttpRequest, options: ResolvedHttpOptions): string[] {
  const { headers } = request
  const present = UNKEYED_FIELDS.filter((name) => headers[name] !== undefined && !options.vary.includes(name))
  if (present.length === 0) return present
  const key = primaryKeyOf(request, options)
  return present.filter((name) => {
    const { [name]: _, ...others } = headers
    return primaryKeyOf({ ...request, headers: others }, options) === key
  })
}

/** The request fields that select the variant of a resource. RFC 9111 §4.1. */
export interface VaryIndex {
  /** Lower case, sorted. */
  readonly names: readonly string[]
  /** Random, and part of the variants' keys: the variants of an invalidated index cannot be found again. */
  readonly id: string
}

/** The field names in Vary, and those of `always`: lower case, sorted, without duplicates. */
export function varyNames(headers: HeaderFields, always: readonly string[] = []): string[] {
  const names = listField(headers, 'vary').map((name) => name.toLowerCase())
  return [...new Set([...names, ...always])].sort()
}

/** Whether a response allows exactly the Origin of its request: it is useless to other origins, so it varies by Origin. */
export function reflectsOrigin(request: HeaderFields, response: HeaderFields): boolean {
  const { origin } = request
  return origin !== undefined && response['access-control-allow-origin'] === origin
}

/** The key of the variant that a request selects: unambiguous, whatever the fields contain. */
export function variantKey(primaryKey: string, index: VaryIndex, headers: HeaderFields): string {
  const values = index.names.map((name) => normalizedValue(name, linesOf(headers, name)))
  return encodeKey([primaryKey, index.id, ...values])
}

/** Lists of names and weights, in which case and whitespace have no meaning. The order may have one. */
const CASE_INSENSITIVE_LISTS: ReadonlySet<string> = new Set([
  'accept-charset',
  'accept-encoding',
  'accept-language',
])

/** Normalizes the fields of a request as the key of a variant does: the origin must not see more than the key covers. */
export function normalizeFields(headers: HeaderFields): void {
  for (const name of CASE_INSENSITIVE_LISTS) {
    const value = normalizedValue(name, linesOf(headers, name))
    if (value !== null) headers[name] = value
  }
}

/**
 * The lines of a field as one value; null when it is absent, which differs from empty. Only differences that are known to
 * have no meaning are removed. RFC 9111 §4.1.
 */
function normalizedValue(name: string, lines: readonly string[]): string | null {
  if (lines.length === 0) return null
  const value = lines.map((line) => line.trim()).join(', ')
  if (!CASE_INSENSITIVE_LISTS.has(name)) return value
  const list = parseList(value)
    .map((member) => withoutWhitespace(member).toLowerCase())
    .join(',')
  return name === 'accept-language' ? list.replace(LANGUAGE_SUBTAG, conventionalCase) : list
}

/** Removes whitespace around `;` and `=`. A regular expression for it would take quadratic time. */
function withoutWhitespace(member: string): string {
  return member
    .split(/([;=])/)
    .map((part) => part.trim())
    .join('')
}

const LANGUAGE_SUBTAG = /-[a-z]{2}(?![a-z0-9])|-[a-z]{4}(?![a-z0-9])/g

/** The conventional case of a subtag: `en-US`, `zh-Hant`. RFC 5646 §2.1.1. */
function conventionalCase(subtag: string): string {
  return subtag.length === 3 ? subtag.toUpperCase() : `-${subtag.charAt(1).toUpperCase()}${subtag.slice(2)}`
}
