import {
  type Complete,
  checkDuration,
  checkFlag,
  checkFunction,
  checkOptions,
  checkTimeout,
  countFrom,
  defaultsOf,
  expectedError,
  numberBetween,
  type OptionTable,
  oneOf,
  withDefaults,
} from '../../kernel/options.ts'
import { ON_UNAVAILABLE, type OnUnavailable } from '../../locker/internal.ts'
import { isToken } from '../policy/fields.ts'
import type { HttpRequest } from './message.ts'

/**
 * Options of an HTTP cache. `Request` is what the functions receive: a request as the adapter sees it. Durations are in
 * milliseconds, sizes in bytes. Freshness that a response states itself (Cache-Control, Expires) takes precedence over
 * `ttl`, `errorTtl`, `staleWhileRevalidate` and `staleIfError`.
 */
export interface HttpCacheOptions<Request extends HttpRequest = HttpRequest> {
  /**
   * Returns the key of the resource that a request names, in place of the default; undefined: the request bypasses the
   * cache. The default consists of the scheme, the host in lower case, path and query as received, and X-Forwarded-Proto,
   * X-Forwarded-Host and X-Forwarded-Port. In either case the method (HEAD counts as GET) and the request fields in `vary`
   * and in the response's Vary (RFC 9111 §4.1) are part of the cache key.
   *
   * A shared response must not depend on anything else:
   * - A response that depends on another request field must have that field in the key, in `vary` or in its Vary.
   *   Otherwise any client can poison the cache.
   * - A response that depends on the client by other means than Cookie and Authorization (an API key, an address) must be
   *   `Cache-Control: private`, or have that in the key or in `vary`.
   * - Caches whose lockers have the same prefix share their entries. If they respond differently, give them different
   *   prefixes or keys.
   *
   * A request fails with a TypeError when the function returns anything but a string or undefined.
   */
  key?: ((request: Request) => string | undefined) | undefined
  /**
   * Freshness lifetime of a successful response or redirect that states none, ms. It applies to statuses that are
   * heuristically cacheable (RFC 9110 §15.1) and to responses with `Cache-Control: public`.
   * @default 0 (only requests that wait for the response share it)
   */
  ttl?: number | undefined
  /**
   * Freshness lifetime of an error about the resource (404, 410, 414, 451, 5xx) that states none, ms. Other errors without
   * a stated lifetime are private. So are exceptions of the handler, and a 500 where this is 0.
   * @default 0 (only requests that wait for the response share it)
   */
  errorTtl?: number | undefined
  /**
   * How long past its freshness lifetime a response is served while one process refreshes it, ms. RFC 5861 §3.
   * @default 0
   */
  staleWhileRevalidate?: number | undefined
  /**
   * How long past its freshness lifetime a response is served when the origin fails, ms. RFC 5861 §4.
   * @default 0
   */
  staleIfError?: number | undefined
  /**
   * Methods whose responses are shared. Methods other than GET and HEAD require a `key`, which must cover what matters of
   * the body.
   * @default ['GET', 'HEAD']
   */
  methods?: readonly string[] | undefined
  /**
   * Request fields that every response varies by, whether its Vary names them or not.
   * @default []
   */
  vary?: readonly string[] | undefined
  /**
   * Maximum size of a stored body, bytes. A response with a longer body is private.
   * @default 8_388_608
   */
  maxBody?: number | undefined
  /**
   * Maximum time between the head of a response and the end of its body, ms; at most half of `timeout`. A slower response
   * is private.
   * @default 30_000
   */
  maxBodyTime?: number | undefined
  /**
   * Maximum size of all bodies that this process records at once and that their clients have not read yet, bytes. Further
   * responses are private, and stream at the pace of their clients.
   * @default 67_108_864
   */
  maxRecorded?: number | undefined
  /**
   * Maximum number of entries that this process has stored. The oldest are invalidated.
   * @default 100_000
   */
  maxKept?: number | undefined
  /**
   * Maximum size of the entries that this process has stored, bytes, by estimate. The oldest are invalidated.
   * @default 268_435_456
   */
  maxKeptBytes?: number | undefined
  /**
   * Maximum number of variants of a resource (see Vary) that this process has stored. A further variant is shared only by
   * the requests that wait for it.
   * @default 100
   */
  maxVariants?: number | undefined
  /**
   * Whether a response without a stated lifetime is fresh for a tenth of the time since its Last-Modified, at most a day.
   * RFC 9111 §4.2.2.
   * @default false
   */
  heuristics?: boolean | undefined
  /**
   * Whether the origin answers conditional requests with 304. Stale responses with a validator are then kept for a day and
   * validated instead of fetched again. RFC 9111 §4.3.
   * @default false
   */
  revalidate?: boolean | undefined
  /**
   * How requests with a Cookie are treated. 'bypass': they are forwarded, and their responses are private. 'allow': like
   * any other request; correct only if no shared response depends on cookies, or if `key` covers those that it depends on.
   * 'cookie' in `vary` implies 'allow'.
   * @default 'bypass'
   */
  cookies?: 'bypass' | 'allow' | undefined
  /**
   * How request fields are treated that proxies set, frameworks act on, and neither the key nor `vary` covers
   * (X-Forwarded-For, Forwarded, X-Real-IP, X-Original-URL, X-HTTP-Method-Override and others). 'strip': the origin does
   * not receive them with a request whose response is shared. 'bypass': such requests are forwarded, and their responses
   * are private. 'allow': the origin receives them; correct only if no shared response depends on them. X-Forwarded-Proto,
   * -Host and -Port are covered by the default key, but not by your own.
   * @default 'strip'
   */
  unkeyed?: 'strip' | 'bypass' | 'allow' | undefined
  /**
   * Whether responses with Set-Cookie are shared. All clients then receive the same cookies.
   * @default false
   */
  shareSetCookie?: boolean | undefined
  /**
   * Whether responses to requests with Authorization are shared even without `public`, `s-maxage` or `must-revalidate`.
   * RFC 9111 §3.5.
   * @default false
   */
  shareAuthorized?: boolean | undefined
  /**
   * The name of the cache in the Cache-Status field (RFC 9211) that it adds to responses. False: no field is added.
   * @default 'soloflight'
   */
  cacheStatus?: string | false | undefined
  /** Returns the tags of the entry for a request, for `locker.invalidateTags`. A TypeError if it returns anything else. */
  tags?: ((request: Request) => string[]) | undefined
  /**
   * How long a request waits for a shared response, and how long the origin may take to begin one, ms. After that the
   * request gets a 504, and the origin's signal aborts.
   * @default the `timeout` of the locker
   */
  timeout?: number | undefined
  /**
   * The response to a request while Redis is unavailable.
   * - 'local': the handler runs, once for all requests that wait in this process.
   * - 'fail': 503.
   * - 'cached': what this process has in memory, fresh or within its stale-if-error; otherwise 503. An invalidation by
   *   another process may have been missed: Cache-Status has `detail=unverified`.
   * - 'cached-local': what this process has in memory; otherwise the handler runs.
   * @default 'cached-local'
   */
  onUnavailable?: OnUnavailable | undefined
  /**
   * Maximum number of handlers that run at once for this process alone while Redis is unavailable. Further requests get a 503.
   * @default 100
   */
  maxUnshared?: number | undefined
}

