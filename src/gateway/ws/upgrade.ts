import { type IncomingMessage, STATUS_CODES } from 'node:http'
import type { Duplex } from 'node:stream'
import { type WebSocket, WebSocketServer } from 'ws'
import { systemClock } from '../../kernel/time.ts'
import type { Gateway } from '../gateway.ts'
import { Problem } from '../problem.ts'
import { type Peer, UNSUPPORTED } from './session.ts'
import { socketsOf, type UpgradeRequest } from './sockets.ts'

/** A listener for the event `upgrade` of a server of node:http. */
export type UpgradeListener = (request: IncomingMessage, socket: Duplex, head: Buffer) => void

/** How long a client has to say goodbye too, ms. */
const CLOSE_WITHIN = 1_000

/**
 * A listener that lets clients connect to `/ws` of a gateway. Needs the package `ws`.
 *
 * @example
 * const server = createServer(toNodeListener(gateway))
 * server.on('upgrade', toUpgradeListener(gateway))
 * server.listen(5000, '127.0.0.1')
 * @throws TypeError unless `createGateway` made the gateway.
 */
export function toUpgradeListener(gateway: Gateway): UpgradeListener {
  const sockets = socketsOf(gateway)
  const server = new WebSocketServer({
    noServer: true,
    maxPayload: sockets.maxPayload,
    // A few bytes of a client would become many here.
    perMessageDeflate: false,
    clientTracking: false,
  })
  return (incoming, stream, head) => {
    // What fails before the socket is open ends it.
    stream.on('error', () => stream.destroy())
    const request = upgradeRequest(incoming)
    const admission = request ? sockets.admit(request) : { problem: new Problem(400, 'invalid request') }
    if ('problem' in admission) return refuse(stream, admission.problem)
    server.handleUpgrade(incoming, stream, head, (socket) => {
      const listener = sockets.open(peerOf(socket), admission.scopes)
      socket.on('message', (data: Buffer, isBinary) => {
        if (isBinary) listener.onInvalid(UNSUPPORTED, 'text only')
        else listener.onMessage(data.toString())
      })
      socket.on('pong', () => listener.onAlive())
      socket.on('error', () => socket.terminate())
      socket.on('close', () => listener.onClose())
    })
  }
}

/** Undefined unless its target is a path. */
function upgradeRequest({ url = '', headers }: IncomingMessage): UpgradeRequest | undefined {
  const target = `http://${headers.host}${url}`
  if (!url.startsWith('/') || headers.host === undefined || !URL.canParse(target)) return undefined
  const header = (name: string) => {
    const value = headers[name]
    return typeof value === 'string' ? value : undefined
  }
  return { url: new URL(target), header }
}

function refuse(stream: Duplex, problem: Problem): void {
  const body = JSON.stringify(problem)
  const headers = {
    ...problem.headers,
    connection: 'close',
    'content-type': 'application/problem+json',
    'content-length': String(Buffer.byteLength(body)),
    'cache-control': 'no-store',
  }
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`)
  const { status } = problem
  stream.end(`HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\n${lines.join('')}\r\n${body}`)
}

function peerOf(socket: WebSocket): Peer {
  return {
    send: (text) => new Promise((resolve) => socket.send(text, (error) => resolve(!error))),
    get buffered() {
      return socket.bufferedAmount
    },
    ping: () => socket.ping(() => {}),
    close(code, reason) {
      socket.close(code, reason)
      const timer = systemClock.after(CLOSE_WITHIN, () => socket.terminate(), true)
      socket.once('close', () => timer.cancel())
    },
    terminate: () => socket.terminate(),
  }
}
