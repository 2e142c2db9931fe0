import { notModified, requestedRange } from '../policy/conditional.ts'
import { endToEndFields, reasonPhraseOf, toRawHeaders } from '../policy/fields.ts'
import type { ForwardReason } from '../policy/request.ts'
import type { PrivateReason } from '../policy/response.ts'
import type { HeaderFields, HttpRequest, HttpResponse, OriginResponse } from './message.ts'
import { discard, toResponseBody } from './recording.ts'
import type { StoredResponse } from './stored-response.ts'

/** How the cache handled a request. Durations are ms. RFC 9211 §2. */
export interface CacheStatus {
  hit?: boolean
  /** The remaining freshness lifetime; negative for a stale response. */
  ttl?: number
  forwardReason?: ForwardReason
  /** The status of the origin's response, if the client gets another. */
  originStatus?: number
  stored?: boolean
  /** Whether the request was answered by another request's response. */
  collapsed?: boolean
  /** Words of this cache, such as the reason why a response is private. */
  detail?: 'unverified' | 'not-stored' | PrivateReason | undefined
}

/** The member that a cache of this name adds to Cache-Status. RFC 9211. */
export function cacheStatus(name: string, status: CacheStatus): string {
  const { hit, ttl, forwardReason, originStatus, stored, collapsed, detail } = status
  return [
    name,
    hit && 'hit',
    forwardReason && `fwd=${forwardReason}`,
    originStatus !== undefined && `fwd-status=${originStatus}`,
    stored && 'stored',
    collapsed && 'collapsed',
    ttl !== undefined && `ttl=${Math.ceil(ttl / 1_000)}`,
    detail && `detail=${detail}`,
  ]
    .filter(Boolean)
    .join('; ')
}

/** The lines of Cache-Status in raw headers (name, value, …). */
export function cacheStatusLines(raw: readonly string[]): string[] {
  return raw.filter((_, at) => at % 2 === 1 && raw[at - 1] === 'cache-status')
}

/** Fields that describe the content, which a 304 does not have. RFC 9110 §15.4.5. */
const CONTENT_FIELDS: ReadonlySet<string> = new Set([
  'content-encoding',
  'content-language',
  'content-length',
  'content-md5',
  'content-range',
  'content-type',
])

/** The parts that all hits of a stored response share. Hits are the hot path: these are computed once. */
interface Prepared {
  fields: string[]
  /** The response of a plain hit, and its Age. Set by `hit`, once per second of age. */
  hit: HttpResponse | undefined
  ageSeconds: number
}

/** Builds the responses of the cache. */
export class ResponseBuilder {
  readonly #name: string | false
  readonly #prepared = new WeakMap<StoredResponse, Prepared>()

  /** `name`: of the cache in Cache-Status; false: no such field. */
  constructor(name: string | false) {
    this.#name = name
  }

  /** A hit: the stored response, `age` ms old. */
  hit(request: HttpRequest, stored: StoredResponse, age: number): HttpResponse {
    const prepared = this.#prepare(stored)
    const second = Math.round(age / 1_000)
    if (prepared.hit === undefined || prepared.ageSeconds !== second) {
      const status = { hit: true, ttl: stored.plan.lifetime - age }
      prepared.hit = this.#full(stored, [...prepared.fields, 'age', `${second}`], status)
      prepared.ageSeconds = second
    }
    return this.#forRequest(request, stored, prepared.hit)
  }

  /** The stored response, `age` ms old, with a status other than a plain hit. */
  fromStored(request: HttpRequest, stored: StoredResponse, age: number, status: CacheStatus): HttpResponse {
    const fields = [...this.#prepare(stored).fields, 'age', `${Math.round(age / 1_000)}`]
    return this.#forRequest(request, stored, this.#full(stored, fields, status))
  }

  /** The response that was fetched for this request, with the fields that only its client receives. */
  fromFetched(
    request: HttpRequest,
    stored: StoredResponse,
    status: CacheStatus,
    privateFields: HeaderFields,
  ): HttpResponse {
    return this.#forRequest(
      request,
      stored,
      this.#full(stored, [...toRawHeaders(stored.headers), ...toRawHeaders(privateFields)], status),
    )
  }

