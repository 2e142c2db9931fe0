import { type IncomingMessage, STATUS_CODES } from 'node:http'
import type { Duplex } from 'node:stream'
import { type WebSocket, WebSocketServer } from 'ws'
import { systemClock } from '../../kernel/time.ts'
import type { Gateway } from '../gateway.ts'
import { asksForWebSocket, UpgradingMessage } from '../http/upgrading-message.ts'
import { Problem } from '../problem.ts'
import { type Peer, UNSUPPORTED } from './socket-session.ts'
import { socketsOf, type UpgradeRequest } from './sockets.ts'

/** A listener for the event `upgrade` of a server of node:http. */
export interface UpgradeListener {
  (request: IncomingMessage, socket: Duplex, head: Buffer): void
  /**
   * For the option of the same name of the server. Without it, node:http does not give the listener for requests any request with
   * a header Upgrade, even for another protocol, as clients of HTTP/2 send it.
   */
  readonly IncomingMessage: typeof IncomingMessage
}

/** How long a client has to say goodbye too, ms. */
const CLOSE_WITHIN = 1_000

/** Its body, if it has one, was not read: it cannot be answered as if it had not asked. */
const UNKNOWN_PROTOCOL = new Problem(501, 'unknown protocol', {
  detail: 'The header Upgrade asks for another protocol than `websocket`: send the request without it',
})

/**
 * A listener that lets clients connect to `/ws` of a gateway. Needs the package `ws`.
 *
 * @example
 * const upgrade = toUpgradeListener(gateway)
 * const server = createServer({ IncomingMessage: upgrade.IncomingMessage }, toNodeListener(gateway))
 * server.on('upgrade', upgrade)
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
  const listener = (incoming: IncomingMessage, stream: Duplex, head: Buffer) => {
    // What fails before the socket is open ends it.
    stream.on('error', () => stream.destroy())
    if (!asksForWebSocket(incoming)) return refuse(stream, UNKNOWN_PROTOCOL)
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
  return Object.assign(listener, { IncomingMessage: UpgradingMessage })
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

/** Answers, and closes the connection: when the client has closed it too, or soon. */
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
  // With bytes that were not read, the connection would be reset, and the answer could be lost.
  stream.resume()
  const timer = systemClock.after(CLOSE_WITHIN, () => stream.destroy(), true)
  stream.once('close', () => timer.cancel())
}

function peerOf(socket: WebSocket): Peer {
  return {
    send: (text) => new Promise((resolve) => socket.send(text, (error) => resolve(!error))),
    get buffered() {
      return socket.bufferedAmount
    },
    ping: () => socket.ping(() => {}),
    pause: () => socket.pause(),
    resume: () => socket.resume(),
    close(code, reason) {
      socket.close(code, reason)
      const timer = systemClock.after(CLOSE_WITHIN, () => socket.terminate(), true)
      socket.once('close', () => timer.cancel())
    },
    terminate: () => socket.terminate(),
  }
}
