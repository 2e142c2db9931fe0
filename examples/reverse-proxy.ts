/**
 * A caching reverse proxy, as RFC 9111 wants it. Any number of processes share one cache and ask the origin once:
 *
 *   npx tsx examples/reverse-proxy.ts --origin http://localhost:8000 --port 8080 --processes 4 --redis redis://localhost:6379
 */
import cluster from 'node:cluster'
import { Agent, createServer, type IncomingMessage, request, type ServerResponse } from 'node:http'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { parseArgs } from 'node:util'
import { Locker } from '../src/index.ts'
import {
  fromRawHeaders,
  HttpCache,
  type HttpResponse,
  type OriginRequest,
  type OriginResponse,
} from '../src/memoize/index.ts'

const { values } = parseArgs({
  options: {
    origin: { type: 'string', default: 'http://localhost:8000' },
    port: { type: 'string', default: '8080' },
    processes: { type: 'string', default: '1' },
    redis: { type: 'string' },
    'share-set-cookie': { type: 'boolean', default: false },
  },
})

const agent = new Agent({ keepAlive: true })

/** Asks the origin. `incoming`: whose body goes with it, if it has one. */
function ask(asked: OriginRequest, incoming: IncomingMessage): Promise<OriginResponse> {
  const { method, url: path, signal } = asked
  const chunked = incoming.headers['transfer-encoding'] !== undefined
  const headers = { ...asked.headers, ...(chunked && { 'transfer-encoding': 'chunked' }) }
  const hasBody = chunked || asked.headers['content-length'] !== undefined
  return new Promise((resolve, reject) => {
    const upstream = request(values.origin, { method, path, headers, agent, ...(signal && { signal }) })
    // All of them: a field that is not seen might forbid what follows. How many bytes there may be, Node bounds.
    upstream.maxHeadersCount = 0
    upstream.on('error', (error: NodeJS.ErrnoException) => {
      // The origin has closed a connection that was kept, just as it was used again: then it has not seen the request.
      const unseen = upstream.reusedSocket && error.code === 'ECONNRESET' && !hasBody && method === 'GET'
      if (unseen) resolve(ask(asked, incoming))
      else reject(error)
    })
    upstream.on('response', (body) => {
      const { statusCode: status = 502, statusMessage: statusText, rawHeaders } = body
      resolve({ status, statusText, headers: fromRawHeaders(rawHeaders), body })
    })
    upstream.on('upgrade', (_, socket) => {
      socket.destroy()
      reject(new Error('The origin changed protocols unasked'))
    })
    if (hasBody) incoming.pipe(upstream)
    else upstream.end()
  })
}

async function write(
  { status, statusText, headers, body }: HttpResponse,
  response: ServerResponse,
): Promise<void> {
  response.writeHead(status, statusText, headers)
  if (body === undefined || Buffer.isBuffer(body)) response.end(body)
  else await pipeline(Readable.from(body), response)
}

function serve(): void {
  const locker = new Locker({ redis: values.redis ?? null })
  const cache = new HttpCache(locker, {
    heuristics: true,
    revalidate: true,
    shareSetCookie: values['share-set-cookie'],
  })
  const server = createServer(async (incoming, response) => {
    const gone = new AbortController()
    response.on('close', () => gone.abort())
    try {
      const { method = '', url = '', rawHeaders } = incoming
      const asked = { method, url, headers: fromRawHeaders(rawHeaders), signal: gone.signal }
      await write(await cache.handle(asked, (asked) => ask(asked, incoming)), response)
    } catch {
      if (response.headersSent) response.destroy()
      else response.writeHead(502, 'Bad Gateway').end()
    }
  })
  server.maxHeadersCount = 0
  server.listen(Number(values.port), () => console.log('Listening on', server.address()))
}

if (cluster.isPrimary && values.processes !== '1') {
  for (let i = 0; i < Number(values.processes); i++) cluster.fork()
} else serve()
