import {
  checkChoice,
  checkCount,
  checkDuration,
  checkFields,
  checkFunction,
  checkNumber,
} from '../../kernel/check.ts'
import { ON_UNAVAILABLE } from '../../locker/options.ts'
import { HTTP_CACHE_DEFAULTS, type HttpCacheOptions, type ResolvedHttpOptions } from './options.ts'

const KNOWN = [...Object.keys(HTTP_CACHE_DEFAULTS), 'key', 'tags', 'timeout']
const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/
/** A token of structured fields. RFC 8941 §3.3.4. */
const STATUS_NAME = /^[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*$/

/** The options with the defaults filled in, before they are checked. */
type Complete = Omit<ResolvedHttpOptions, 'methods'> & { methods: readonly string[] }

/** Checks the options and fills in the defaults. Throws TypeError. */
export function resolveHttpOptions(given: HttpCacheOptions): ResolvedHttpOptions {
  checkFields('options', given, KNOWN)
  const present = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined))
  const options: Complete = Object.assign({ ...HTTP_CACHE_DEFAULTS }, present as Complete)
  for (const name of ['key', 'tags'] as const) {
    if (options[name] !== undefined) checkFunction(name, options[name])
  }
  for (const name of ['ttl', 'errorTtl', 'staleWhileRevalidate', 'staleIfError'] as const) {
    checkDuration(name, options[name])
  }
  for (const name of ['heuristics', 'revalidate', 'shareSetCookie', 'shareAuthorized'] as const) {
    checkChoice(name, options[name], [true, false])
  }
  if (options.timeout !== undefined) checkDuration('timeout', options.timeout, { infinite: true })
  checkDuration('maxBodyTime', options.maxBodyTime, { infinite: true })
  checkNumber('maxBody', options.maxBody, 0, Number.MAX_SAFE_INTEGER)
  checkCount('maxUnshared', options.maxUnshared, 0)
  checkChoice('onUnavailable', options.onUnavailable, ON_UNAVAILABLE)
  const vary = checkTokens('vary', options.vary).map((name) => name.toLowerCase())
  if (vary.includes('*')) throw new TypeError('Expected `vary` to name fields, got `*`')
  const cookies = checkChoice('cookies', options.cookies, ['bypass', 'allow'] as const)
  return {
    ...options,
    key: options.key,
    tags: options.tags,
    timeout: options.timeout,
    vary,
    cookies: vary.includes('cookie') ? 'allow' : cookies,
    methods: checkMethods(options.methods, options.key !== undefined),
    cacheStatus: checkStatusName(options.cacheStatus),
  }
}

function checkTokens(name: string, value: readonly string[]): readonly string[] {
  if (Array.isArray(value) && value.every((token) => typeof token === 'string' && TOKEN.test(token)))
    return value
  throw new TypeError(`Expected \`${name}\` to be an array of tokens, got \`${String(value).slice(0, 80)}\``)
}

function checkMethods(value: readonly string[], keyed: boolean): ReadonlySet<string> {
  const methods = new Set(checkTokens('methods', value))
  const unusual = [...methods].find((method) => method !== 'GET' && method !== 'HEAD')
  if (unusual !== undefined && !keyed)
    throw new TypeError(
      `Expected a \`key\` beside the method ${unusual}: a URL does not tell its requests apart`,
    )
  return methods
}

function checkStatusName(value: string | false): string | false {
  if (value === false || (typeof value === 'string' && STATUS_NAME.test(value))) return value
  throw new TypeError(
    `Expected \`cacheStatus\` to be a token or false, got \`${String(value).slice(0, 80)}\``,
  )
}
