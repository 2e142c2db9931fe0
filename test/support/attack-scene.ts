// Attacks on the HTTP cache as tables: a row says what is sent first, who asks then, and what that must come to. Requests go
// out byte for byte by sockets, to each kind of server that has the cache.

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

/** What an application sees of a request. */
export interface Seen {
  method: string
  /** Path and query. */
  url: string
  host: string
  field(name: string): string | undefined
  body: string
  /** How many it has been given, with this one. */
  run: number
}

/** What it answers. By default 200, and fresh for a minute. */
export interface Said {
  status?: number
  headers?: Record<string, string | string[]>
  body: string
}

export type App = (seen: Seen) => Said | Promise<Said>

/** A request: its first line without the version, then header lines. Host and Connection are added where they are not. */
export type Asked = string

/** What an answer must be. */
export interface Expected {
  status?: number
  /** What stands in it: head and body. */
  has?: string | RegExp
  lacks?: string | RegExp
  /** Which run of the application it is of: 1 is what was made for whoever came first. */
  run?: number
}

export interface Row {
  /** What the literature calls it. */
  attack: string
  /** By the attacker, one after the other. In a deception the first is what he has lured a victim to send. */
  sends: Asked | readonly Asked[]
  /** What the first of them may get. Not looked at by default. */
  answered?: Expected
  /** The victim, afterwards; in a deception, the attacker. */
  asks: Asked
  gets: Expected
  app?: App
  options?: HttpCacheOptions
  /** Servers where it means anything. @default all */
  on?: readonly Kind[]
}

export type Kind = 'node' | 'express 5' | 'express 4' | 'fetch'

const KINDS: readonly Kind[] = ['node', 'express 5', 'express 4', 'fetch']

/** All kinds of servers, and two on one Redis, rather than node:http and Fetch in one process. */
const FULL = process.env['ATTACK'] === 'full'

/** The application behind most attacks: it puts into its page whatever it believes. */
export const reflecting: App = ({ method, url, host, field, body }) => {
  const role = field('x-auth') ?? field('cookie') ?? field('authorization') ?? 'nobody'
  return { body: `${method} ${url} of ${host} for ${role}${body === '' ? '' : ` with ${body}`}` }
}

type CountedApp = (seen: Omit<Seen, 'run'>) => Said | Promise<Said>

/** Each run is told apart by a field. */
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
  // Failures are part of the attacks.
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

/** Servers with one application, and one cache. */
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

  /** Asks the servers in turn: whoever comes next is at another one. */
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

/** Whether it is to go out as it stands: its first line has a version. */
function isRaw(asked: Asked): boolean {
  return /^[^\n]*( HTTP\/|\r\n)/.test(asked)
}

/** The bytes of a request. What has a version in its first line goes out as it stands. */
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

/** Bytes of an attacker's own may leave the server waiting for more: no longer than this, ms. */
const SILENCE = 500

/** Whatever is a request is answered, also by a loaded machine. */
const PATIENCE = 20_000

/** All bytes that come back until the connection is closed, or says nothing more. */
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

/** What came back. */
export class Answered {
  readonly text: string
  readonly status: number
  readonly body: string
  /** Whether it is one message, which ends where it says. */
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

/** What is in chunks, up to the last of them. */
function unchunked(text: string): string {
  const line = text.indexOf('\r\n')
  const size = Number.parseInt(text, 16)
  if (line === -1 || !(size > 0)) return ''
  return text.slice(line + 2, line + 2 + size) + unchunked(text.slice(line + 2 + size + 2))
}

function holds(text: string, what: string | RegExp): boolean {
  return typeof what === 'string' ? text.includes(what) : what.test(text)
}

/** A test for each row, by each kind of server. */
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

/** One process with a cache of its own; or two that share one Redis, so that the attacker and the victim are apart. */
function placesOf(t: Setup | undefined, prefix: string): LockerOptions[] {
  if (!t) return [{ store: new MemoryStore() }]
  return [
    { redis: t.redis, prefix },
    { redis: t.redis, prefix, cache: false },
  ]
}
