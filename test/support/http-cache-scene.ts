// HttpCache without a server: requests, responses, origins, and caches of several processes.

import { Locker, MemoryStore } from '../../src/index.ts'
import {
  fromRawHeaders,
  type HeaderFields,
  HttpCache,
  type HttpCacheOptions,
  type HttpRequest,
  type HttpResponse,
  type OriginRequest,
  type OriginResponse,
} from '../../src/memoize/index.ts'

export const HOUR = 3_600_000

/** A GET of /page on example.org. */
export const get = (headers: HeaderFields = {}, more: Partial<HttpRequest> = {}): HttpRequest => ({
  method: 'GET',
  url: '/page',
  headers: { host: 'example.org', ...headers },
  ...more,
})

/** A response that states no freshness, unless `headers` do. */
export const page = (
  body: OriginResponse['body'],
  headers: HeaderFields = {},
  status = 200,
): OriginResponse => ({ status, headers, body })

/** A response that is fresh for a minute, unless `headers` say otherwise. */
export const fresh = (
  body: OriginResponse['body'],
  headers: HeaderFields = {},
  status = 200,
): OriginResponse => page(body, { 'cache-control': 'max-age=60', ...headers }, status)

/** A response as its client receives it. */
export async function read(
  response: HttpResponse | Promise<HttpResponse>,
): Promise<{ status: number; headers: HeaderFields; body: string }> {
  const { status, headers, body } = await response
  const chunks: Uint8Array[] = []
  if (Buffer.isBuffer(body)) chunks.push(body)
  else for await (const chunk of body ?? []) chunks.push(chunk)
  return { status, headers: fromRawHeaders(headers), body: Buffer.concat(chunks).toString() }
}

/** The status and the body of a response: `200 text`. */
export async function textOf(response: HttpResponse | Promise<HttpResponse>): Promise<string> {
  const { status, body } = await read(response)
  return `${status} ${body}`
}

export async function bodyOf(response: HttpResponse | Promise<HttpResponse>): Promise<string> {
  return (await read(response)).body
}

/** The Cache-Status of a response. Its body is not read. */
export async function cacheStatusOf(response: HttpResponse | Promise<HttpResponse>): Promise<string> {
  return String(fromRawHeaders((await response).headers)['cache-status'])
}

/** An origin that records its requests, and responds by `respond`. */
export class TestOrigin {
  readonly asked: OriginRequest[] = []
  respond: (request: OriginRequest, count: number) => OriginResponse | Promise<OriginResponse>

  constructor(respond: OriginResponse | TestOrigin['respond']) {
    this.respond = typeof respond === 'function' ? respond : () => respond
  }

  get count(): number {
    return this.asked.length
  }

  readonly ask = (request: OriginRequest): OriginResponse | Promise<OriginResponse> => {
    this.asked.push(request)
    return this.respond(request, this.asked.length)
  }
}

/** Caches on one memory store, as several processes have them. */
export class CacheWorld implements AsyncDisposable {
  readonly #lockers: Locker[]
  readonly caches: HttpCache[]

  constructor(options: HttpCacheOptions = {}, count = 1) {
    const store = new MemoryStore()
    this.#lockers = Array.from({ length: count }, () => new Locker({ store }))
    this.caches = this.#lockers.map((locker) => new HttpCache(locker, options))
  }

  get cache(): HttpCache {
    return this.caches[0] as HttpCache
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#lockers.map((locker) => locker.close({ grace: 0 })))
  }
}
