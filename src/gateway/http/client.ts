import type { RouteContext } from '../env.ts'

// Whether the client of a request is there. On node:http the connection says so, elsewhere the signal of the request. On
// node:http a signal would be made for it, which costs more.

/** Whether the client is known to be gone: node:http sends nothing on a connection that the client has closed. */
export function isGone({ req, env: { incoming, outgoing } }: RouteContext): boolean {
  if (!incoming || !outgoing) return req.raw.signal.aborted
  const { socket } = incoming
  const isClosed = outgoing.destroyed || outgoing.stream?.destroyed
  return isClosed || socket.destroyed || socket.readableEnded
}

/** Calls `listener` once when the client is gone, until the returned function is called. */
export function onGone({ req, env }: RouteContext, listener: () => void): () => void {
  const { outgoing } = env
  if (outgoing) {
    outgoing.once('close', listener)
    return () => void outgoing.removeListener('close', listener)
  }
  const { signal } = req.raw
  signal.addEventListener('abort', listener, { once: true })
  return () => signal.removeEventListener('abort', listener)
}
