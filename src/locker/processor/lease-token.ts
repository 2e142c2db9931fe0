import { checkKey } from '../../kernel/keys.ts'
import type { GrantRef } from '../store/store.ts'

/** A grant, and how long its lease is, ms. */
export interface TokenGrant extends GrantRef {
  lease: number
}

/** Shortest lease, as of every lock, ms. */
const MIN_LEASE = 100

/** Inbox and nonce of the owner, attempt, fence, lease, and the key as JSON. */
const TOKEN = /^([\w-]{22})([\w-]{22})\.(\d{1,16})\.(\d{1,16})\.(\d{1,16})\.(".+")$/s

/**
 * The token of a grant, in base64url. Inbox and nonce of its owner are random, 256 bits together: whoever was not given the
 * token cannot guess it.
 */
export function createToken(
  key: string,
  { nonce, attempt, fence, lease }: Omit<TokenGrant, 'record'>,
  inbox: string,
): string {
  const text = `${inbox}${nonce}.${attempt}.${fence}.${lease}.${JSON.stringify(key)}`
  return Buffer.from(text).toString('base64url')
}

/** @throws TypeError unless `token` has the form of one. Its parts may be forged: the store compares them. */
export function parseToken(
  token: string,
): Omit<TokenGrant, 'record'> & { readonly key: string; readonly inbox: string } {
  const parts = typeof token === 'string' && TOKEN.exec(Buffer.from(token, 'base64url').toString())
  if (!parts) throw invalidToken()
  const [, inbox = '', nonce = '', ...rest] = parts
  const [attempt = 0, fence = 0, lease = 0] = rest.slice(0, 3).map(Number)
  if (![attempt, fence, lease].every(Number.isSafeInteger)) throw invalidToken()
  if (lease < MIN_LEASE) throw invalidToken()
  return { key: keyOf(rest[3] ?? ''), inbox, nonce, attempt, fence, lease }
}

function keyOf(json: string): string {
  try {
    const key: unknown = JSON.parse(json)
    checkKey(key)
    return key
  } catch {
    throw invalidToken()
  }
}

/** Does not show it: it may be a token with a slip. */
function invalidToken(): TypeError {
  return new TypeError('Expected `token` to be the token of a lease')
}
