import type { ServerResponse } from 'node:http'
import type { HttpResponse } from '../../engine/index.ts'

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

/** Longest body that is also kept as text, bytes. */
const MAX_TEXT_BYTES = 8 * 1024

/** Short bodies as latin1 text. Node writes head and text in one chunk, but head and Buffer in two, which takes 1.5 times as long. */
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
  const backpressure = new Backpressure(sink)
  sink.on('close', cancel)
  // Reading the body may run the handler within this call.
  sink.onHeadWritten()
  // The first piece may come much later.
  sink.flushHeaders()
  pump(iterator, sink, backpressure).catch(() => sink.destroy())
}

async function pump(
  iterator: AsyncIterator<Uint8Array>,
  sink: BodySink,
  backpressure: Backpressure,
): Promise<void> {
  for (;;) {
    const { done, value } = await iterator.next()
    if (done || sink.isDestroyed()) break
    if (!sink.write(value)) await backpressure.released()
  }
  sink.end()
}

/** Waits until a sink accepts more. Listens once per body, because compressing middlewares do not remove listeners. */
class Backpressure {
  readonly #sink: BodySink
  #resume: (() => void) | undefined

  constructor(sink: BodySink) {
    this.#sink = sink
    sink.on('drain', () => this.#resume?.())
    sink.on('close', () => this.#resume?.())
  }

  /** Resolves at the next `drain` or `close`. */
  released(): Promise<void> {
    if (this.#sink.isDestroyed()) return Promise.resolve()
    return new Promise((resolve) => {
      this.#resume = resolve
    })
  }
}

/** The Cache-Status of a response of the cache. */
export function cacheStatusOf({ headers }: HttpResponse): string | undefined {
  const at = headers.indexOf('cache-status')
  return at === -1 ? undefined : headers[at + 1]
}
