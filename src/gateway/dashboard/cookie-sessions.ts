import { createHmac, hkdfSync, timingSafeEqual } from 'node:crypto'
import type { AccessToken } from '../options.ts'

/** How long a session lasts, seconds. */
export const SESSION_SECONDS: number = 12 * 60 * 60

/** Longest cookie that is looked at, characters. */
const MAX_LENGTH = 200

/** Most cookies of the same name that are looked at. */
const MAX_COOKIES = 4

/** The clock of the gateway that has started a session may be ahead by so much, seconds. */
const MAX_SKEW = 60

/**
 * Sessions of browsers, which nobody keeps: a session is a text that tells when it ends, signed with a key that is derived from
 * its token. Any gateway with the same token accepts it, and none does once the token is taken away. The token cannot be read
 * from it.
 */
export class CookieSessions {
  readonly #signers: readonly Signer[]

  constructor(tokens: readonly AccessToken[]) {
    this.#signers = tokens.map((grant) => ({ grant, key: keyOf(grant.token) }))
  }

  /** A session of the token, which begins at `now`, ms since the epoch. */
  start({ token }: AccessToken, now: number): string {
    const end = Math.floor(now / 1000) + SESSION_SECONDS
    return `${end}.${signature(keyOf(token), end).toString('base64url')}`
  }

  /** The token of a session that has not ended, and its end, ms since the epoch. */
  find(session: string, now: number): FoundSession | undefined {
    if (session.length > MAX_LENGTH) return undefined
    const [, digits, signed] = /^(\d{1,12})\.([\w-]+)$/.exec(session) ?? []
    const end = Number(digits)
    const left = end - now / 1000
    if (signed === undefined || left <= 0 || left > SESSION_SECONDS + MAX_SKEW) return undefined
    const given = Buffer.from(signed, 'base64url')
    let found: AccessToken | undefined
    // All are tried: the time does not tell which one has signed.
    for (const { key, grant } of this.#signers) if (isEqual(signature(key, end), given)) found = grant
    return found && { grant: found, until: end * 1000 }
  }
}

interface FoundSession {
  readonly grant: AccessToken
  readonly until: number
}

interface Signer {
  readonly grant: AccessToken
  readonly key: Buffer
}

function keyOf(token: string): Buffer {
  return Buffer.from(hkdfSync('sha256', token, '', 'soloflight session', 32))
}

function signature(key: Buffer, end: number): Buffer {
  return createHmac('sha256', key).update(String(end)).digest()
}

function isEqual(one: Buffer, other: Buffer): boolean {
  return one.length === other.length && timingSafeEqual(one, other)
}

/**
 * The name of the cookie. The browser sends a cookie to every port of a host: gateways on different ports do not overwrite
 * each other's.
 */
function cookieName(host: string | undefined): string {
  const [, port = ''] = /:(\d{1,5})$/.exec(host ?? '') ?? []
  return `soloflight-session${port && `-${port}`}`
}

/**
 * The sessions in the Cookie header of a request to this host. There may be more than one: another page of the same site can set
 * a cookie of this name for a longer path, which comes first.
 */
export function sessionsIn(cookies: string | undefined, host: string | undefined): string[] {
  const name = cookieName(host)
  return (cookies ?? '')
    .split(';')
    .map((pair) => pair.trim().split('=', 2))
    .flatMap(([key, value]) => (key === name && value ? [value] : []))
    .slice(0, MAX_COOKIES)
}

interface CookieOptions {
  readonly host: string | undefined
  readonly basePath: string
  readonly isSecure: boolean
  /** Seconds. 0: it is taken away. */
  readonly age: number
}

/** The Set-Cookie header of a session. No script can read it, and no request of another site carries it. */
export function cookieOf(session: string, { host, basePath, isSecure, age }: CookieOptions): string {
  const secure = isSecure ? '; Secure' : ''
  return `${cookieName(host)}=${session}; Path=${basePath || '/'}; Max-Age=${age}; HttpOnly; SameSite=Strict${secure}`
}
