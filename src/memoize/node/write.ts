import type { ServerResponse } from 'node:http'
import { pipeline } from 'node:stream'
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
  else pipeline(body, response, () => undefined)
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

/** What an answer tells of the cache. */
export function cacheStatusOf({ headers }: Answer): string | undefined {
  const at = headers.indexOf('cache-status')
  return at === -1 ? undefined : headers[at + 1]
}
