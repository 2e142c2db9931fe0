import type { IncomingMessage } from 'node:http'
import type { HeaderFields } from '../http/index.ts'

/** What parsers leave on a request. */
type Parsed = IncomingMessage & { body?: unknown }

/** There is nothing to be read. */
export function endBody(request: IncomingMessage): void {
  request._read = () => undefined
  request.complete = true
  request.push(null)
}

/** Lets an inner request have the body of the client's: what is left to be read of it, or what was made of it. */
export function takeBody(request: Parsed, real: Parsed, headers: HeaderFields): void {
  if ('body' in real) request.body = real.body
  if (real.readableEnded || real.destroyed) {
    endBody(request)
    // Who looks for a body is to see that it was read.
    request.readable = false
    return
  }
  if (real.headers['transfer-encoding'] !== undefined) headers['transfer-encoding'] = 'chunked'
  request._read = () => real.resume()
  real.on('data', (chunk: Buffer) => {
    if (!request.push(chunk)) real.pause()
  })
  real.once('end', () => {
    request.complete = true
    request.push(null)
  })
  real.once('close', () => {
    if (!request.complete) request.destroy()
  })
}
