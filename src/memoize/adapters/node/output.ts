import { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { HeaderFields } from '../../engine/index.ts'
import type { CapturedConnection } from './captured-connection.ts'

/** The response that takes what a handler writes while its client's response is captured. It starts with the same headers. */
export function createOutput(
  connection: CapturedConnection,
  { method }: IncomingMessage,
  headers: HeaderFields,
): ServerResponse {
  // On Bun a response writes to the connection of the request that it is constructed with.
  const request = new IncomingMessage(connection as unknown as Socket)
  Object.assign(request, { method, httpVersion: '1.1', httpVersionMajor: 1, httpVersionMinor: 1 })
  const output = new ServerResponse(request)
  for (const name in headers) {
    const value = headers[name]
    // appendHeader() changes an array in place.
    if (value !== undefined) output.setHeader(name, Array.isArray(value) ? [...value] : value)
  }
  // The body is not chunked, and ends with the connection.
  output.shouldKeepAlive = false
  output.useChunkedEncodingByDefault = false
  // Node refuses a head that announces trailers unless the body is chunked.
  const chunked = { get: () => !output.headersSent, set: () => undefined }
  Object.defineProperty(output, 'chunkedEncoding', chunked)
  // Node's server does the same when a client has read what was written.
  Object.defineProperty(output, 'writableNeedDrain', { get: () => connection.writableNeedDrain })
  connection.on('drain', () => output.writableEnded || output.emit('drain'))
  output.assignSocket(connection as unknown as Socket)
  output.once('finish', () => connection.end())
  return output
}
