import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto'
import type { RouteContext } from './env.ts'
import type { AccessToken, ResolvedGatewayOptions, Scope } from './options.ts'
import { Problem } from './problem.ts'

/** What a route does. Taking a job is a change. */
export type Effect = 'reads' | 'changes'

/** What a request needs to reach a route: a scope, or nothing ('public'). */
export type RequiredScope = Scope | 'public'

/**
 * Decides who may do what. Every route of the table has a scope and an effect, and its handler runs only when the request has
 * passed, in this order:
 *
 * 1. The host that it names is ours (421): otherwise a page could reach the gateway by DNS rebinding.
 * 2. It does not come from another origin's page, if the route changes or takes something (403). No token is looked at before:
 *    a gateway without tokens has no other protection against pages.
 * 3. Its token is known (401) and has the scope (403).
 *
 * A public route needs none of these: it tells a probe, which knows no host name, whether the process lives.
 */
export class Access {
  readonly #hosts: ReadonlySet<string>
  /** Undefined: no token is needed. */
  readonly #tokens: readonly KnownToken[] | undefined
  readonly #key = randomBytes(32)

  constructor({ hosts, tokens }: ResolvedGatewayOptions) {
    this.#hosts = new Set(hosts)
    this.#tokens = tokens?.map(({ token, scopes }) => ({ digest: this.#digestOf(token), scopes }))
  }

  /** @throws Problem if the request may not reach a route that needs this scope and has this effect. */
  check({ req }: RouteContext, scope: RequiredScope, effect: Effect): void {
    if (scope === 'public') return
    const url = new URL(req.url)
    this.#checkHost(url, req.header('host'))
    if (effect === 'changes') {
      checkOrigin(url, req.header('origin'), req.header('sec-fetch-site'))
      // The router gives a HEAD to the route of GET.
      if (req.raw.method === 'HEAD')
        throw new Problem(405, 'method not allowed', { headers: { allow: 'GET' } })
    }
    if (this.#tokens) this.#checkToken(this.#tokens, scope, req.header('authorization'))
  }

  #checkHost(url: URL, header: string | undefined): void {
    if (this.#hosts.has(url.hostname) && (header === undefined || this.#hosts.has(hostnameOf(header)))) return
    throw new Problem(421, 'unknown host', { detail: 'The option `hosts` of the gateway lists its names' })
  }

  #checkToken(tokens: readonly KnownToken[], scope: Scope, header: string | undefined): void {
    const [, token] = /^bearer +([\w.~+/-]+=*) *$/i.exec(header ?? '') ?? []
    const scopes = token === undefined ? undefined : this.#scopesOf(tokens, token)
    if (scopes?.includes(scope) || scopes?.includes('admin')) return
    if (scopes)
      throw new Problem(403, 'insufficient scope', {
        detail: `The token lacks the scope \`${scope}\``,
        headers: { 'www-authenticate': `Bearer error="insufficient_scope", scope="${scope}"` },
      })
    throw new Problem(401, 'token required', {
      headers: { 'www-authenticate': header === undefined ? 'Bearer' : 'Bearer error="invalid_token"' },
    })
  }

  /** Compares with every token, in a time that does not depend on them. */
  #scopesOf(tokens: readonly KnownToken[], token: string): readonly Scope[] | undefined {
    const digest = this.#digestOf(token)
    let found: readonly Scope[] | undefined
    for (const known of tokens) if (timingSafeEqual(known.digest, digest)) found = known.scopes
    return found
  }

  #digestOf(token: string): Buffer {
    return createHmac('sha256', this.#key).update(token).digest()
  }
}

interface KnownToken {
  digest: Buffer
  scopes: AccessToken['scopes']
}

/** The name in a Host header, as it stands in a URL. '' if it is malformed. */
function hostnameOf(header: string): string {
  try {
    const url = new URL(`http://${header}`)
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
function checkOrigin(url: URL, origin: string | undefined, site: string | undefined): void {
  const isOurs = origin === undefined || hostOf(origin) === url.host
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
