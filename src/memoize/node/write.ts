import type { ServerResponse } from 'node:http'
import type { Answer } from '../http/index.ts'

/** Answers a client. The fields of the answer take the place of those that were set before; others stay. */
export function writeAnswer(response: ServerResponse, { status, statusText, headers, body }: Answer): void {
  // Whoever has replaced writeHead may not know fields in this form.
  const plain = response.getHeaderNames().length === 0 && !Object.hasOwn(response, 'writeHead')
  if (!plain) setAll(response, headers)
  const fields = plain ? headers : undefined
  if (statusText === undefined) response.writeHead(status, fields)
  else response.writeHead(status, statusText, fields)
  if (body === undefined) response.end()
  else if (Buffer.isBuffer(body)) endWith(response, body)
  else stream(body, response)
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
  for (let at = 0; at < headers.length; at += 2) response.removeHeader(headers[at] as string)
  for (let at = 0; at < headers.length; at += 2)
    response.appendHeader(headers[at] as string, headers[at + 1] as string)
}

/** At the client's pace. Whatever makes the body is told when the client goes, even while there is nothing to be written. */
function stream(body: AsyncIterable<Uint8Array>, response: ServerResponse): void {
  const iterator = body[Symbol.asyncIterator]()
  const letGo = (): void => {
    iterator.return?.().catch(() => undefined)
  }
  if (response.destroyed) return letGo()
  response.once('close', letGo)
  pump(iterator, response).catch(() => response.destroy())
}

async function pump(iterator: AsyncIterator<Uint8Array>, response: ServerResponse): Promise<void> {
  for (;;) {
    const { done, value } = await iterator.next()
    if (done || response.destroyed) break
    if (!response.write(value)) await writable(response)
  }
  response.end()
}

function writable(response: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    const proceed = (): void => {
      response.off('drain', proceed)
      response.off('close', proceed)
      resolve()
    }
    response.on('drain', proceed)
    response.on('close', proceed)
  })
}

/** What an answer tells of the cache. */
export function cacheStatusOf({ headers }: Answer): string | undefined {
  const at = headers.indexOf('cache-status')
  return at === -1 ? undefined : headers[at + 1]
}
