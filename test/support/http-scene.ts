import { once } from 'node:events'
import {
  createServer,
  request as httpRequest,
  type IncomingHttpHeaders,
  type IncomingMessage,
  type OutgoingHttpHeaders,
  type RequestListener,
} from 'node:http'
import { type AddressInfo, connect, type Server } from 'node:net'
import { buffer } from 'node:stream/consumers'
import { test } from 'node:test'
import { promisify } from 'node:util'
import { Locker, type LockerOptions, MemoryStore } from '../../src/index.ts'
import { LOCALHOST } from './ports.ts'
import { type Setup, type SetupOptions, setup } from './setup.ts'

export interface Asked {
  method?: string
  headers?: OutgoingHttpHeaders
  body?: string | Buffer
}

/** A response as its client has received it. */
export interface Received {
  status: number
  statusText: string
  headers: IncomingHttpHeaders
  bytes: Buffer
  text: string
}

/** A server on loopback, and its clients: each request by a connection of its own. */
export class Served implements AsyncDisposable {
  readonly server: Server

  constructor(server: Server) {
    this.server = server
  }

  get port(): number {
    return (this.server.address() as AddressInfo).port
  }

  get url(): string {
    return `http://${LOCALHOST}:${this.port}`
  }

  /** The response's head has come; its body is to be read. */
  async begin(path: string, { method = 'GET', headers = {}, body }: Asked = {}): Promise<IncomingMessage> {
    const asked = httpRequest({ host: LOCALHOST, port: this.port, path, method, headers, agent: false })
    asked.end(body)
    const [response] = (await once(asked, 'response')) as [IncomingMessage]
    return response
  }

  async ask(path: string, asked?: Asked): Promise<Received> {
    return received(await this.begin(path, asked))
  }

  /** What the server says to these bytes until it closes the connection. */
  async raw(text: string): Promise<string> {
    const socket = connect(this.port, LOCALHOST)
    socket.write(text)
    return (await buffer(socket)).toString('latin1')
  }

  /** How many clients are connected. */
  connections(): Promise<number> {
    return promisify(this.server.getConnections.bind(this.server))()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = once(this.server, 'close')
    this.server.close()
    if ('closeAllConnections' in this.server) (this.server.closeAllConnections as () => void)()
    await closed
  }
}

export async function received(response: IncomingMessage): Promise<Received> {
  const bytes = await buffer(response)
  const { statusCode = 0, statusMessage = '', headers } = response
  return { status: statusCode, statusText: statusMessage, headers, bytes, text: bytes.toString() }
}

/** Where lockers of a test keep what they keep, and the servers before them. */
export class HttpWorld implements AsyncDisposable {
  readonly t: Setup | undefined
  readonly #place: LockerOptions
  readonly #opened: AsyncDisposable[] = []

  constructor(t?: Setup) {
    this.t = t
    this.#place = t ? { redis: t.redis } : { store: new MemoryStore() }
  }

  static async onRedis(options: SetupOptions = {}): Promise<HttpWorld & { readonly t: Setup }> {
    return new HttpWorld(await setup(options)) as HttpWorld & { readonly t: Setup }
  }

  /** One more, as another process would have it. */
  locker(options: LockerOptions = {}): Locker {
    const locker = new Locker({ ...this.#place, ...options })
    this.#opened.push({ [Symbol.asyncDispose]: () => locker.close({ grace: 0 }) })
    return locker
  }

  serve(listener: RequestListener): Promise<Served> {
    return this.listen(createServer(listener))
  }

  /** Has a server listen that does not yet. */
  async listen(server: Server): Promise<Served> {
    server.listen(0, LOCALHOST)
    await once(server, 'listening')
    return this.keep(new Served(server))
  }

  /** Closes this too at the end. */
  keep<T extends AsyncDisposable>(opened: T): T {
    this.#opened.push(opened)
    return opened
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const each of this.#opened.reverse()) await each[Symbol.asyncDispose]()
    await this.t?.[Symbol.asyncDispose]()
  }
}

/** The same test twice: in this process alone, and on a Redis of its own. */
export function onBoth(title: string, body: (world: HttpWorld) => Promise<void>): void {
  test(`${title}, in memory`, async () => {
    await using world = new HttpWorld()
    await body(world)
  })
  test(`${title}, on Redis`, async () => {
    await using world = await HttpWorld.onRedis()
    await body(world)
  })
}