/** The options that have a constant default. */
export type HttpCacheDefaults = Readonly<Complete<Omit<HttpCacheOptions, 'key' | 'tags' | 'timeout'>>>

/** Options after validation, with their defaults. */
export interface ResolvedHttpOptions
  extends Omit<HttpCacheDefaults, 'methods'>,
    Pick<HttpCacheOptions, 'key' | 'tags' | 'timeout'> {
  methods: ReadonlySet<string>
}

/** A token of structured fields. RFC 8941 §3.3.4. */
const SF_TOKEN = /^[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*$/

const HTTP_CACHE_OPTIONS: OptionTable<HttpCacheOptions, HttpCacheDefaults> = {
  ttl: [checkDuration, 0],
  errorTtl: [checkDuration, 0],
  staleWhileRevalidate: [checkDuration, 0],
  staleIfError: [checkDuration, 0],
  methods: [checkTokens, ['GET', 'HEAD']],
  vary: [checkTokens, []],
  maxBody: [numberBetween(0, Number.MAX_SAFE_INTEGER), 8 * 1024 * 1024],
  maxBodyTime: [checkTimeout, 30_000],
  maxRecorded: [countFrom(0), 64 * 1024 * 1024],
  maxKept: [countFrom(1), 100_000],
  maxKeptBytes: [countFrom(1), 256 * 1024 * 1024],
  maxVariants: [countFrom(1), 100],
  heuristics: [checkFlag, false],
  revalidate: [checkFlag, false],
  cookies: [oneOf(['bypass', 'allow']), 'bypass'],
  unkeyed: [oneOf(['strip', 'bypass', 'allow']), 'strip'],
  shareSetCookie: [checkFlag, false],
  shareAuthorized: [checkFlag, false],
  cacheStatus: [checkStatusName, 'soloflight'],
  onUnavailable: [oneOf(ON_UNAVAILABLE), 'cached-local'],
  maxUnshared: [countFrom(0), 100],
  key: [checkFunction],
  tags: [checkFunction],
  timeout: [checkTimeout],
}

/** The values of options that are absent. */
export const HTTP_CACHE_DEFAULTS: HttpCacheDefaults = defaultsOf(HTTP_CACHE_OPTIONS)

/** Validates the options and adds the defaults. @throws TypeError */
export function resolveHttpOptions(given: HttpCacheOptions): ResolvedHttpOptions {
  checkOptions(given, HTTP_CACHE_OPTIONS)
  const options = withDefaults(given, HTTP_CACHE_DEFAULTS)
  const { key, tags, timeout } = given
  const vary = options.vary.map((name) => name.toLowerCase())
  if (vary.includes('*')) throw new TypeError('Expected `vary` to name fields, got `*`')
  const cookies = vary.includes('cookie') ? 'allow' : options.cookies
  return {
    ...options,
    key,
    tags,
    timeout,
    vary,
    cookies,
    methods: resolveMethods(options.methods, key !== undefined),
  }
}

function checkTokens(name: string, value: unknown): void {
  if (Array.isArray(value) && value.every((token) => typeof token === 'string' && isToken(token))) return
  throw expectedError(name, 'an array of tokens', value)
}

function resolveMethods(names: readonly string[], keyed: boolean): ReadonlySet<string> {
  const unusual = names.find((method) => method !== 'GET' && method !== 'HEAD')
  if (unusual !== undefined && !keyed)
    throw new TypeError(
      `Expected a \`key\` beside the method ${unusual}: a URL does not tell its requests apart`,
    )
  return new Set(names)
}

function checkStatusName(name: string, value: unknown): void {
  if (value === false || (typeof value === 'string' && SF_TOKEN.test(value))) return
  throw expectedError(name, 'a token or false', value)
}