  /** The same for a response whose body still streams. */
  fromStreaming(
    { status: code, statusText, headers, body }: OriginResponse,
    status: CacheStatus,
    privateFields: HeaderFields,
  ): HttpResponse {
    const fields = [...toRawHeaders(headers), ...toRawHeaders(privateFields)]
    return {
      status: code,
      statusText,
      headers: this.#withCacheStatus(fields, status),
      body: toResponseBody(body),
    }
  }

  #prepare(stored: StoredResponse): Prepared {
    const known = this.#prepared.get(stored)
    if (known) return known
    const { age: _, ...headers } = stored.headers
    const prepared = { fields: toRawHeaders(headers), hit: undefined, ageSeconds: 0 }
    this.#prepared.set(stored, prepared)
    return prepared
  }

  #full(
    { status: code, statusText, body }: StoredResponse,
    fields: string[],
    status: CacheStatus,
  ): HttpResponse {
    return { status: code, statusText, headers: this.#withCacheStatus(fields, status), body }
  }

  #withCacheStatus(fields: string[], status: CacheStatus): string[] {
    if (this.#name !== false) fields.push('cache-status', cacheStatus(this.#name, status))
    return fields
  }

  /** Applies the request's method, conditions and range: the whole response, 304, 206 or 416, or no body for HEAD. */
  #forRequest(
    { method, headers }: HttpRequest,
    { status, headers: fields, body }: StoredResponse,
    whole: HttpResponse,
  ): HttpResponse {
    if (status === 200) {
      if (headers['if-none-match'] !== undefined || headers['if-modified-since'] !== undefined) {
        if (notModified(headers, fields)) return asNotModified(whole)
      }
      if (headers['range'] !== undefined && method === 'GET') return asPartial(headers, fields, body, whole)
    }
    return method === 'HEAD' ? { ...whole, body: undefined } : whole
  }

  /** The origin's response to a forwarded request. Its body has not been read. */
  forwarded(request: HttpRequest, response: OriginResponse, status: CacheStatus): HttpResponse {
    const { status: code } = response
    const statusText = reasonPhraseOf(response)
    const headers = this.#withCacheStatus(toRawHeaders(endToEndFields(response.headers)), status)
    if (request.method !== 'HEAD')
      return { status: code, statusText, headers, body: toResponseBody(response.body) }
    discard(response.body)
    return { status: code, statusText, headers, body: undefined }
  }

  /** The origin's private response to a request without the client's conditions: applies them. */
  privateResponse(request: HttpRequest, response: OriginResponse, status: CacheStatus): HttpResponse {
    const forwarded = this.forwarded(request, response, status)
    if (response.status !== 200 || !notModified(request.headers, response.headers)) return forwarded
    discard(response.body)
    return asNotModified(forwarded)
  }

  /** A response that the cache makes itself, such as 503. */
  synthetic(status: number, message: string, headers: string[] = []): HttpResponse {
    const body = Buffer.from(`${message}\n`)
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
      headers: this.#withCacheStatus([...fields, ...headers], {}),
      body,
    }
  }
}

function withoutFields(headers: string[], unwanted: (name: string) => boolean): string[] {
  const kept: string[] = []
  for (let at = 0; at < headers.length; at += 2) {
    if (!unwanted(headers[at] as string)) kept.push(headers[at] as string, headers[at + 1] as string)
  }
  return kept
}

function asNotModified(response: HttpResponse): HttpResponse {
  const headers = withoutFields(response.headers, (name) => CONTENT_FIELDS.has(name))
  return { status: 304, statusText: undefined, headers, body: undefined }
}

function asPartial(
  request: HeaderFields,
  response: HeaderFields,
  body: Buffer,
  whole: HttpResponse,
): HttpResponse {
  const part = requestedRange(request, response, body.length)
  if (part === undefined) return whole
  const headers = withoutFields(
    whole.headers,
    (name) => name === 'content-length' || name === 'content-range',
  )
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
