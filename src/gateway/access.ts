import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto'
import { CookieSessions, SESSION_SECONDS, sessionsIn } from './dashboard/cookie-sessions.ts'
import type { Caller, RouteContext } from './env.ts'
import { type AccessToken, type ResolvedGatewayOptions, SCOPES, type Scope, tokenHolder } from './options.ts'
import { Problem } from './problem.ts'

/** Most authorities that are remembered: a client chooses the port in its header. */
const MAX_KNOWN = 100

/** What a route does. Taking a job is a change. */
export type Effect = 'reads' | 'changes'

/** What a request needs to reach a route: a scope; to come to a host of ours, from no other page ('anyone'); nothing ('public'). */
export type RequiredScope = Scope | 'anyone' | 'public'

/**
 * Decides who may do what. Every route of the table has a scope and an effect, and its handler runs only when the request has
 * passed, in this order:
 *
 * 1. The host that it names is ours (421): otherwise a page could reach the gateway by DNS rebinding.
 * 2. It does not come from another origin's page, if the route changes or takes something (403). No token is looked at before:
 *    a gateway without tokens has no other protection against pages.
 * 3. Its token is known (401) and has the scope (403). The cookie of a session stands for its token. With it, a request that
 *    changes or takes must say that it comes from a page of ours: a browser sends the cookie by itself.
 *
 * A public route needs none of these: it says nothing of jobs, and a probe knows no host name.
 */
export class Access {
  readonly #hosts: ReadonlySet<string>
  /** Authorities that name one of them: to parse one costs more than all else that is checked. */
  readonly #ours = new Set<string>()
  /** Undefined: no token is needed. */
  readonly #tokens: readonly KnownToken[] | undefined
  readonly #sessions: CookieSessions
  readonly #key = randomBytes(32)

  constructor({ hosts, tokens }: ResolvedGatewayOptions) {
    this.#hosts = new Set(hosts)
    this.#tokens = tokens?.map((grant) => ({ digest: this.#digestOf(grant.token), grant }))
    this.#sessions = new CookieSessions(tokens ?? [])
  }

  /** Whether a caller needs a token. */
  get needsToken(): boolean {
    return this.#tokens !== undefined
  }

  /** The caller of a request; undefined if it has neither a token that is known nor a session. */
  caller({ req, env }: RouteContext): Caller | undefined {
    if (env.caller === undefined) env.caller = this.#callerOf((name) => req.header(name)) ?? null
    return env.caller ?? undefined
  }

  #callerOf(header: HeaderReader): Caller | undefined {
    if (!this.#tokens) return { scopes: SCOPES, by: 'nothing' }
    const authorization = header('authorization')
    if (authorization !== undefined) {
      const [, token] = /^bearer +([\w.~+/-]+=*) *$/i.exec(authorization) ?? []
      return token === undefined ? undefined : this.callerWith(token)
    }
    for (const session of sessionsIn(header('cookie'), header('host'))) {
      const found = this.#sessions.find(session, Date.now())
      if (found) return callerBySession(found.grant, found.until)
    }
    return undefined
  }

