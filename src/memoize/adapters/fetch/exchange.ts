import { ClosedError } from '../../../errors.ts'
import type {
  HeaderFields,
  HttpRequest,
  HttpResponse,
  OriginRequest,
  OriginResponse,
} from '../../engine/index.ts'
import { fieldsOf, originResponseOf, requestOf, responseOf, toldOf } from './messages.ts'

/** From Request to Response. */
export type FetchHandler<Rest extends unknown[] = []> = (
  request: Request,
  ...rest: Rest
) => Response | Promise<Response>

/** Where the path of an absolute URL begins: a Request has no other URLs. */
function pathStart(url: string): number {
  return url.indexOf('/', url.indexOf('//') + 2)
}

/** A request on its way through the cache to its response. */
export class FetchExchange implements HttpRequest {
  readonly method: string
  readonly url: string
  readonly scheme: string
  readonly headers: HeaderFields
  readonly incoming: Request
  readonly #handler: FetchHandler
  readonly #methods: ReadonlySet<string>
  /** What the handler has answered this request alone. */
  #own: Response | undefined

  /** `methods`: whose responses are shared. */
  constructor(request: Request, handler: FetchHandler, methods: ReadonlySet<string>) {
    const { url } = request
    const start = pathStart(url)
    this.method = request.method
    this.url = url.slice(start)
    this.scheme = url.slice(0, url.indexOf(':'))
    this.headers = fieldsOf(request.headers)
    // What the handler sees of the host is the URL.
    this.headers['host'] = url.slice(url.indexOf('//') + 2, start)
    this.incoming = request
    this.#handler = handler
    this.#methods = methods
  }

  /** Aborts when the client has gone. */
  get signal(): AbortSignal {
    return this.incoming.signal
  }

  /** Has a response made that others may have too, or one for this client alone. */
  readonly origin = async (asked: OriginRequest): Promise<OriginResponse> => {
    if (!this.#isAlone(asked)) return originResponseOf(await this.#handler(requestOf(this.incoming, asked)))
    this.#own = await this.#handler(this.incoming)
    // The body goes its own way.
    return { ...originResponseOf(this.#own), body: undefined }
  }

  #isAlone({ shared, method }: OriginRequest): boolean {
    if (shared) return false
    // What is made for one who carries credentials may be for others afterwards.
    return this.headers['authorization'] === undefined || !this.#methods.has(method)
  }

  /** The client's response. */
  finish(answer: HttpResponse): Response {
    return this.#own ? toldOf(this.#own, answer) : responseOf(answer)
  }

  /** The client's response when there is no answer. Throws when there is none at all. */
  fail(error: unknown): Response | Promise<Response> {
    if (this.#own) return this.#own
    // Without a cache it is a handler still.
    if (error instanceof ClosedError) return this.#handler(this.incoming)
    throw error
  }
}
