import type { IncomingMessage, Server } from 'node:http'
import type { Socket } from 'node:net'

/** What an inner connection tells of the one that a request came by. Not who the client is by its certificate. */
export interface Peer {
  remoteAddress: string | undefined
  remotePort: number | undefined
  remoteFamily: string | undefined
  localAddress: string | undefined
  localPort: number | undefined
  encrypted: boolean
  server: Server | undefined
}

export function peerOf({ socket }: IncomingMessage): Peer {
  const { remoteAddress, remotePort, remoteFamily, localAddress, localPort } = socket
  const { encrypted = false, server } = socket as Socket & { encrypted?: boolean; server?: Server }
  return { remoteAddress, remotePort, remoteFamily, localAddress, localPort, encrypted, server }
}
