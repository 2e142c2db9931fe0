import type { ServerResponse } from 'node:http'
import type { Answer } from '../http/index.ts'

/** What a body is written to: a response, in the hands of the cache alone. */
export interface Outlet {
  /** Returns whether more is to be written at once. */
  write: (chunk: Uint8Array) => boolean
  on: (event: 'drain' | 'close', listener: () => void) => unknown
  off: (event: 'drain' | 'close', listener: () => void) => unknown
  flushHeaders: () => unknown
  end: () => unknown
  destroy: () => unknown
  isDestroyed: () => boolean
}

/**
 * Answers a client. The fields of the answer take the place of those that were set before; others stay, and so do cookies.
 * `outlet`: what a body is written to that comes in pieces; the response itself when absent.
 */
export function writeAnswer(response: ServerResponse, answer: Answer, outlet?: Outlet): void {
  const { body } = answer
  writeHead(response, answer)
  if (body === undefined) response.end()
  else if (Buffer.isBuffer(body)) endWith(response, body)
  else stream(body, outlet ?? outletOf(response))
}

function writeHead(response: ServerResponse, { status, statusText, headers }: Answer): void {
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
    write: (chunk) => response.write(chunk),
    on: (event, listener) => response.on(event, listener),
    off: (event, listener) => response.off(event, listener),
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
  outlet.on('close', letGo)
  // The first piece may be long in coming.
  outlet.flushHeaders()
  pump(iterator, outlet).catch(() => outlet.destroy())
}

async function pump(iterator: AsyncIterator<Uint8Array>, outlet: Outlet): Promise<void> {
  for (;;) {
    const { done, value } = await iterator.next()
    if (done || outlet.isDestroyed()) break
    if (!outlet.write(value)) await writable(outlet)
  }
  outlet.end()
}

function writable(outlet: Outlet): Promise<void> {
  return new Promise((resolve) => {
    const proceed = (): void => {
      outlet.off('drain', proceed)
      outlet.off('close', proceed)
      resolve()
    }
    outlet.on('drain', proceed)
    outlet.on('close', proceed)
  })
}

/** What an answer tells of the cache. */
export function cacheStatusOf({ headers }: Answer): string | undefined {
  const at = headers.indexOf('cache-status')
  return at === -1 ? undefined : headers[at + 1]
}
