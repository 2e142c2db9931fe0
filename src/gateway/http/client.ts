import type { OutgoingResponse, RouteContext } from '../env.ts'

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
  const { outgoing } = env
  if (outgoing) {
    outgoing.once('close', listener)
    return () => void outgoing.removeListener('close', listener)
  }
  const { signal } = req.raw
  signal.addEventListener('abort', listener, { once: true })
  return () => signal.removeEventListener('abort', listener)
}
