// Attacks on the HTTP cache as tables: a row has the attacker's requests, the victim's request, and the expected response.
// Requests are sent byte by byte over sockets, to each kind of server with the cache.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, type RequestListener, type Server } from 'node:http'
import { createRequire } from 'node:module'
import { type AddressInfo, connect } from 'node:net'
import { after, before, describe, test } from 'node:test'
import { createAdaptorServer } from '@hono/node-server'
import express from 'express'
import { Locker, type LockerOptions, MemoryStore } from '../../src/index.ts'
import { memoizeHandler as memoizeFetch } from '../../src/memoize/fetch.ts'
import type { HttpCacheOptions } from '../../src/memoize/index.ts'
import { memoizeHandler } from '../../src/memoize/node.ts'
import { LOCALHOST } from './ports.ts'
import { type Setup, setup } from './setup.ts'

const express4 = createRequire(import.meta.url)('express4') as typeof express

/** A request as the application sees it. */
export interface Seen {
  method: string
  /** Path and query. */
  url: string
  host: string
  field(name: string): string | undefined
  body: string
  /** The number of this run of the application. */
  run: number
}

/** The response of the application. By default 200, and fresh for a minute. */
export interface Said {
  status?: number
  headers?: Record<string, string | string[]>
  body: string
}

export type App = (seen: Seen) => Said | Promise<Said>

/** A request: its request line without the version, then header lines. Host and Connection are added if absent. */
export type Asked = string

/** The expected response. */
export interface Expected {
  status?: number
  /** Text in it: head or body. */
  has?: string | RegExp
  lacks?: string | RegExp
  /** The run of the application that made it: 1 is the run for the first request. */
  run?: number
}

export interface Row {
  /** The name of the attack in the literature. */
  attack: string
  /** The attacker's requests, in order. In a deception the first is the victim's, who was lured to the URL. */
  sends: Asked | readonly Asked[]
  /** The expected response to the first of them. Not checked by default. */
  answered?: Expected
  /** The victim's request, afterwards; in a deception, the attacker's. */
  asks: Asked
  gets: Expected
  app?: App
  options?: HttpCacheOptions
  /** The servers to which the attack applies. @default all */
  on?: readonly Kind[]
}

export type Kind = 'node' | 'express 5' | 'express 4' | 'fetch'

const KINDS: readonly Kind[] = ['node', 'express 5', 'express 4', 'fetch']

/** Whether to run on all kinds of servers, two on one Redis; otherwise on node:http and Fetch in one process. */
const FULL = process.env['ATTACK'] === 'full'

/** The application of most attacks: its page contains what it takes from the request. */
export const reflecting: App = ({ method, url, host, field, body }) => {
  const role = field('x-auth') ?? field('cookie') ?? field('authorization') ?? 'nobody'
  return { body: `${method} ${url} of ${host} for ${role}${body === '' ? '' : ` with ${body}`}` }
}

type CountedApp = (seen: Omit<Seen, 'run'>) => Said | Promise<Said>

/** A field tells the run. */
function counted(app: App): CountedApp {
  let count = 0
  return async (seen) => {
    const run = ++count
    const { status = 200, headers = { 'cache-control': 'max-age=60' }, body } = await app({ ...seen, run })
    return { status, headers: { ...headers, 'x-run': `${run}` }, body }
  }
}

function listenerOf(app: CountedApp): RequestListener {
  return async (request, response) => {
    let body = ''
    for await (const chunk of request) body += chunk
    const { url = '', method = '', headers } = request
    const field = (name: string) => (headers[name] === undefined ? undefined : String(headers[name]))
    const said = await app({ method, url, host: headers.host ?? '', field, body })
    response.writeHead(said.status ?? 200, said.headers)
    response.end(said.body)
  }
}

type ExpressListener = Parameters<ReturnType<typeof express>['use']>[0]

function serverOf(kind: Kind, locker: Locker, options: HttpCacheOptions, app: CountedApp): Server {
  const listener = listenerOf(app)
  // Some attacks make the server fail.
  const quiet = { ...options, onError: () => undefined }
  if (kind === 'node') return createServer(memoizeHandler(locker, quiet, listener))
  if (kind === 'fetch') {
    const fetch = memoizeFetch(locker, options as object, async (request) => {
      const url = new URL(request.url)
      const field = (name: string) => request.headers.get(name) ?? undefined
      const seen = { method: request.method, url: url.pathname + url.search, host: url.host, field }
      const { status, headers = {}, body } = await app({ ...seen, body: await request.text() })
      const lines = Object.entries(headers).flatMap(([name, value]) =>
        [value].flat().map((line): [string, string] => [name, line]),
      )
      return new Response(body === '' ? null : body, { status: status ?? 200, headers: lines })
    })
    return createAdaptorServer({ fetch, overrideGlobalObjects: false }) as Server
  }
  const server = kind === 'express 5' ? express() : express4()
  server.use(memoizeHandler(locker, quiet as object) as unknown as ExpressListener)
  server.use((request, response, next) => {
    Promise.resolve(listener(request, response)).catch(next)
  })
  server.use(((_error, _request, response, _next) => {
    if (response.headersSent) response.destroy()
    else response.status(500).end('failed')
  }) as express.ErrorRequestHandler)
  return createServer(server)
}

/** Servers with one application and one cache. */
export class Site implements AsyncDisposable {
  readonly #servers: Server[] = []
  readonly #lockers: Locker[] = []
  readonly #app: CountedApp
  #next = 0

  constructor(app: App = reflecting) {
    this.#app = counted(app)
  }

