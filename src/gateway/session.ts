import { createHmac, hkdfSync, timingSafeEqual } from 'node:crypto'
import type { AccessToken } from './options.ts'

/** How long a session lasts, seconds. */
export const SESSION_SECONDS: number = 12 * 60 * 60

/** Longest cookie that is looked at, characters. */
const MAX_LENGTH = 200

/**
 * Sessions of browsers, which nobody keeps: a session is a text that tells when it ends, signed with a key that is derived from
 * its token. Any gateway with the same token accepts it, and none does once the token is taken away. The token cannot be read
 * from it.
 */
export class Sessions {
  readonly #signers: readonly Signer[]

  constructor(tokens: readonly AccessToken[]) {
    this.#signers = tokens.map((grant) => ({ grant, key: keyOf(grant.token) }))
  }

  /** A session of the token, which begins at `now`, ms since the epoch. */
  start({ token }: AccessToken, now: number): string {
    const end = Math.floor(now / 1000) + SESSION_SECONDS
    return `${end}.${signature(keyOf(token), end).toString('base64url')}`
  }

  /** The token of a session that has not ended. */
  find(session: string, now: number): AccessToken | undefined {
    if (session.length > MAX_LENGTH) return undefined
    const [, digits, signed] = /^(\d{1,12})\.([\w-]+)$/.exec(session) ?? []
    const end = Number(digits)
    if (signed === undefined || end * 1000 <= now || end * 1000 > now + SESSION_SECONDS * 1000)
      return undefined
    const given = Buffer.from(signed, 'base64url')
    let found: AccessToken | undefined
    // All are tried: the time does not tell which one has signed.
    for (const { key, grant } of this.#signers) if (isEqual(signature(key, end), given)) found = grant
    return found
  }
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

/** The session in the Cookie header of a request to this host. */
export function sessionIn(cookies: string | undefined, host: string | undefined): string | undefined {
  const name = cookieName(host)
  for (const pair of (cookies ?? '').split(';')) {
    const [key = '', value] = pair.trim().split('=', 2)
    if (key === name && value) return value
  }
  return undefined
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
