import type { Complete } from '../../kernel/options.ts'
import type { OnUnavailable } from '../../locker/flight/waiter.ts'
import type { HttpRequest } from './message.ts'

/** Options of an HTTP cache, with requests as its server sees them. Durations are ms. */
export interface HttpCacheOptions<Request extends HttpRequest = HttpRequest> {
  /**
   * What tells the resources apart. By default the scheme, the host (in lower case), path and query as they stand, and what
   * a proxy says of the first two (X-Forwarded-Proto, X-Forwarded-Host, X-Forwarded-Port); nothing else of a request is in the key, but what `vary` and the response's Vary name. Return undefined for requests
   * that are to pass by the cache; anything else that is no string fails the request by TypeError. An answer that depends on anything else (a header of your own, say)
   * must have that in the key, or anyone can poison it; and one that depends on who asks by anything but Cookie and
   * Authorization (an API key, an address) must be `private`, or have that in the key or in `vary`. Caches whose lockers
   * have the same prefix share what they keep: if they answer differently, by prefix or key they must differ.
   */
  key?: ((request: Request) => string | undefined) | undefined
  /**
   * How long a response is fresh that does not say so itself.
   * @default 0: only those receive it who asked while it was made
   */
  ttl?: number | undefined
  /**
   * How long an error about the resource (404, 410, 414, 451, 500 and up) is kept that does not say so itself. Other errors
   * without a stated freshness are for their own client alone, and so are what the handler throws and, where this is 0, 500.
   * @default 0: only those receive it who asked while it was made
   */
  errorTtl?: number | undefined
  /**
   * How long past its freshness a response is served while one process refreshes it, when it does not say so itself.
   * @default 0
   */
  staleWhileRevalidate?: number | undefined
  /**
   * How long past its freshness a response is served when the origin fails, when it does not say so itself.
   * @default 0
   */
  staleIfError?: number | undefined
  /**
   * Methods whose answers are shared. Others than GET and HEAD need a `key`, which must contain what matters of the body.
   * @default ['GET', 'HEAD']
   */
  methods?: readonly string[] | undefined
  /**
   * Request fields that every response depends on, whether its Vary says so or not.
   * @default []
   */
  vary?: readonly string[] | undefined
  /**
   * Most bytes of a body that is kept. A larger one goes to its own client alone.
   * @default 8_388_608
   */
  maxBody?: number | undefined
  /**
   * Longest that a body may take to come in that is kept, from the head of its response on. A slower one goes to its own
   * client alone. Half of `timeout` at most.
   * @default 30_000
   */
  maxBodyTime?: number | undefined
  /**
   * Most bytes of bodies that this cache records at once in one process, until its own client has read each. What is beyond that goes to
   * its own client alone, at its pace.
   * @default 67_108_864
   */
  maxRecorded?: number | undefined
  /**
   * Most responses that this cache has had kept in one process. Beyond that the oldest are forgotten.
   * @default 100_000
   */
  maxKept?: number | undefined
  /**
   * Most bytes of them, by estimate.
   * @default 268_435_456
   */
  maxKeptBytes?: number | undefined
  /**
   * Most variants of one page (see Vary) of these. One more goes only to those who wait for it already.
   * @default 100
   */
  maxVariants?: number | undefined
  /**
   * Whether a response that says nothing but when it last changed is taken for fresh for a tenth of the time since then, a
   * day at most. RFC 9111 §4.2.2.
   * @default false
   */
  heuristics?: boolean | undefined
  /**
   * Whether the origin answers conditional requests by 304: stale responses are then confirmed instead of made anew.
   * @default false
   */
  revalidate?: boolean | undefined
  /**
   * What is done with requests that carry a Cookie: 'bypass' hands them to the origin alone; 'allow' treats them like all
   * others, which is right only where no answer depends on cookies, or those that it depends on are in `key`. With
   * 'cookie' in `vary` they are keyed by it, and allowed.
   * @default 'bypass'
   */
  cookies?: 'bypass' | 'allow' | undefined
  /**
   * What is done with fields by which proxies tell of the client, and on which frameworks act (X-Forwarded-For, Forwarded,
   * X-Real-IP, X-Original-URL and others), where neither the key nor `vary` knows them: 'strip' makes what may be shared
   * without them; 'bypass' hands such requests to the origin alone; 'allow' leaves them, which is right only where no
   * answer that may be shared depends on them. X-Forwarded-Proto, -Host and -Port are in the key, but not in a key of your
   * own.
   * @default 'strip'
   */
  unkeyed?: 'strip' | 'bypass' | 'allow' | undefined
  /**
   * Whether responses that set cookies are shared, cookies and all.
   * @default false
   */
  shareSetCookie?: boolean | undefined
  /**
   * Whether answers to requests with an Authorization are shared even when they do not say that they may be (by public,
   * s-maxage or must-revalidate).
   * @default false
   */
  shareAuthorized?: boolean | undefined
  /**
   * The name under which the cache tells in Cache-Status (RFC 9211) what it did; `false`: it does not.
   * @default 'soloflight'
   */
  cacheStatus?: string | false | undefined
  /** Tags that the response to a request is kept under. */
  tags?: ((request: Request) => string[]) | undefined
  /**
   * Longest that a request waits for another's answer, and that the origin has to begin one that others may wait for;
   * then it is answered by 504, and the origin's signal aborts. The locker's when absent.
   */
  timeout?: number | undefined
  /**
   * What happens while Redis is away: 'local' runs the handler, once in this process for all who wait in it; 'fail' answers
   * by 503; 'cached' answers by what this process has kept, fresh or within its stale-if-error, though it may have been
   * invalidated elsewhere (Cache-Status says `detail=unverified`), and otherwise by 503; 'cached-local' does that, and
   * otherwise runs the handler.
   * @default 'cached-local'
   */
  onUnavailable?: OnUnavailable | undefined
  /**
   * Handlers at once that run unshared while Redis is away. Requests beyond that are answered by 503.
   * @default 100
   */
  maxUnshared?: number | undefined
}

/** The options that have a plain default. */
export type HttpCacheDefaults = Readonly<Complete<Omit<HttpCacheOptions, 'key' | 'tags' | 'timeout'>>>

/** The options, checked and complete. */
export interface ResolvedHttpOptions
  extends Omit<HttpCacheDefaults, 'methods'>,
    Pick<HttpCacheOptions, 'key' | 'tags' | 'timeout'> {
  methods: ReadonlySet<string>
}
