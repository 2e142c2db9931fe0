import type { IncomingMessage, ServerResponse } from 'node:http'
import type { HeaderFields, HttpResponse, OriginRequest, OriginResponse } from '../../engine/index.ts'
import type { Site } from './adapter.ts'
import { Capture } from './capture.ts'
import { fieldsOf, presentFields } from './fields.ts'
import { HeldResponse } from './held.ts'
import type { Next, NodeRequest } from './options.ts'
import { type Routed, targetSeen } from './target.ts'
import { isUnanswered, UnansweredError } from './unanswered.ts'
import { cacheStatusOf, writeAnswer } from './write.ts'

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
  /** The fields that the response had when it came. */
  readonly #before: HeaderFields
  #gone: AbortController | undefined
  /** Whether the answer is the handler's business alone. */
  #alone = false
  #held: HeldResponse | undefined
  #asked = false
  #capture: Capture | undefined

  constructor(request: Routed, response: ServerResponse, next: Next | undefined, site: Site) {
    this.method = request.method as string
    this.url = targetSeen(request)
    this.headers = presentFields(request)
    this.scheme = 'encrypted' in request.socket ? 'https' : 'http'
    this.incoming = request
    this.#response = response
    this.#before = fieldsOf(response)
    this.#next = next
    this.#site = site
  }

  /** Whether it has no place in a cache whatever its method, and is not even looked at. */
  get passes(): boolean {
    if (this.incoming.httpVersionMajor !== 1 || this.method === 'CONNECT' || this.#response.headersSent)
      return true
    const { upgrade, expect } = this.headers
    return (upgrade !== undefined || expect !== undefined) && this.#site.shares(this.method)
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
    // What a request has, its body and its response, is there but once.
    if (this.#asked) throw new UnansweredError('It was asked by this request before')
    if (!asked.shared) return this.#bypass()
    this.#asked = true
    return this.#ask(asked)
  }

  /** Resolves when its client has its answer: nobody but a handler needs its request and response then. */
  whenAnswered(): Promise<void> {
    const response = this.#response
    return new Promise((resolve) => {
      if (response.closed) resolve()
      else response.once('close', resolve)
    })
  }

  /** Its body, if it has one, must have been read by then. */
  get canRefresh(): boolean {
    const { 'content-length': length = '0', 'transfer-encoding': coding } = this.headers
    return this.incoming.readableEnded || (length === '0' && coding === undefined)
  }

  #ask(asked: OriginRequest): Promise<OriginResponse> {
    const before = asked.background ? this.#before : fieldsOf(this.#response)
    const capture = new Capture(asked, { judged: this, before }, this.incoming, this.#response)
    this.#capture = capture
    this.#site.ask(capture, this.incoming, this.#response, this.#next)
    return capture.answered
  }

  #bypass(): OriginResponse | Promise<OriginResponse> {
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
  finish(answer: HttpResponse): void {
    if (!this.#alone) {
      if (this.#capture) this.#capture.answer(answer)
      else writeAnswer(this.#response, answer)
      return
    }
    const told = cacheStatusOf(answer)
    if (told !== undefined && !this.#response.headersSent) this.#response.setHeader('cache-status', told)
    if (this.#held) this.#held.release()
    else this.#proceed()
  }

  /** There is no answer. */
  fail(error: unknown): void {
    if (this.#held) return this.#held.release()
    // The handler may go on, for others.
    if (this.#gone?.signal.aborted) return
    if (this.#capture) this.#capture.answeredBy(() => this.#refuse(error))
    else if (isUnanswered(error) && !this.#response.headersSent) this.#proceed()
    else this.#refuse(error)
  }

  #refuse(error: unknown): void {
    if (this.#response.headersSent) this.#response.destroy()
    else this.#site.refuse(error, this.#response, this.#next)
  }
}
