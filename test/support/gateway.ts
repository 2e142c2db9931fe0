import assert from 'node:assert/strict'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { test } from 'node:test'
import { createGateway, type Gateway, type GatewayOptions } from '../../src/gateway/index.ts'
import { toNodeListener } from '../../src/gateway/node.ts'
import { toUpgradeListener } from '../../src/gateway/ws/index.ts'
import { MemoryQueueStore, MemoryStore, RedisQueue } from '../../src/index.ts'
import { type Setup, setup } from './setup.ts'

/** A call of a route. */
export interface CallOptions {
  body?: string | undefined
  headers?: Record<string, string> | undefined
  /** Sent as `X-Lease`. */
  lease?: string | undefined
  /** Sent as `Authorization: Bearer`. */
  token?: string | undefined
  signal?: AbortSignal | undefined
}

/** An answer that has been read. */
export interface Answer {
  status: number
  headers: Headers
  text: string
  /** The text as JSON. */
  readonly json: unknown
}

/** A gateway on a server of node:http. */
export interface GatewayServer {
  readonly gateway: Gateway
  readonly server: Server
  readonly url: string
  readonly port: number
  /** Calls a route over HTTP. */
  call(method: string, path: string, options?: CallOptions): Promise<Answer>
  /** Calls a route of the Fetch handler, without a server. */
  fetch(method: string, path: string, options?: CallOptions): Promise<Answer>
  /** Closes the server and the gateway. */
  close(): Promise<void>
}

/** Where the gateways of a test keep their jobs. */
export interface GatewayWorld extends AsyncDisposable {
  readonly kind: 'memory' | 'redis'
  readonly t: Setup | undefined
  /** One more gateway, as another process would have it. Closed at the end. */
  open(options?: GatewayOptions): Promise<GatewayServer>
  /** A queue of the library in the same place. Closed at the end. */
  queue(name: string): RedisQueue
}

async function worldIn(kind: GatewayWorld['kind']): Promise<GatewayWorld> {
  const t = kind === 'redis' ? await setup() : undefined
  const stores = { queue: new MemoryQueueStore(), locker: new MemoryStore() }
  const opened: { close(options?: { grace: number }): Promise<void> }[] = []
  return {
    kind,
    t,
    async open(options = {}) {
      const place: GatewayOptions = t
        ? { redis: t.redis }
        : { queueOptions: { store: stores.queue }, lockerOptions: { store: stores.locker } }
      const server = await serve(createGateway({ ...place, ...options }))
      opened.push(server)
      return server
    },
    queue(name) {
      const queue = new RedisQueue(name, t ? { redis: t.redis } : { store: stores.queue })
      opened.push(queue)
      return queue
    },
    async [Symbol.asyncDispose]() {
      await Promise.all(opened.map((each) => each.close({ grace: 0 })))
      await t?.[Symbol.asyncDispose]()
    },
  }
}

/** Reads an answer. An event stream, which may have no end, is not read: see `event-client.ts`. */
async function answerOf(response: Response): Promise<Answer> {
  const { status, headers } = response
  const isStream = headers.get('content-type') === 'text/event-stream'
  if (isStream) await response.body?.cancel()
  const text = isStream ? '' : await response.text()
  return {
    ...{ status, headers, text },
    get json() {
      return JSON.parse(text) as unknown
    },
  }
}

function initOf(method: string, { body, headers, lease, token, signal }: CallOptions): RequestInit {
  return {
    method,
    headers: {
      ...headers,
      ...(lease === undefined ? {} : { 'x-lease': lease }),
      ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
    },
    ...(body === undefined ? {} : { body }),
    ...(signal === undefined ? {} : { signal }),
  }
}

/** A gateway on a server at a port of its own. */
export async function serve(gateway: Gateway): Promise<GatewayServer> {
  const upgrade = toUpgradeListener(gateway)
  const server = createServer({ IncomingMessage: upgrade.IncomingMessage }, toNodeListener(gateway))
  server.on('upgrade', upgrade)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  const url = `http://127.0.0.1:${port}`
  let closing: Promise<void> | undefined
  return {
    ...{ gateway, server, url, port },
    call: async (method, path, options = {}) => answerOf(await fetch(url + path, initOf(method, options))),
    fetch: async (method, path, options = {}) =>
      answerOf(await gateway.fetch(new Request(`http://localhost${path}`, initOf(method, options)))),
    close() {
      closing ??= (async () => {
        await gateway.close({ grace: 0 })
        server.closeAllConnections()
        await new Promise((resolve) => server.close(resolve))
      })()
      return closing
    },
  }
}

/** The same test twice: embedded, and on a Redis of its own. */
export function onBothWorlds(title: string, body: (world: GatewayWorld) => Promise<void>): void {
  for (const kind of ['memory', 'redis'] as const) {
    test(`${title}, ${kind === 'memory' ? 'in memory' : 'on Redis'}`, async () => {
      await using world = await worldIn(kind)
      await body(world)
    })
  }
}

/** An answer is a problem of this status and text. */
export function assertProblem(answer: Answer, status: number, error: string): void {
  assert.equal(answer.status, status, answer.text)
  assert.equal(answer.headers.get('content-type'), 'application/problem+json')
  const problem = answer.json as Record<string, unknown>
  assert.deepEqual([problem['status'], problem['error']], [status, error])
  assert.equal(typeof problem['type'], 'string')
  assert.equal(typeof problem['title'], 'string')
}
