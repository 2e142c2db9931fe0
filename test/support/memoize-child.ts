// A process with a server whose pages are memoised. What its handler does, its parent is told.

import { once } from 'node:events'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { createAdaptorServer } from '@hono/node-server'
import express from 'express'
import { Locker, type LockerOptions } from '../../src/index.ts'
import { memoizeHandler as memoizeFetch } from '../../src/memoize/fetch.ts'
import { memoizeHandler } from '../../src/memoize/node.ts'
import type { Address } from './daemon.ts'
import { LOCALHOST } from './ports.ts'
import { emit, serve } from './process-child.ts'

export type Kind = 'node' | 'express' | 'fetch'

/** How long a page takes, ms. */
let slowness = 0
/** What the pages tell. */
let version = 1
let opened: Locker | undefined

/** The page at a URL. */
async function page(url: string): Promise<string> {
  emit('run', { url, pid: process.pid })
  await new Promise((resolve) => setTimeout(resolve, slowness))
  return `${url} version ${version}`
}

const SERVERS: Record<Kind, (locker: Locker) => Server> = {
  node: (locker) =>
    createServer(
      memoizeHandler(locker, { ttl: 60_000 }, async (request, response) => {
        if (request.method === 'POST') version++
        response.end(request.method === 'POST' ? 'changed' : await page(request.url ?? ''))
      }),
    ),
  express: (locker) => {
    const app = express()
    app.use(memoizeHandler(locker, { ttl: 60_000 }))
    app.get('/{*path}', async (request, response) => {
      response.send(await page(request.originalUrl))
    })
    return createServer(app)
  },
  fetch: (locker) => {
    const fetch = memoizeFetch(locker, { ttl: 60_000 }, async (request) => {
      return new Response(await page(new URL(request.url).pathname))
    })
    return createAdaptorServer({ fetch }) as Server
  },
}

const handlers = {
  /** Returns the port. */
  open: async (
    kind: Kind,
    options: { slowness: number; locker: LockerOptions & { redis: Address } },
  ): Promise<number> => {
    slowness = options.slowness
    opened = new Locker(options.locker)
    const server = SERVERS[kind](opened).listen(0, LOCALHOST)
    await once(server, 'listening')
    return (server.address() as AddressInfo).port
  },
  setVersion: (to: number): void => {
    version = to
  },
}

export type MemoizeHandlers = typeof handlers

serve(handlers)
