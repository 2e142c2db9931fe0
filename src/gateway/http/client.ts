import type { ClientSocket, OutgoingResponse, RouteContext } from '../env.ts'

// Whether the client of a request is there. On node:http the connection says so, elsewhere the signal of the request. On
// node:http a signal would be made for it, which costs more.

/** Whether the client is known to be gone: node:http sends nothing on a connection that the client has closed. */
export function isGone({ req, env: { incoming, outgoing } }: RouteContext): boolean {
  if (!incoming || !outgoing) return req.raw.signal.aborted
  const { socket } = incoming
  return isClosed(outgoing) || socket.destroyed || socket.readableEnded
}

/** Whether a response is over without an answer: its client is gone. */
export function isClosed({ destroyed, stream }: Pick<OutgoingResponse, 'destroyed' | 'stream'>): boolean {
  return destroyed || stream?.destroyed || false
}

/** Calls `listener` once when the client is gone, until the returned function is called. */
export function onGone({ req, env }: RouteContext, listener: () => void): () => void {
  const { incoming, outgoing } = env
  if (incoming && outgoing) {
    const onClosed = () => {
      leave()
      listener()
    }
    const leaveSocket = onSocketClosed(incoming.socket, onClosed)
    const leave = () => {
      outgoing.removeListener('close', onClosed)
      leaveSocket()
    }
    outgoing.once('close', onClosed)
    return leave
  }
  const { signal } = req.raw
  signal.addEventListener('abort', listener, { once: true })
  return () => signal.removeEventListener('abort', listener)
}

/** The listeners of each connection: any number of requests may wait on one, and an emitter warns of more than ten. */
const closeListeners = new WeakMap<ClientSocket, Set<() => void>>()

/**
 * Calls `listener` when a connection is closed, until the returned function is called. A response that waits for others on its
 * connection has no socket yet, and does not end with it.
 */
export function onSocketClosed(socket: ClientSocket, listener: () => void): () => void {
  const listeners = closeListeners.get(socket) ?? new Set()
  if (!closeListeners.has(socket)) {
    closeListeners.set(socket, listeners)
    socket.once('close', () => {
      for (const each of [...listeners]) each()
    })
  }
  listeners.add(listener)
  return () => void listeners.delete(listener)
}
