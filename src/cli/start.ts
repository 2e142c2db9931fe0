import { once } from 'node:events'
import {
  createServer,
  type IncomingMessage,
  type RequestListener,
  type Server,
  type ServerResponse,
} from 'node:http'
import { type AddressInfo, isIPv6 } from 'node:net'
import type { Duplex } from 'node:stream'
import { systemClock } from '../kernel/time.ts'

/** Proxies keep their connections for 60 s at most by default. The one that closes first must not be this server. */
const KEEP_ALIVE_MS = 75_000

/** Time for the last answers to be read by their clients. */
const FLUSH_MS = 2000

/** Where a server listens. */
export interface Address {
  readonly host: string
  /** 0: any free one. */
  readonly port: number
}

/** What answers, and what lets clients upgrade: undefined if nothing does. */
export interface Listeners {
  readonly request: RequestListener
  readonly upgrade: ((request: IncomingMessage, socket: Duplex, head: Buffer) => void) | undefined
}

/** What a server needs of a gateway. */
export interface Closable {
  close(options: { grace: number }): Promise<void>
}

/** An HTTP server before a gateway. */
export class GatewayServer {
  readonly #gateway: Closable
  readonly #server: Server
  /** Answers that are not written yet. */
  readonly #open = new Set<ServerResponse>()
  #state: 'serving' | 'closing' = 'serving'

  private constructor(gateway: Closable, { request: listener, upgrade }: Listeners) {
    this.#gateway = gateway
    this.#server = createServer({ keepAliveTimeout: KEEP_ALIVE_MS }, (request, response) => {
      this.#open.add(response)
      response.once('close', () => this.#open.delete(response))
      if (this.#state === 'closing') lastOnConnection(response)
      listener(request, response)
    })
    if (upgrade) this.#server.on('upgrade', upgrade)
  }

  /** Listens. @throws Error that says why it cannot; the gateway is closed then. */
  static async start(gateway: Closable, listeners: Listeners, address: Address): Promise<GatewayServer> {
    const { host, port } = address
    const server = new GatewayServer(gateway, listeners)
    try {
      await once(server.#server.listen(port, host), 'listening')
    } catch (error) {
      await gateway.close({ grace: 0 })
      throw new Error(refusal(error as NodeJS.ErrnoException, address), { cause: error })
    }
    return server
  }

  /** The URL by which it is reached from this machine. */
  get url(): string {
    const { address, port } = this.#server.address() as AddressInfo
    return `http://${isIPv6(address) ? `[${address}]` : address}:${port}`
  }

  /** Lets the gateway close, which answers meanwhile, and then the connections. `grace`: ms. */
  async close(grace: number): Promise<void> {
    this.#state = 'closing'
    for (const response of this.#open) lastOnConnection(response)
    try {
      await this.#gateway.close({ grace })
    } finally {
      const closed = once(this.#server, 'close')
      this.#server.close()
      const flush = systemClock.after(FLUSH_MS, () => this.#server.closeAllConnections())
      await closed
      flush.cancel()
    }
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