  /** The caller that has this token; undefined if it is not known. */
  callerWith(token: string): Caller | undefined {
    if (!this.#tokens) return { scopes: SCOPES, by: 'nothing' }
    const grant = this.#grantOf(token)
    return grant && { scopes: grant.scopes, name: grant.name, holder: tokenHolder(grant), by: 'token' }
  }

  /** Starts a session. Undefined if the token is not known. */
  startSession(token: string): { readonly caller: Caller; readonly session: string } | undefined {
    const grant = this.#grantOf(token)
    if (!grant) return undefined
    const now = Date.now()
    const until = now + SESSION_SECONDS * 1000
    return { caller: callerBySession(grant, until), session: this.#sessions.start(grant, now) }
  }

  /** @throws Problem if the request may not reach a route that needs this scope and has this effect. */
  check(context: RouteContext, scope: RequiredScope, effect: Effect): void {
    if (scope === 'public') return
    const { req } = context
    const authority = authorityOf(req.url)
    this.#checkHost(authority, req.header('host'))
    if (effect === 'changes') {
      checkOrigin(authority, req.header('origin'), req.header('sec-fetch-site'))
      // The router gives a HEAD to the route of GET.
      if (req.raw.method === 'HEAD')
        throw new Problem(405, 'method not allowed', { headers: { allow: 'GET' } })
    }
    if (scope !== 'anyone') this.#checkCaller(context, scope, effect)
  }

  /**
   * Checks a request to become a WebSocket, as a change is checked, but for its scope. Returns its caller; undefined if that must
   * say its token in its first message.
   * @throws Problem
   */
  checkUpgrade(url: URL, header: HeaderReader): Caller | undefined {
    this.#checkHost(url.host, header('host'))
    checkOrigin(url.host, header('origin'), header('sec-fetch-site'))
    const caller = this.#callerOf(header)
    if (caller) checkSession(caller, header)
    return caller
  }

  #checkHost(authority: string, header: string | undefined): void {
    if (this.#isOurs(authority) && (header === undefined || this.#isOurs(header))) return
    throw new Problem(421, 'unknown host', { detail: 'The option `hosts` of the gateway lists its names' })
  }

  #isOurs(authority: string): boolean {
    if (this.#ours.has(authority)) return true
    if (!this.#hosts.has(hostnameOf(authority))) return false
    if (this.#ours.size >= MAX_KNOWN) this.#ours.clear()
    this.#ours.add(authority)
    return true
  }

  #checkCaller(context: RouteContext, scope: Scope, effect: Effect): void {
    const { req } = context
    const caller = this.caller(context)
    if (!caller)
      throw new Problem(401, 'token required', {
        headers: {
          'www-authenticate':
            req.header('authorization') === undefined ? 'Bearer' : 'Bearer error="invalid_token"',
        },
      })
    if (effect === 'changes') checkSession(caller, (name) => req.header(name))
    checkScope(caller.scopes, scope)
  }

  /** The name of the token of a request; undefined if it has none, or none that is known. */
  nameOf(context: RouteContext): string | undefined {
    return this.caller(context)?.name
  }

  /** Compares with every token, in a time that does not depend on them. */
  #grantOf(token: string): AccessToken | undefined {
    const digest = this.#digestOf(token)
    let found: AccessToken | undefined
    for (const known of this.#tokens ?? []) if (timingSafeEqual(known.digest, digest)) found = known.grant
    return found
  }

  #digestOf(token: string): Buffer {
    return createHmac('sha256', this.#key).update(token).digest()
  }
}

function callerBySession(grant: AccessToken, until: number): Caller {
  return { scopes: grant.scopes, name: grant.name, holder: tokenHolder(grant), by: 'session', until }
}

/** Returns the value of a header of a request, by its name in lower case. */
type HeaderReader = (name: string) => string | undefined

/**
 * A browser sends the cookie of a session by itself: a change must say that it comes from a page of ours.
 * @throws Problem 403
 */
function checkSession({ by }: Caller, header: HeaderReader): void {
  const saysWhere = header('origin') !== undefined || header('sec-fetch-site') === 'same-origin'
  if (by === 'session' && !saysWhere) throw new Problem(403, 'cross-site request')
}

/** @throws Problem 403 unless one of the scopes allows what `needed` does. */
export function checkScope(scopes: readonly Scope[], needed: Scope): void {
  if (scopes.includes(needed) || scopes.includes('admin')) return
  throw new Problem(403, 'insufficient scope', {
    detail: `The token lacks the scope \`${needed}\``,
    headers: { 'www-authenticate': `Bearer error="insufficient_scope", scope="${needed}"` },
  })
}

interface KnownToken {
  digest: Buffer
  grant: AccessToken
}

/** What stands between the scheme and the path of a URL. */
function authorityOf(url: string): string {
  const start = url.indexOf('//') + 2
  return url.slice(start, url.indexOf('/', start))
}

/** The name in a Host header, as it stands in a URL. '' if it is malformed. */
function hostnameOf(authority: string): string {
  try {
    const url = new URL(`http://${authority}`)
    return url.username === '' && url.password === '' && url.pathname === '/' ? url.hostname : ''
  } catch {
    return ''
  }
}

/**
 * Refuses what a browser sends for the page of another origin. The schemes are not compared: behind a proxy that ends TLS, ours
 * is another one.
 * @throws Problem 403
 */
function checkOrigin(authority: string, origin: string | undefined, site: string | undefined): void {
  const isOurs = origin === undefined || hostOf(origin) === authority
  if (isOurs && (site === undefined || site === 'same-origin' || site === 'none')) return
  throw new Problem(403, 'cross-site request')
}

function hostOf(origin: string): string | undefined {
  try {
    return new URL(origin).host
  } catch {
    return undefined
  }
}
