import { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { HeaderFields } from '../../engine/index.ts'
import type { Wire } from './wire.ts'

/** The response that a handler really writes to when that of its client is captured. It begins with the same fields. */
export function outputTo(wire: Wire, { method }: IncomingMessage, fields: HeaderFields): ServerResponse {
  // Bun has a response write to the connection of the very request that it is made for.
  const request = new IncomingMessage(wire as unknown as Socket)
  Object.assign(request, { method, httpVersion: '1.1', httpVersionMajor: 1, httpVersionMinor: 1 })
  const output = new ServerResponse(request)
  for (const name in fields) {
    const lines = fields[name]
    // Node adds to the very array.
    if (lines !== undefined) output.setHeader(name, Array.isArray(lines) ? [...lines] : lines)
  }
  // The body is to come as it is, and ends with the connection.
  output.shouldKeepAlive = false
  output.useChunkedEncodingByDefault = false
  // A head that announces trailers has to be chunked, or Node refuses it.
  const chunked = { get: () => !output.headersSent, set: () => undefined }
  Object.defineProperty(output, 'chunkedEncoding', chunked)
  // As the server does when a client has taken what was written.
  Object.defineProperty(output, 'writableNeedDrain', { get: () => wire.writableNeedDrain })
  wire.on('drain', () => output.writableEnded || output.emit('drain'))
  output.assignSocket(wire as unknown as Socket)
  output.once('finish', () => wire.end())
  return output
}
