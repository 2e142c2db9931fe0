import type { IncomingMessage, ServerResponse } from 'node:http'
import type { HeaderFields, HttpResponse } from '../../index.ts'

/** A request as Express and Connect pass it on: `originalUrl` as received, `baseUrl` as removed by routers. */
export type RoutedRequest = IncomingMessage & { originalUrl?: string; baseUrl?: string }

/**
 * The target of a request for the cache key. When a middleware has rewritten the URL, it is the received and the rewritten
 * one, separated by a blank, which no target contains: the handler may read both.
 */
export function requestTarget({ originalUrl, baseUrl, url = '' }: RoutedRequest): string {
  if (originalUrl === undefined || originalUrl === url) return url
  // A router that removes the whole path leaves a slash.
  const isMounted =
    baseUrl !== undefined && [url, url.slice(1)].some((rest) => originalUrl === baseUrl + rest)
  return isMounted ? originalUrl : `${originalUrl} ${url}`
}

/**
 * The current headers of a request, names in lower case. Middlewares before the cache may have changed them; the cache
 * decides by these values because the handler sees them. Several Host lines stay separate, although Node keeps the first.
 */
export function requestHeaders({ headers, rawHeaders }: IncomingMessage): HeaderFields {
  const fields: HeaderFields = Object.create(null)
  for (const key in headers) {
    const value = headerValue(headers[key] ?? undefined)
    if (value === undefined) continue
    const name = key.toLowerCase()
    const known = fields[name]
    fields[name] = known === undefined ? value : [known, value].flat()
  }
  const hosts = hostsIn(rawHeaders)
  if (hosts !== undefined && fields['host'] === hosts[0]) fields['host'] = hosts
  return fields
}

/** The Host lines of a request, if there are several. */
function hostsIn(raw: readonly string[]): string[] | undefined {
  let count = 0
  for (let at = 0; at < raw.length; at += 2) if (isHost(raw[at] as string)) count++
  return count > 1 ? raw.filter((_, at) => at % 2 === 1 && isHost(raw[at - 1] as string)) : undefined
}

function isHost(name: string): boolean {
  return name.length === 4 && name.toLowerCase() === 'host'
}

const NO_HEADERS: HeaderFields = Object.freeze(Object.create(null))

/** The headers that are set on a response, names in lower case. Do not change the result. */
export function responseHeaders(response: ServerResponse): HeaderFields {
  if (response.getHeaderNames().length === 0) return NO_HEADERS
  const fields: HeaderFields = Object.create(null)
  const headers = response.getHeaders()
  for (const name in headers) fields[name] = headerValue(headers[name])
  return fields
}

/** The value of a header as text: handlers and middlewares set numbers, too. */
function headerValue(value: unknown): string | string[] | undefined {
  if (typeof value === 'string' || value === undefined) return value
  return Array.isArray(value) ? value.map(String) : String(value)
}

/** Whether two messages have the same headers. */
export function equalHeaders(one: HeaderFields, other: HeaderFields): boolean {
  const names = Object.keys(one)
  return (
    names.length === Object.keys(other).length && names.every((name) => equalValues(one[name], other[name]))
  )
}

export function equalValues(one: HeaderFields[string], other: HeaderFields[string]): boolean {
  if (!Array.isArray(one) || !Array.isArray(other)) return one === other
  return one.length === other.length && one.every((line, i) => line === other[i])
}

/** Where a body is written that comes in pieces. */
export interface BodySink {
  /** Called after the head is written, before the first piece is read. */
  onHeadWritten: () => void
  /** Returns false when the caller should wait for `drain`. */
  write: (chunk: Uint8Array) => boolean
  on: (event: 'drain' | 'close', listener: () => void) => unknown
  flushHeaders: () => unknown
  end: () => unknown
  destroy: () => unknown
  isDestroyed: () => boolean
}

/**
 * Answers a client with the response of the cache. Its headers replace those that middlewares have set; other headers stay,
 * and cookies are added. `sink`: where a body is written that comes in pieces. The response itself by default.
 */
export function writeResponse(response: ServerResponse, result: HttpResponse, sink?: BodySink): void {
  const { body } = result
  writeHead(response, result)
  if (body === undefined) response.end()
  else if (Buffer.isBuffer(body)) endWith(response, body)
  else streamBody(body, sink ?? bodySinkOf(response))
}

function writeHead(response: ServerResponse, { status, statusText, headers }: HttpResponse): void {
  // A wrapper of writeHead may not know headers as an array, and listeners for the end (other than Node's) call getHeader().
  const isObserved = Object.hasOwn(response, 'writeHead') || response.listenerCount('finish') > 1
  const writesArray = !isObserved && response.getHeaderNames().length === 0
  if (!writesArray) setHeaders(response, headers)
  const rawHeaders = writesArray ? headers : undefined
  if (statusText === undefined) response.writeHead(status, rawHeaders)
  else response.writeHead(status, statusText, rawHeaders)
}

function bodySinkOf(response: ServerResponse): BodySink {
  return {
    onHeadWritten: () => undefined,
    write: (chunk) => response.write(chunk),
    on: (event, listener) => response.on(event, listener),
    flushHeaders: () => response.flushHeaders(),
    end: () => response.end(),
    destroy: () => response.destroy(),
    isDestroyed: () => response.destroyed,
  }
}

/** Longest body that is also kept as text, bytes. Above that, converting and copying text costs more than the second chunk. */
const MAX_TEXT_BYTES = 2 * 1024

/** Short bodies as latin1 text. Node writes head and text in one chunk, but head and Buffer in two: 4 % of a hit of 500 bytes. */
const texts = new WeakMap<Buffer, string>()

function endWith(response: ServerResponse, body: Buffer): void {
  if (body.length > MAX_TEXT_BYTES) {
    response.end(body)
    return
  }
  let text = texts.get(body)
  if (text === undefined) {
    text = body.toString('latin1')
    texts.set(body, text)
  }
  response.end(text, 'latin1')
}

function setHeaders(response: ServerResponse, headers: readonly string[]): void {
  for (let at = 0; at < headers.length; at += 2) {
    const name = headers[at] as string
    // Cookies that middlewares have set stay.
    if (name !== 'set-cookie') response.removeHeader(name)
  }
  for (let at = 0; at < headers.length; at += 2)
    response.appendHeader(headers[at] as string, headers[at + 1] as string)
}

/** Writes a body with backpressure. When the client goes, the body's iterator is ended at once, even while it is waiting. */
function streamBody(body: AsyncIterable<Uint8Array>, sink: BodySink): void {
  const iterator = body[Symbol.asyncIterator]()
  const cancel = (): void => {
    iterator.return?.().catch(() => undefined)
  }
  if (sink.isDestroyed()) return cancel()
  /** Ends the wait for `drain`. */
  let resume: (() => void) | undefined
  // One listener per body and event: compressing middlewares do not remove listeners.
  sink.on('drain', () => resume?.())
  sink.on('close', () => {
    resume?.()
    cancel()
  })
  // Reading the body may run the handler within this call.
  sink.onHeadWritten()
  // The first piece may come much later.
  sink.flushHeaders()
  const pump = async (): Promise<void> => {
    for (;;) {
      const { done, value } = await iterator.next()
      if (done || sink.isDestroyed()) break
      const mayContinue = sink.write(value) || sink.isDestroyed()
      if (!mayContinue)
        await new Promise<void>((resolve) => {
          resume = resolve
        })
    }
    sink.end()
  }
  pump().catch(() => sink.destroy())
}
