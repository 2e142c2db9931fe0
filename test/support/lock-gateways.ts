import assert from 'node:assert/strict'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { test } from 'node:test'
import { createGateway, type Gateway, type GatewayOptions } from '../../src/gateway/index.ts'
import { toNodeListener } from '../../src/gateway/node.ts'
import { MemoryStore } from '../../src/index.ts'
import { type Setup, setup } from './setup.ts'

/** A reply, with its body read. */
export interface Reply {
  readonly status: number
  readonly headers: Headers
  readonly text: string
  /** The body as JSON. */
  // biome-ignore lint/suspicious/noExplicitAny: tests look at what the gateway answers
  readonly json: any
}

/** A gateway that listens on a port of its own. */
export interface ListeningGateway {
  readonly gateway: Gateway
  readonly url: string
  ask(method: string, path: string, init?: { body?: string; lease?: string; token?: string }): Promise<Reply>
}

/** Gateways on one store. Each stands for a process. */
export interface GatewayWorld extends AsyncDisposable {
  /** Undefined in memory. */
  readonly t: Setup | undefined
  /** One more gateway. Closed at the end. */
  listen(options?: GatewayOptions): Promise<ListeningGateway>
}

async function gatewaysIn(kind: 'memory' | 'redis'): Promise<GatewayWorld> {
  const t = kind === 'redis' ? await setup() : undefined
  const store = new MemoryStore()
  const open: { gateway: Gateway; server: Server }[] = []
  return {
    t,
    async listen(options = {}) {
      const place: GatewayOptions = t ? { redis: t.redis } : { lockerOptions: { store } }
      const gateway = createGateway({ ...place, ...options })
      const server = createServer(toNodeListener(gateway))
      open.push({ gateway, server })
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
      const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
      return { gateway, url, ask: (...request) => ask(url, ...request) }
    },
    async [Symbol.asyncDispose]() {
      await Promise.all(open.map(({ gateway }) => gateway.close({ grace: 0 })))
      for (const { server } of open) server.close().closeAllConnections()
      await t?.[Symbol.asyncDispose]()
    },
  }
}

async function ask(
  url: string,
  method: string,
  path: string,
  { body, lease, token }: { body?: string; lease?: string; token?: string } = {},
): Promise<Reply> {
  const headers: Record<string, string> = {}
  if (lease !== undefined) headers['x-lease'] = lease
  if (token !== undefined) headers['authorization'] = `Bearer ${token}`
  const reply = await fetch(url + path, { method, headers, ...(body === undefined ? {} : { body }) })
  const text = await reply.text()
  const isJson = /json/.test(reply.headers.get('content-type') ?? '')
  return { status: reply.status, headers: reply.headers, text, json: isJson ? JSON.parse(text) : undefined }
}

/** Asserts that a reply is a problem, with this text of presque's form. */
export function assertProblem({ status, json, headers, text }: Reply, expected: number, error: string): void {
  assert.deepEqual([status, json?.error], [expected, error], text)
  assert.equal(headers.get('content-type'), 'application/problem+json')
}

/** Runs the same test in memory and on a private Redis. */
export function onBothStores(title: string, body: (world: GatewayWorld) => Promise<void>): void {
  for (const kind of ['memory', 'redis'] as const) {
    test(`${title}, ${kind === 'memory' ? 'in memory' : 'on Redis'}`, async () => {
      await using world = await gatewaysIn(kind)
      await body(world)
    })
  }
}
