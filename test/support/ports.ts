import { once } from 'node:events'
import { createServer } from 'node:net'

export const LOCALHOST = '127.0.0.1'

/** A cluster node listens for the other nodes on its port plus this. */
const CLUSTER_BUS_OFFSET = 10_000

const FIRST = 11_000
const COUNT = 11_000

// Each process walks through the range from a place of its own: processes that look at the same time do not meet,
// and a port does not come back while somebody may still dial who was there before.
let step = process.pid * 97

/**
 * A port on 127.0.0.1 where nobody listens, nor on its cluster bus port. Both lie below the ephemeral range
 * that starts at 32768: there an outgoing connection of anybody could take the port before its server does, and
 * a client that reconnects to it while the server is away could even be connected to itself.
 */
export async function freePort(): Promise<number> {
  for (;;) {
    step += 1
    const port = FIRST + (step % COUNT)
    if ((await isFree(port)) && (await isFree(port + CLUSTER_BUS_OFFSET))) return port
  }
}

async function isFree(port: number): Promise<boolean> {
  const server = createServer().listen(port, LOCALHOST)
  try {
    await once(server, 'listening')
  } catch {
    return false
  }
  server.close()
  await once(server, 'close')
  return true
}
