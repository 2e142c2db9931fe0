import { createServer, type IncomingMessage, request, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { LOCALHOST } from './ports.ts'

/** A request that came through a relay. */
export interface RelayedRequest {
  readonly method: string
  /** With the query. */
  readonly path: string
  readonly headers: IncomingMessage['headers']
  /** When it came, ms. */
  readonly at: number
  /** The status of its answer; undefined: there is none yet, or it was lost. */
  status?: number
}

/**
 * What becomes of a request. 'pass': it is answered. 'lose': it takes effect, and its connection ends instead of the answer.
 * 'drop': its connection ends before it has reached the server. 'hang': it is not answered, nor passed on. Otherwise the relay
 * answers itself.
 */
export type Fate =
  | 'pass'
  | 'lose'
  | 'drop'
  | 'hang'
  | { status: number; headers?: Record<string, string>; body?: string }

/** A wire of HTTP between clients and a server, which fails at a word. */
export class HttpRelay implements AsyncDisposable {
  readonly requests: RelayedRequest[] = []
  /** Decides about each request. */
  fate: (request: RelayedRequest) => Fate = () => 'pass'
  readonly #target: () => string
  readonly #server: Server
  readonly #open = new Set<RelayedRequest>()

  private constructor(target: () => string) {
    this.#target = target
    this.#server = createServer((incoming, outgoing) => this.#onRequest(incoming, outgoing))
  }

  /** `target`: URL of the server, at each request. */
  static async start(target: string | (() => string)): Promise<HttpRelay> {
    const relay = new HttpRelay(typeof target === 'string' ? () => target : target)
    await new Promise<void>((resolve) => relay.#server.listen(0, LOCALHOST, resolve))
    return relay
  }

  get url(): string {
    return `http://${LOCALHOST}:${(this.#server.address() as AddressInfo).port}`
  }

  /** The requests that are not answered yet, by method and path. */
  get open(): string[] {
    return [...this.#open].map(({ method, path }) => `${method} ${path}`)
  }

  /** The requests so far of a method, and perhaps of a path that contains the text. */
  count(method: string, text = ''): number {
    return this.requests.filter((each) => each.method === method && each.path.includes(text)).length
  }

  #onRequest(incoming: IncomingMessage, outgoing: ServerResponse): void {
    const { method = '', url: path = '', headers } = incoming
    const relayed: RelayedRequest = { method, path, headers, at: performance.now() }
    this.requests.push(relayed)
    this.#open.add(relayed)
    outgoing.once('close', () => this.#open.delete(relayed))
    const fate = this.fate(relayed)
    if (fate === 'hang') return
    if (fate === 'drop') return void incoming.socket.destroy()
    if (typeof fate === 'object') {
      relayed.status = fate.status
      incoming.resume()
      outgoing.writeHead(fate.status, fate.headers ?? {}).end(fate.body ?? '')
      return
    }
    this.#pass(incoming, outgoing, relayed, fate === 'lose')
  }

  #pass(incoming: IncomingMessage, outgoing: ServerResponse, relayed: RelayedRequest, lose: boolean): void {
    const { method, headers } = incoming
    const url = new URL(relayed.path, this.#target())
    const upstream = request(url, { method, headers: { ...headers, host: url.host }, agent: false })
    upstream.once('error', () => incoming.socket.destroy())
    upstream.once('response', (answer) => {
      if (lose) {
        answer.resume()
        answer.once('end', () => incoming.socket.destroy())
        return
      }
      relayed.status = answer.statusCode ?? 0
      outgoing.writeHead(relayed.status, answer.headers)
      answer.pipe(outgoing)
    })
    // The server must see that its client is gone.
    outgoing.once('close', () => upstream.destroy())
    incoming.pipe(upstream)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve))
    this.#server.closeAllConnections()
    await closed
  }
}
