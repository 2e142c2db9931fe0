import { once } from 'node:events'
import { createServer, type RequestListener, type Server, type ServerResponse } from 'node:http'
import { type AddressInfo, isIPv6, Server as NetServer, type Socket } from 'node:net'
import type { UpgradeListener } from '../gateway/ws/index.ts'
import { systemClock } from '../kernel/time.ts'

/** Proxies keep their connections for 60 s at most by default. The one that closes first must not be this server. */
const KEEP_ALIVE_MS = 75_000

/** At the end, a connection over which nothing goes for so long is cut. */
const IDLE_MS = 2000

/** Shortest time between two reports of connections that cannot be accepted. */
const REPORT_INTERVAL_MS = 60_000

/** Where a server listens. */
export interface Address {
  readonly host: string
  /** 0: any free one. */
  readonly port: number
}

/** What answers, and what lets clients upgrade: undefined if nothing does. */
export interface Listeners {
  readonly request: RequestListener
  readonly upgrade: UpgradeListener | undefined
}

/** How a server ends, ms. */
export interface Closing {
  /** It is not ready for so long first, and serves as before, until balancers have noticed. */
  readonly drain: number
  /** How long waiting requests run on then, and answers that are being read. */
  readonly grace: number
}

/** What a server needs of a gateway. */
export interface Closable {
  close(closing: Closing): Promise<void>
}

/** An HTTP server before a gateway. */
export class GatewayServer {
  readonly #gateway: Closable
  readonly #server: Server
  /** The connections, each with the answers that the system has not accepted as a whole. */
  readonly #connections = new Map<Socket, Set<ServerResponse>>()
  /** 'ending': no connection is accepted any more. */
  #state: 'serving' | 'closing' | 'ending' = 'serving'

  private constructor(gateway: Closable, { request: listener, upgrade }: Listeners) {
    this.#gateway = gateway
    const messages = upgrade && { IncomingMessage: upgrade.IncomingMessage }
    this.#server = createServer({ keepAliveTimeout: KEEP_ALIVE_MS, ...messages }, (request, response) => {
      const { socket } = request
      this.#connections.get(socket)?.add(response)
      response.once('close', () => this.#answered(socket, response))
      if (this.#state !== 'serving') lastOnConnection(response)
      listener(request, response)
    })
    if (upgrade) this.#server.on('upgrade', upgrade)
    this.#server.on('connection', (socket) => {
      this.#connections.set(socket, new Set())
      socket.once('close', () => this.#connections.delete(socket))
    })
  }

  /**
   * Listens. `onError` is told, now and then, that connections cannot be accepted; the server goes on.
   * @throws Error that says why it cannot listen; the gateway is closed then.
   */
  static async start(
    gateway: Closable,
    listeners: Listeners,
    address: Address,
    onError: (error: Error) => void,
  ): Promise<GatewayServer> {
    const { host, port } = address
    const server = new GatewayServer(gateway, listeners)
    try {
      await once(server.#server.listen(port, host), 'listening')
    } catch (error) {
      await gateway.close({ drain: 0, grace: 0 })
      throw new Error(refusal(error as NodeJS.ErrnoException, address), { cause: error })
    }
    let reportedAt = Number.NEGATIVE_INFINITY
    server.#server.on('error', ({ code, message }: NodeJS.ErrnoException) => {
      const now = systemClock.now()
      if (now - reportedAt < REPORT_INTERVAL_MS) return
      reportedAt = now
      onError(new Error(`A connection cannot be accepted: ${code ?? message}`))
    })
    return server
  }

  /** The URL by which it is reached from this machine. */
  get url(): string {
    const { address, port } = this.#server.address() as AddressInfo
    return `http://${isIPv6(address) ? `[${address}]` : address}:${port}`
  }

  /** Lets the gateway close, which answers meanwhile, and then the connections, as soon as their answers are read. */
  async close({ drain, grace }: Closing): Promise<void> {
    this.#state = 'closing'
    for (const responses of this.#connections.values()) responses.forEach(lastOnConnection)
    const end = systemClock.now() + drain + grace
    try {
      await this.#gateway.close({ drain, grace })
    } finally {
      await this.#end(Math.max(IDLE_MS, end - systemClock.now()))
    }
  }

  /** Closes the port, and the connections: those that are or become idle, and all after `limit` ms. */
  async #end(limit: number): Promise<void> {
    this.#state = 'ending'
    const closed = once(this.#server, 'close')
    // That of node:http destroys connections whose answer is ended, but not sent.
    NetServer.prototype.close.call(this.#server)
    for (const [socket, responses] of this.#connections) {
      if (responses.size === 0) socket.destroy()
      // The server destroys what times out. When the system accepts a part of an answer, that is activity.
      else socket.setTimeout(IDLE_MS)
    }
    const cut = systemClock.after(limit, () => this.#server.closeAllConnections())
    await closed
    cut.cancel()
  }

  #answered(socket: Socket, response: ServerResponse): void {
    const responses = this.#connections.get(socket)
    responses?.delete(response)
    if (this.#state === 'ending' && responses?.size === 0) socket.destroySoon()
  }
}

/** Lets the connection end after this answer, so that it need not be waited for. */
function lastOnConnection(response: ServerResponse): void {
  if (!response.headersSent) response.setHeader('Connection', 'close')
}

function refusal({ code, message }: NodeJS.ErrnoException, { host, port }: Address): string {
  const place = `port ${port} of ${host}`
  if (code === 'EADDRINUSE') return `Another process listens on ${place}: choose another one by --port`
  if (code === 'EACCES') return `This user may not listen on ${place}: choose a port from 1024 by --port`
  return `Cannot listen on ${place}: ${code ?? message}`
}
