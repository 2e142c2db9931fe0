import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Answer, HeaderFields, OriginRequest, OriginResponse } from '../http/index.ts'
import { unflat } from '../http/index.ts'
import { presentFields } from './fields.ts'
import { HeldResponse } from './held.ts'
import { Inner } from './inner.ts'
import type { Next, NodeRequest } from './options.ts'
import type { Site } from './site.ts'
import { isUnanswered, UnansweredError } from './unanswered.ts'
import { cacheStatusOf, writeAnswer } from './write.ts'

/** Express keeps the whole URL here, of which its routers cut what they have matched. */
type Routed = IncomingMessage & { originalUrl?: string }

/** A request of a client, on its way through the cache to its answer. */
export class Exchange implements NodeRequest {
  readonly method: string
  readonly url: string
  readonly headers: HeaderFields
  readonly scheme: string
  readonly incoming: IncomingMessage
  readonly #response: ServerResponse
  readonly #next: Next | undefined
  readonly #site: Site
  #gone: AbortController | undefined
  /** Whether the answer is the handler's business alone. */
  #alone = false
  #held: HeldResponse | undefined
  #asked = false

  constructor(request: Routed, response: ServerResponse, next: Next | undefined, site: Site) {
    this.method = request.method as string
    this.url = request.originalUrl ?? (request.url as string)
    // An inner request that goes through the server once more meets again what has changed this one.
    this.headers = site.answers && next ? presentFields(request) : unflat(request.rawHeaders)
    this.scheme = 'encrypted' in request.socket ? 'https' : 'http'
    this.incoming = request
    this.#response = response
    this.#next = next
    this.#site = site
  }

  /** Whether it has no place in a cache whatever its method, and is not even looked at. */
  get passes(): boolean {
    if (this.incoming.httpVersionMajor !== 1 || this.method === 'CONNECT' || this.#response.headersSent)
      return true
    return this.headers['upgrade'] !== undefined && this.#site.shares(this.method)
  }

  /** Aborts when the client has gone. Made only for those who have to wait: most are answered at once. */
  get signal(): AbortSignal {
    if (this.#gone) return this.#gone.signal
    const gone = new AbortController()
    this.#gone = gone
    if (this.#response.closed) gone.abort()
    else this.#response.once('close', () => gone.abort())
    return gone.signal
  }

  /** Has a response made that others may have too, or leaves it to the handler to answer this client alone. */
  readonly origin = (asked: OriginRequest): OriginResponse | Promise<OriginResponse> => {
    if (this.#isAlone(asked)) return this.#goAlone()
    // A body can be read but once.
    if (this.#asked && asked.method !== 'GET') throw new UnansweredError('Its body has been read')
    this.#asked = true
    const inner = new Inner(asked, this.incoming, this.#site)
    this.#site.dispatch(inner, this.incoming, this.#next !== undefined)
    return inner.answered
  }

  #isAlone({ signal, method }: OriginRequest): boolean {
    if (signal !== this.#gone?.signal) return false
    // What is made for one who carries credentials may be for others afterwards.
    return this.headers['authorization'] === undefined || !this.#site.shares(method)
  }

  #goAlone(): OriginResponse | Promise<OriginResponse> {
    this.#alone = true
    // Nothing comes of its answer, and nothing has to be known of it: it may run when the cache is done.
    if (this.method === 'GET' || this.method === 'HEAD') return { status: 200, headers: {} }
    this.#held = new HeldResponse(this.#response)
    this.#proceed()
    return this.#held.ending
  }

  #proceed(): void {
    this.#site.proceed(this.incoming, this.#response, this.#next)
  }

  /** Gives the client its answer. */
  finish(answer: Answer): void {
    if (!this.#alone) return writeAnswer(this.#response, answer)
    const told = cacheStatusOf(answer)
    if (told !== undefined && !this.#response.headersSent) this.#response.setHeader('cache-status', told)
    if (this.#held) this.#held.release()
    else this.#proceed()
  }

  /** There is no answer. */
  fail(error: unknown): void {
    if (this.#held) this.#held.release()
    else if (this.#gone?.signal.aborted || this.#response.headersSent) this.#response.destroy()
    else if (isUnanswered(error)) this.#proceed()
    else this.#site.refuse(error, this.#response, this.#next)
  }
}
