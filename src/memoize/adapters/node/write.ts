import type { ServerResponse } from 'node:http'
import type { HttpResponse } from '../../engine/index.ts'

/** What a body is written to: a response, in the hands of the cache alone. */
export interface Outlet {
  /** Called when the head is written, before anything of the body is read. */
  begin: () => void
  /** Returns whether more is to be written at once. */
  write: (chunk: Uint8Array) => boolean
  on: (event: 'drain' | 'close', listener: () => void) => unknown
  flushHeaders: () => unknown
  end: () => unknown
  destroy: () => unknown
  isDestroyed: () => boolean
}

/**
 * Answers a client. The fields of the answer take the place of those that were set before; others stay, and so do cookies.
 * `outlet`: what a body is written to that comes in pieces; the response itself when absent.
 */
export function writeAnswer(response: ServerResponse, answer: HttpResponse, outlet?: Outlet): void {
  const { body } = answer
  writeHead(response, answer)
  if (body === undefined) response.end()
  else if (Buffer.isBuffer(body)) endWith(response, body)
  else stream(body, outlet ?? outletOf(response))
}

function writeHead(response: ServerResponse, { status, statusText, headers }: HttpResponse): void {
  // Whoever has replaced writeHead may not know fields in this form; whoever waits for the end looks at them then.
  const watched = Object.hasOwn(response, 'writeHead') || response.listenerCount('finish') > 1
  const plain = !watched && response.getHeaderNames().length === 0
  if (!plain) setAll(response, headers)
  const fields = plain ? headers : undefined
  if (statusText === undefined) response.writeHead(status, fields)
  else response.writeHead(status, statusText, fields)
}

function outletOf(response: ServerResponse): Outlet {
  return {
    begin: () => undefined,
    write: (chunk) => response.write(chunk),
    on: (event, listener) => response.on(event, listener),
    flushHeaders: () => response.flushHeaders(),
    end: () => response.end(),
    destroy: () => response.destroy(),
    isDestroyed: () => response.destroyed,
  }
}

/** Longest body that is also kept as text. */
const SHORT = 8 * 1024

/** Short bodies as text: Node writes a head and text in one piece, but a head and bytes in two, which takes half as long again. */
const texts = new WeakMap<Buffer, string>()

function endWith(response: ServerResponse, body: Buffer): void {
  if (body.length > SHORT) {
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

function setAll(response: ServerResponse, headers: readonly string[]): void {
  for (let at = 0; at < headers.length; at += 2) {
    const name = headers[at] as string
    // Those of before are for this client.
    if (name !== 'set-cookie') response.removeHeader(name)
  }
  for (let at = 0; at < headers.length; at += 2)
    response.appendHeader(headers[at] as string, headers[at + 1] as string)
}

/** At the client's pace. Whatever makes the body is told when the client goes, even while there is nothing to be written. */
function stream(body: AsyncIterable<Uint8Array>, outlet: Outlet): void {
  const iterator = body[Symbol.asyncIterator]()
  const letGo = (): void => {
    iterator.return?.().catch(() => undefined)
  }
  if (outlet.isDestroyed()) return letGo()
  const pace = new Pace(outlet)
  outlet.on('close', letGo)
  // To read the body may be to run what makes it, in this very call.
  outlet.begin()
  // The first piece may be long in coming.
  outlet.flushHeaders()
  pump(iterator, outlet, pace).catch(() => outlet.destroy())
}

async function pump(iterator: AsyncIterator<Uint8Array>, outlet: Outlet, pace: Pace): Promise<void> {
  for (;;) {
    const { done, value } = await iterator.next()
    if (done || outlet.isDestroyed()) break
    if (!outlet.write(value)) await pace.resumed()
  }
  outlet.end()
}

/** When more may be written. It listens once for the whole body: what compresses lets go of no listener. */
class Pace {
  readonly #outlet: Outlet
  #resume: (() => void) | undefined

  constructor(outlet: Outlet) {
    this.#outlet = outlet
    outlet.on('drain', () => this.#resume?.())
    outlet.on('close', () => this.#resume?.())
  }

  resumed(): Promise<void> {
    if (this.#outlet.isDestroyed()) return Promise.resolve()
    return new Promise((resolve) => {
      this.#resume = resolve
    })
  }
}

/** What an answer tells of the cache. */
export function cacheStatusOf({ headers }: HttpResponse): string | undefined {
  const at = headers.indexOf('cache-status')
  return at === -1 ? undefined : headers[at + 1]
}
