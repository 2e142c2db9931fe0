// A process of the bench that serves HTTP, memoised or not.

import { createServer, type RequestListener, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Address } from '../test/support/daemon.ts'
import { LOCALHOST } from '../test/support/ports.ts'
import { serve } from '../test/support/process-child.ts'
import { valueFor } from './contenders/contender.ts'
import { library, libraryPart } from './library.ts'

/** What a server answers, whoever makes it: 2 KB. */
const BODY = Buffer.from(JSON.stringify(valueFor('page:1')))
const FIELDS = { 'content-type': 'application/json', 'content-length': String(BODY.length) }

/** What a cache adds: the others answer the same bytes. */
const OF_A_HIT = { ...FIELDS, age: '5', 'cache-status': 'soloflight; hit; ttl=595' }

export interface Site {
  kind: 'bare' | 'plain cache' | 'memoised' | 'Fetch core'
  redis: Address
  /** Of the memoised answer, ms. */
  ttl: number
  staleWhileRevalidate: number
  /** How long the handler takes, ms. */
  takes: number
}

const servers = new Map<string, Server>()
const runs = new Map<string, number>()

async function listenerOf(
  name: string,
  { kind, redis, ttl, staleWhileRevalidate, takes }: Site,
): Promise<RequestListener> {
  const run = () => runs.set(name, (runs.get(name) ?? 0) + 1)
  const bare: RequestListener = (_request, response) => {
    response.writeHead(200, OF_A_HIT)
    response.end(BODY)
  }
  if (kind === 'bare') return bare
  if (kind === 'plain cache') {
    const kept = new Map([['/', { status: 200, fields: OF_A_HIT, body: BODY }]])
    return ({ url = '' }, response) => {
      const answer = kept.get(url)
      if (!answer) return void response.writeHead(404).end()
      response.writeHead(answer.status, answer.fields)
      response.end(answer.body)
    }
  }
  const { Locker } = await library()
  const locker = new Locker({ redis, prefix: name.replace(/\W+/g, '-') })
  const options = { ttl, staleWhileRevalidate }
  if (kind === 'memoised') {
    const { memoizeHandler } = await libraryPart('memoize/node')
    return memoizeHandler(locker, options, async (_request, response) => {
      if (takes > 0) await sleep(takes)
      run()
      response.writeHead(200, FIELDS)
      response.end(BODY)
    })
  }
  const { memoizeHandler } = await libraryPart('memoize/fetch')
  const { getRequestListener } = await import('@hono/node-server')
  return getRequestListener(
    memoizeHandler(locker, options, () => {
      run()
      return new Response(BODY, { headers: FIELDS })
    }),
  )
}

const handlers = {
  async listen(name: string, site: Site): Promise<number> {
    const server = createServer(await listenerOf(name, site))
    servers.set(name, server)
    await new Promise<void>((resolve) => server.listen(0, LOCALHOST, resolve))
    return (server.address() as AddressInfo).port
  },
  /** How often the handler of a site has run. */
  runs: (name: string): number => runs.get(name) ?? 0,
}

export type HttpHandlers = typeof handlers

serve(handlers)
