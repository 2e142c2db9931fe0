import type { IncomingMessage, ServerResponse } from 'node:http'
import pDefer from 'p-defer'
import { onAbort } from '../../../kernel/waiting/on-abort.ts'
import type {
  HeaderFields,
  HttpRequest,
  HttpResponse,
  OriginRequest,
  OriginResponse,
} from '../../engine/index.ts'
import { linesOf } from '../../policy/fields.ts'
import { connectionFace } from './connection.ts'
import { type Face, putOn } from './face.ts'
import { haveSameFields, isSameField, presentFields } from './fields.ts'
import { outputTo } from './output.ts'
import { askingFace } from './question.ts'
import { RequestLife } from './request-life.ts'
import { ResponseFace } from './response-face.ts'
import { targetSeen } from './target.ts'
import { type Head, Wire } from './wire.ts'
import { writeAnswer } from './write.ts'

/** Fields by which a handler may know whose request it is. */
const CREDENTIALS = ['authorization', 'cookie'] as const

/**
 * Has a handler answer for all who may have the answer, by the request and response of one client: the request asks the
 * cache's question, and what is written to the response becomes an answer of the origin. The client itself is answered by
 * the cache, through the response's own methods. A client that goes is not seen by the handler while anybody wants the
 * answer.
 */
export class Capture {
  readonly #request: IncomingMessage
  readonly #response: ServerResponse
  readonly #asked: OriginRequest
  /** The fields that the response had before. */
  readonly #before: HeaderFields
  readonly #unshared: boolean
  readonly #wire: Wire
  readonly #output: ServerResponse
  readonly #face: ResponseFace
  readonly #life: RequestLife
  /** What the request was before it asked; undefined once it is that again. */
  #requestBefore: Face | undefined
  /** Fields that were there before, and that the handler has taken away. */
  #removed: string[] = []
  /** What it has left of the cookies that were there before, where that is not all. */
  #cookies: string[] | undefined
  readonly #answered = pDefer<OriginResponse>()

  /**
   * `judged`: the request as it was when it was decided what becomes of it. `before`: the fields that the response had before
   * its client was answered.
   */
  constructor(
    asked: OriginRequest,
    { judged, before }: { judged: Pick<HttpRequest, 'method' | 'url' | 'headers'>; before: HeaderFields },
    request: IncomingMessage,
    response: ServerResponse,
  ) {
    this.#request = request
    this.#response = response
    this.#asked = asked
    this.#before = before
    // Something has changed it meanwhile: what was judged is not what the handler sees.
    this.#unshared =
      request.method !== judged.method ||
      targetSeen(request) !== judged.url ||
      !haveSameFields(presentFields(request), judged.headers)
    this.#wire = new Wire((head) => this.#begin(head))
    this.#requestBefore = putOn(request, askingFace(request, judged.headers, asked))
    const connection = connectionFace(this.#wire, request.socket)
    this.#output = outputTo(this.#wire, request, before)
    if (!asked.background) this.#output.statusCode = response.statusCode
    this.#life = new RequestLife(request, this.#wire, connection, asked.background === true)
    this.#face = new ResponseFace(response, this.#output, connection)
    this.#wire.once('close', () => this.#over())
    // Whoever asks is told, if anybody does yet.
    this.#answered.promise.catch(() => undefined)
    const { signal } = asked
    if (signal?.aborted) this.#wire.destroy()
    else if (signal) onAbort(signal, () => this.#wire.destroy())
  }

  /** Settles with the head of the response; the body follows. */
  get answered(): Promise<OriginResponse> {
    return this.#answered.promise
  }

  /** Whether the handler has said all. */
  get complete(): boolean {
    return this.#output.writableEnded
  }

  /** There will be no response, or no more of it. */
  fail(error: unknown): void {
    this.#answered.reject(error)
    this.#wire.destroy()
  }

  /** Gives the client its answer. What the handler writes from now on does not reach it but by that. */
  answer(answer: HttpResponse): void {
    this.#release()
    if (!this.#response.headersSent) {
      for (const name of this.#removed) this.#response.removeHeader(name)
      if (this.#cookies) this.#response.setHeader('set-cookie', this.#cookies)
    }
    writeAnswer(this.#response, answer, this.#face.outlet)
    this.#face.guard()
  }

  /** Has the client's request and response be answered by others, to the end if they can do so in this call. */
  answeredBy(others: () => void): void {
    this.#release()
    others()
    if (this.#response.writableEnded) this.#face.guard()
  }

  /** Lets go of the client's request and response. */
  #release(): void {
    this.#restoreRequest()
    this.#face.show()
  }

  /** The request is its client's again. */
  #restoreRequest(): void {
    if (this.#requestBefore) putOn(this.#request, this.#requestBefore)
    this.#requestBefore = undefined
  }

  #over(): void {
    this.fail(new Error('The handler closed the connection without an answer'))
    this.#life.end(this.#output.writableFinished)
    this.#restoreRequest()
    this.#face.end()
  }

  #begin({ status, statusText, headers }: Head): void {
    const before = this.#before
    const [cookies, given] = [linesOf(headers, 'set-cookie'), linesOf(before, 'set-cookie')]
    const added = cookies.filter(notIn(given))
    if (added.length + given.length > cookies.length) this.#cookies = cookies.filter(notIn(added))
    this.#removed = Object.keys(before).filter((name) => headers[name] === undefined)
    const own = Object.keys(before).filter((name) => isSameField(before[name], headers[name]))
    if (added.length > 0) headers['set-cookie'] = added
    else delete headers['set-cookie']
    const present = presentFields(this.#request)
    const credited = CREDENTIALS.some((name) => present[name] !== undefined && !this.#asked.headers[name])
    this.#answered.resolve({
      status,
      statusText,
      headers,
      body: this.#wire.body,
      privateFields: own,
      private: this.#unshared || credited,
    })
  }
}

/** Whether a line is none of these, each of which counts once. */
function notIn(lines: readonly string[]): (line: string) => boolean {
  const left = [...lines]
  return (line) => {
    const at = left.indexOf(line)
    if (at >= 0) left.splice(at, 1)
    return at < 0
  }
}
