import { type CacheStatus, cacheStatus } from '../policy/cache-status.ts'
import { notModified } from '../policy/conditional.ts'
import { endToEnd, reasonOf, toRawHeaders } from '../policy/fields.ts'
import { partOf } from '../policy/range.ts'
import type { HeaderFields, HttpRequest, HttpResponse, OriginResponse } from './message.ts'
import { bodyOf, discard } from './storage/body.ts'
import type { StoredResponse } from './storage/stored-response.ts'

/** Fields about a body that a 304 does not have. RFC 9110 §15.4.5. */
const OF_THE_BODY: ReadonlySet<string> = new Set([
  'content-encoding',
  'content-language',
  'content-length',
  'content-md5',
  'content-range',
  'content-type',
])

/** What stands in every answer out of one stored response: computed once, for it is the hot path. */
interface Prepared {
  fields: string[]
  /** The answer of a plain hit, and the second of age that it tells. */
  hit: HttpResponse | undefined
  second: number
}

/** Makes answers. */
export class Answers {
  readonly #name: string | false
  readonly #prepared = new WeakMap<StoredResponse, Prepared>()

  /** `name`: of the cache, in Cache-Status. */
  constructor(name: string | false) {
    this.#name = name
  }

  /** The answer to a request out of a stored response that is `age` ms old. */
  hit(request: HttpRequest, stored: StoredResponse, age: number): HttpResponse {
    const prepared = this.#prepare(stored)
    const second = Math.round(age / 1_000)
    if (prepared.hit === undefined || prepared.second !== second) {
      const status = { hit: true, ttl: stored.plan.lifetime - age }
      prepared.hit = this.#whole(stored, [...prepared.fields, 'age', `${second}`], status)
      prepared.second = second
    }
    return this.#fitted(request, stored, prepared.hit)
  }

  /** The same, out of one that was just made for another request. */
  shared(request: HttpRequest, stored: StoredResponse, age: number, status: CacheStatus): HttpResponse {
    const fields = [...this.#prepare(stored).fields, 'age', `${Math.round(age / 1_000)}`]
    return this.#fitted(request, stored, this.#whole(stored, fields, status))
  }

  /** Out of one that was made for this very request: as it came. `own`: fields that others do not get. */
  made(request: HttpRequest, stored: StoredResponse, status: CacheStatus, own: HeaderFields): HttpResponse {
    return this.#fitted(
      request,
      stored,
      this.#whole(stored, [...toRawHeaders(stored.headers), ...toRawHeaders(own)], status),
    )
  }

  /** The same, of one that still comes in. */
  coming(
    { status: code, statusText, headers, body }: OriginResponse,
    status: CacheStatus,
    own: HeaderFields,
  ): HttpResponse {
    const fields = [...toRawHeaders(headers), ...toRawHeaders(own)]
    return { status: code, statusText, headers: this.#told(fields, status), body: bodyOf(body) }
  }

  #prepare(stored: StoredResponse): Prepared {
    const known = this.#prepared.get(stored)
    if (known) return known
    const { age: _, ...headers } = stored.headers
    const prepared = { fields: toRawHeaders(headers), hit: undefined, second: 0 }
    this.#prepared.set(stored, prepared)
    return prepared
  }

  #whole(
    { status: code, statusText, body }: StoredResponse,
    fields: string[],
    status: CacheStatus,
  ): HttpResponse {
    return { status: code, statusText, headers: this.#told(fields, status), body }
  }

  #told(fields: string[], status: CacheStatus): string[] {
    if (this.#name !== false) fields.push('cache-status', cacheStatus(this.#name, status))
    return fields
  }

  /** The answer that a request wants: without the body, only that it is the same still, or a part of it. */
  #fitted(
    { method, headers }: HttpRequest,
    { status, headers: fields, body }: StoredResponse,
    whole: HttpResponse,
  ): HttpResponse {
    if (status === 200) {
      if (headers['if-none-match'] !== undefined || headers['if-modified-since'] !== undefined) {
        if (notModified(headers, fields)) return unmodified(whole)
      }
      if (headers['range'] !== undefined && method === 'GET') return partial(headers, fields, body, whole)
    }
    return method === 'HEAD' ? { ...whole, body: undefined } : whole
  }

  /** What the origin answered, for one client. Nothing of the body has been read. */
  forwarded(request: HttpRequest, response: OriginResponse, status: CacheStatus): HttpResponse {
    const { status: code } = response
    const statusText = reasonOf(response)
    const headers = this.#told(toRawHeaders(endToEnd(response.headers)), status)
    if (request.method !== 'HEAD') return { status: code, statusText, headers, body: bodyOf(response.body) }
    discard(response.body)
    return { status: code, statusText, headers, body: undefined }
  }

  /** The same, where the origin was asked without the client's conditions. */
  alone(request: HttpRequest, response: OriginResponse, status: CacheStatus): HttpResponse {
    const answer = this.forwarded(request, response, status)
    if (response.status !== 200 || !notModified(request.headers, response.headers)) return answer
    discard(response.body)
    return unmodified(answer)
  }

  /** An answer that the cache gives by itself. */
  own(status: number, why: string, headers: string[] = []): HttpResponse {
    const body = Buffer.from(`${why}\n`)
    const fields = [
      'content-type',
      'text/plain; charset=utf-8',
      'content-length',
      String(body.length),
      'cache-control',
      'no-store',
    ]
    return {
      status,
      statusText: undefined,
      headers: this.#told([...fields, ...headers], {}),
      body,
    }
  }
}

function without(headers: string[], unwanted: (name: string) => boolean): string[] {
  const kept: string[] = []
  for (let at = 0; at < headers.length; at += 2) {
    if (!unwanted(headers[at] as string)) kept.push(headers[at] as string, headers[at + 1] as string)
  }
  return kept
}

function unmodified(answer: HttpResponse): HttpResponse {
  const headers = without(answer.headers, (name) => OF_THE_BODY.has(name))
  return { status: 304, statusText: undefined, headers, body: undefined }
}

function partial(
  request: HeaderFields,
  response: HeaderFields,
  body: Buffer,
  whole: HttpResponse,
): HttpResponse {
  const part = partOf(request, response, body.length)
  if (part === undefined) return whole
  const headers = without(whole.headers, (name) => name === 'content-length' || name === 'content-range')
  if (part === 'unsatisfiable') {
    headers.push('content-range', `bytes */${body.length}`, 'content-length', '0')
    return { status: 416, statusText: undefined, headers, body: undefined }
  }
  const { first, last } = part
  headers.push(
    'content-range',
    `bytes ${first}-${last}/${body.length}`,
    'content-length',
    `${last - first + 1}`,
  )
  return { status: 206, statusText: undefined, headers, body: body.subarray(first, last + 1) }
}