  async open(kind: Kind, place: LockerOptions, options: HttpCacheOptions = {}): Promise<void> {
    const locker = new Locker(place)
    this.#lockers.push(locker)
    const server = serverOf(kind, locker, options, this.#app).listen(0, LOCALHOST)
    this.#servers.push(server)
    await once(server, 'listening')
  }

  /** Sends each request to the next server in turn. */
  async ask(asked: Asked): Promise<Answered> {
    const server = this.#servers[this.#next++ % this.#servers.length] as Server
    const { port } = server.address() as AddressInfo
    return new Answered(await spoken(port, wire(asked), isRaw(asked) ? SILENCE : PATIENCE))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const server of this.#servers) {
      server.close()
      server.closeAllConnections()
    }
    for (const locker of this.#lockers) await locker.close({ grace: 0 })
  }
}

/** Whether the request is sent as it stands: its first line has a version. */
function isRaw(asked: Asked): boolean {
  return /^[^\n]*( HTTP\/|\r\n)/.test(asked)
}

/** The bytes of a request. One with a version in its first line is sent as it stands. */
function wire(asked: Asked): string {
  if (isRaw(asked)) return asked
  const [first = '', ...rest] = asked.split('\n')
  const blank = rest.indexOf('')
  const lines = blank === -1 ? rest : rest.slice(0, blank)
  const body = blank === -1 ? '' : rest.slice(blank + 1).join('\n')
  const named = (name: string) => lines.some((line) => line.toLowerCase().startsWith(`${name}:`))
  if (!named('host')) lines.unshift('Host: shop.example')
  if (!named('connection')) lines.push('Connection: close')
  if (body !== '' && !named('content-length') && !named('transfer-encoding'))
    lines.push(`Content-Length: ${Buffer.byteLength(body)}`)
  return `${[`${first} HTTP/1.1`, ...lines].join('\r\n')}\r\n\r\n${body}`
}

/** How long to wait after bytes that may leave the server waiting for more, ms. */
const SILENCE = 500

/** How long to wait for the response to a request, also on a loaded machine, ms. */
const PATIENCE = 20_000

/** All bytes that the server sends until the connection closes or stays silent. */
async function spoken(port: number, bytes: string, within: number): Promise<string> {
  const socket = connect(port, LOCALHOST)
  socket.setEncoding('latin1').setTimeout(within, () => socket.destroy())
  socket.on('error', () => undefined)
  socket.write(bytes, 'latin1')
  let text = ''
  socket.on('data', (chunk) => {
    text += chunk
  })
  await once(socket, 'close')
  return text
}

/** A response as it was received. */
export class Answered {
  readonly text: string
  readonly status: number
  readonly body: string
  /** Whether the bytes are exactly one message. */
  readonly whole: boolean

  constructor(text: string) {
    this.text = text
    this.status = Number(/^HTTP\/1\.1 (\d{3})/.exec(text)?.[1] ?? 0)
    const end = text.indexOf('\r\n\r\n')
    const rest = end === -1 ? '' : text.slice(end + 4)
    const chunked = this.field('transfer-encoding') === 'chunked'
    this.body = chunked ? unchunked(rest) : rest
    const bodiless = [204, 205, 304].includes(this.status) && rest === ''
    const complete = chunked ? rest.endsWith('0\r\n\r\n') : this.field('content-length') === `${rest.length}`
    this.whole = bodiless || complete
  }

  field(name: string): string | undefined {
    const head = this.text.slice(0, this.text.indexOf('\r\n\r\n'))
    const line = head.split('\r\n').find((line) => line.toLowerCase().startsWith(`${name}:`))
    return line?.slice(name.length + 1).trim()
  }

  check(expected: Expected, what: string): void {
    const { status, has, lacks, run } = expected
    const shown = `${what}: ${JSON.stringify(this.text.slice(0, 600))}`
    if (status !== undefined) assert.equal(this.status, status, shown)
    if (has !== undefined) assert.ok(holds(this.text, has), `${shown} lacks ${has}`)
    if (lacks !== undefined) assert.ok(!holds(this.text, lacks), `${shown} has ${lacks}`)
    if (run !== undefined) assert.equal(this.field('x-run'), `${run}`, shown)
  }
}

/** The content of a chunked body. */
function unchunked(text: string): string {
  const line = text.indexOf('\r\n')
  const size = Number.parseInt(text, 16)
  if (line === -1 || !(size > 0)) return ''
  return text.slice(line + 2, line + 2 + size) + unchunked(text.slice(line + 2 + size + 2))
}

function holds(text: string, what: string | RegExp): boolean {
  return typeof what === 'string' ? text.includes(what) : what.test(text)
}

/** A test for each row, on each kind of server. */
export function attacks(title: string, rows: readonly Row[]): void {
  for (const kind of FULL ? KINDS : (['node', 'fetch'] as const)) {
    describe(`${title}, ${kind}`, () => {
      let t: Setup | undefined
      before(async () => {
        if (FULL) t = await setup()
      })
      after(() => t?.[Symbol.asyncDispose]())
      for (const [index, row] of rows.entries()) {
        if (row.on && !row.on.includes(kind)) continue
        test(row.attack, async () => {
          await using site = new Site(row.app)
          for (const place of placesOf(t, `row${index}`)) await site.open(kind, place, row.options)
          const [lured, ...more] = [row.sends].flat()
          const got = await site.ask(lured as string)
          if (row.answered) got.check(row.answered, 'what was sent first')
          for (const asked of more) await site.ask(asked)
          const answer = await site.ask(row.asks)
          answer.check(row.gets, 'who asked then')
        })
      }
    })
  }
}

/** One process; or two on one Redis, so that attacker and victim use different processes. */
function placesOf(t: Setup | undefined, prefix: string): LockerOptions[] {
  if (!t) return [{ store: new MemoryStore() }]
  return [
    { redis: t.redis, prefix },
    { redis: t.redis, prefix, cache: false },
  ]
}
