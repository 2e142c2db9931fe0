// A process of the bench that serves jobs over HTTP: by a gateway, or by the least that could.

import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import { getRequestListener } from '@hono/node-server'
import { Hono } from 'hono'
import { Redis } from 'ioredis'
import { LOCALHOST } from '../../test/support/ports.ts'
import { serve } from '../../test/support/process-child.ts'
import { libraryPart } from '../library.ts'
import type { Address } from '../queues/queue.ts'

/** 'bare': a pair of handlers that take a job and note its result by one Redis command each. */
export type SiteKind = 'gateway' | 'bare'

async function listenerOf(kind: SiteKind, redis: Address): Promise<RequestListener> {
  if (kind === 'bare') return bareListener(redis)
  const { createGateway } = await libraryPart('gateway/index')
  const { toNodeListener } = await libraryPart('gateway/node')
  return toNodeListener(createGateway({ redis }))
}

function bareListener(address: Address): RequestListener {
  const redis = new Redis(address)
  const app = new Hono()
  app.get('/q/:queue', async (c) => {
    const job = await redis.lpop(c.req.param('queue'))
    return job === null
      ? c.json({ error: 'no job' }, 404)
      : c.body(job, 200, { 'content-type': 'application/json' })
  })
  app.put('/q/:queue', async (c) => {
    await redis.hset(`${c.req.param('queue')}.done`, c.req.header('x-lease') ?? '', await c.req.text())
    return c.body(null, 204)
  })
  return getRequestListener(app.fetch, { overrideGlobalObjects: false })
}

/** Requests that have arrived. */
let requests = 0

const handlers = {
  async listen(kind: SiteKind, redis: Address): Promise<number> {
    // As `soloflight serve`: connections rest while others are measured.
    const server = createServer({ keepAliveTimeout: 75_000 }, await listenerOf(kind, redis))
    server.on('request', () => requests++)
    await new Promise<void>((resolve) => server.listen(0, LOCALHOST, resolve))
    return (server.address() as AddressInfo).port
  },
  /** Microseconds of CPU used since the process began. */
  cpu: (): number => {
    const { user, system } = process.cpuUsage()
    return user + system
  },
  requests: (): number => requests,
}

export type SiteHandlers = typeof handlers

serve(handlers)
