// A process of the bench: a gateway whose event streams are idle, or the clients of one.

import { createServer } from 'node:http'
import { type AddressInfo, connect, type Socket } from 'node:net'
import { LOCALHOST } from '../test/support/ports.ts'
import { serve } from '../test/support/process-child.ts'
import { heap } from './heap.ts'
import { libraryPart } from './library.ts'

const sockets: Socket[] = []

/** Resolves when the head of the answer and the first bytes are there. */
function openStream(port: number, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, LOCALHOST)
    sockets.push(socket)
    socket.once('error', reject)
    socket.once('data', (bytes: Buffer) => {
      if (bytes.toString('latin1').startsWith('HTTP/1.1 200 ')) resolve()
      else reject(new Error(`Expected 200, got ${bytes.subarray(0, 40)}`))
    })
    socket.write(
      `GET ${path} HTTP/1.1\r\nHost: ${LOCALHOST}:${port}\r\nAccept: text/event-stream\r\nCache-Control: no-cache\r\n\r\n`,
    )
  })
}

const handlers = {
  /** Opens a gateway. Resolves to its port. */
  serve: async (redis: { host: string; port: number }): Promise<number> => {
    const { createGateway } = await libraryPart('gateway/index')
    const { toNodeListener } = await libraryPart('gateway/node')
    const gateway = createGateway({ redis })
    await gateway.ready()
    const server = createServer(toNodeListener(gateway))
    await new Promise<void>((resolve) => server.listen(0, LOCALHOST, resolve))
    return (server.address() as AddressInfo).port
  },
  heap: (): { used: number; external: number } => heap(),
  /** Opens so many streams, one after the other, and keeps them. */
  listen: async (port: number, path: string, count: number): Promise<void> => {
    for (let n = 0; n < count; n++) await openStream(port, path)
  },
  /** Closes all that were opened. */
  leave: (): void => {
    for (const socket of sockets.splice(0)) socket.destroy()
  },
}

export type EventHandlers = typeof handlers

serve(handlers)
