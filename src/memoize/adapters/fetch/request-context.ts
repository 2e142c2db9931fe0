import { ClosedError } from '../../../errors.ts'
import type {
  HeaderFields,
  HttpRequest,
  HttpResponse,
  OriginRequest,
  OriginResponse,
} from '../../engine/index.ts'
import {
  fetchToOriginResponse,
  headerFields,
  originRequestToFetch,
  toFetchResponse,
  withCacheStatus,
} from './messages.ts'

/** A function from Request to Response. */
export type FetchHandler<Rest extends unknown[] = []> = (
  request: Request,
  ...rest: Rest
) => Response | Promise<Response>

/** The index at which the path of an absolute URL begins. The URL of a Request is absolute. */
function pathStart(url: string): number {
  return url.indexOf('/', url.indexOf('//') + 2)
}

/** One request on its way through the cache. The cache sees it as an HttpRequest, and as its origin. */
export class RequestContext implements HttpRequest {
  readonly method: string
  readonly url: string
  readonly scheme: string
  readonly headers: HeaderFields
  readonly incoming: Request
  readonly #handler: FetchHandler
  readonly #methods: ReadonlySet<string>
  /** The response of the handler for this client alone. */
  #privateResponse: Response | undefined

  /** `methods`: those whose responses may be shared. */
  constructor(request: Request, handler: FetchHandler, methods: ReadonlySet<string>) {
    const { url } = request
    const start = pathStart(url)
    this.method = request.method
    this.url = url.slice(start)
    this.scheme = url.slice(0, url.indexOf(':'))
    this.headers = headerFields(request.headers)
    // The handler reads the host from the URL.
    this.headers['host'] = url.slice(url.indexOf('//') + 2, start)
    this.incoming = request
    this.#handler = handler
    this.#methods = methods
  }

  /** Aborts when the client disconnects. */
  get signal(): AbortSignal {
    return this.incoming.signal
  }

  /** Calls the handler: for a response that may be shared, or for this client alone. */
  readonly origin = async (originRequest: OriginRequest): Promise<OriginResponse> => {
    if (!this.#isPrivate(originRequest))
      return fetchToOriginResponse(await this.#handler(originRequestToFetch(this.incoming, originRequest)))
    this.#privateResponse = await this.#handler(this.incoming)
    // The client gets the handler's own response: the cache needs only its head.
    return { ...fetchToOriginResponse(this.#privateResponse), body: undefined }
  }

  #isPrivate({ shared, method }: OriginRequest): boolean {
    if (shared) return false
    // A response to a request with credentials may still be shared, if it says so.
    return this.headers['authorization'] === undefined || !this.#methods.has(method)
  }

  /** The client's response, from the response of the cache. */
  respond(result: HttpResponse): Response {
    return this.#privateResponse ? withCacheStatus(this.#privateResponse, result) : toFetchResponse(result)
  }

  /** The client's response when the cache has none. Throws the error when the handler has none either. */
  fail(error: unknown): Response | Promise<Response> {
    if (this.#privateResponse) return this.#privateResponse
    // With the locker closed the handler works without the cache.
    if (error instanceof ClosedError) return this.#handler(this.incoming)
    throw error
  }
}
