import {
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
import { ON_UNAVAILABLE } from '../../locker/internal.ts'
import type { HttpCacheDefaults, HttpCacheOptions, ResolvedHttpOptions } from './options.ts'

const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/
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
  if (Array.isArray(value) && value.every((token) => typeof token === 'string' && TOKEN.test(token))) return
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
