import { LOCALHOST } from '../../test/support/ports.ts'
import { Child } from '../../test/support/process.ts'
import { portOf } from '../../test/support/redis-server.ts'
import type { Stage } from '../stage.ts'
import type { HttpClientHandlers } from './client-child.ts'
import type { SiteHandlers, SiteKind } from './server-child.ts'

/** A server of jobs, and a client with connections to it, in a process each. */
export interface Site {
  readonly server: Child<SiteHandlers>
  readonly client: Child<HttpClientHandlers>
}

export async function openSite(kind: SiteKind, { server: redis }: Stage, connections: number): Promise<Site> {
  const server = await Child.fork<SiteHandlers>(new URL('./server-child.ts', import.meta.url))
  const client = await Child.fork<HttpClientHandlers>(new URL('./client-child.ts', import.meta.url))
  const port = await server.call('listen', kind, { host: LOCALHOST, port: portOf(redis) })
  await client.call('connect', port, connections)
  return { server, client }
}
