import { ClosedError } from '../../../errors.ts'
import { cacheStatusLines } from '../../engine/responses.ts'
import type {
  HeaderFields,
  HttpCache,
  HttpRequest,
  HttpResponse,
  OriginRequest,
  OriginResponse,
} from '../../index.ts'
import { toRawHeaders } from '../../policy/fields.ts'

/** A function from Request to Response. */
export type FetchHandler<Rest extends unknown[] = []> = (
  request: Request,
  ...rest: Rest
) => Response | Promise<Response>

/** A request as options see it. `url` is its path and query; the host is in `headers.host`. */
export interface FetchRequest extends HttpRequest {
  /** The client's request. Undefined for a URL that another request has changed. */
  incoming?: Request | undefined
}

/** Answers a request through a cache. A response from the in-process cache is returned at once. */
export function handleRequest(
  cache: HttpCache,
  request: Request,
  handler: FetchHandler,
): Response | Promise<Response> {
  const context = new RequestContext(request, handler)
  const result = cache.handle(context, context.origin)
  if (!(result instanceof Promise)) return responseOf(result)
  return result.then(
    (result) => context.respond(result),
    (error) => context.fail(error),
  )
}

/** One request on its way through the cache. The cache sees it as an HttpRequest, and as its origin. */
class RequestContext implements FetchRequest {
  readonly method: string
  readonly url: string
  readonly scheme: string
  readonly headers: HeaderFields
  readonly incoming: Request
  readonly #handler: FetchHandler
  /** The response of the handler for this client alone. */
  #privateResponse: Response | undefined

  constructor(request: Request, handler: FetchHandler) {
    const { url } = request
    // The URL of a Request is absolute.
    const hostStart = url.indexOf('//') + 2
    const pathStart = url.indexOf('/', hostStart)
    this.method = request.method
    this.url = url.slice(pathStart)
    this.scheme = url.slice(0, url.indexOf(':'))
    this.headers = headerFields(request.headers)
    // The handler reads the host from the URL.
    this.headers['host'] = url.slice(hostStart, pathStart)
    this.incoming = request
    this.#handler = handler
  }

  /** Aborts when the client disconnects. */
  get signal(): AbortSignal {
    return this.incoming.signal
  }

  /** Calls the handler: for a response that may be shared, or for this client alone. */
  readonly origin = async (originRequest: OriginRequest): Promise<OriginResponse> => {
    if (originRequest.shared)
      return originResponseOf(await this.#handler(requestFor(this.incoming, originRequest)))
    this.#privateResponse = await this.#handler(this.incoming)
    // The client gets the handler's own response: the cache needs only its head.
    return { ...originResponseOf(this.#privateResponse), body: undefined }
  }

  /** The client's response, from the response of the cache. */
  respond(result: HttpResponse): Response {
    return this.#privateResponse ? withCacheStatus(this.#privateResponse, result) : responseOf(result)
  }

  /** The client's response when the cache has none. Throws the error when the handler has none either. */
  fail(error: unknown): Response | Promise<Response> {
    if (this.#privateResponse) return this.#privateResponse
    // With the locker closed the handler works without the cache.
    if (error instanceof ClosedError) return this.#handler(this.incoming)
    throw error
  }
}

/** Statuses whose responses cannot have a body, not even an empty one. */
const BODILESS: ReadonlySet<number> = new Set([101, 103, 204, 205, 304])

/** Headers as HeaderFields. The class Headers lowers names, and joins the lines of every header but Set-Cookie. */
export function headerFields(headers: Headers): HeaderFields {
  const fields: HeaderFields = Object.create(null)
  headers.forEach((value, name) => {
    fields[name] = value
  })
  if (fields['set-cookie'] !== undefined) fields['set-cookie'] = headers.getSetCookie()
  return fields
}

/** Raw headers (name, value, …) as pairs. */
export function headerPairs(raw: readonly string[]): [string, string][] {
  return Array.from({ length: raw.length / 2 }, (_, at) => [raw[at * 2] as string, raw[at * 2 + 1] as string])
}

/** The request that the handler receives for a response that may be shared. */
function requestFor(incoming: Request, { method, headers, signal }: OriginRequest): Request {
  const init = { method, headers: headerPairs(toRawHeaders(headers)), ...(signal && { signal }) }
  if (method === 'GET') return new Request(incoming.url, init)
  // The handler may be called more than once for this request.
  const { body } = incoming.clone()
  return new Request(incoming.url, { ...init, body, duplex: 'half' })
}

/** The response of a handler as the cache takes it. */
function originResponseOf({ status, statusText, headers, body }: Response): OriginResponse {
  return {
    status,
    statusText: statusText === '' ? undefined : statusText,
    headers: headerFields(headers),
    body,
  }
}

/** Raw headers in the form that Response takes. Converted once: responses of the cache share the array. */
const inits = new WeakMap<readonly string[], Record<string, string> | [string, string][]>()

function responseInit(raw: readonly string[]): Record<string, string> | [string, string][] {
  const known = inits.get(raw)
  if (known) return known
  const pairs = headerPairs(raw)
  // A record is fastest, but cannot have a name twice.
  const record = Object.fromEntries(pairs)
  const init = Object.keys(record).length === pairs.length ? record : pairs
  inits.set(raw, init)
  return init
}

/** The response of the cache as a Response. */
function responseOf({ status, statusText, headers, body }: HttpResponse): Response {
  const init = { status, headers: responseInit(headers), ...(statusText !== undefined && { statusText }) }
  if (body === undefined || BODILESS.has(status)) return new Response(null, init)
  return new Response(Buffer.isBuffer(body) ? body : ReadableStream.from(body), init)
}

/** A response of the handler with the Cache-Status of the cache. */
function withCacheStatus({ status, statusText, headers, body }: Response, result: HttpResponse): Response {
  const copy = new Headers(headers)
  const cacheStatus = cacheStatusLines(result.headers)
  if (cacheStatus.length > 0) copy.set('cache-status', cacheStatus.join(', '))
  return new Response(body, { status, statusText, headers: copy })
}
