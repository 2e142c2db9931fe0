import { nextTurn } from '../../kernel/time.ts'
import type { ClientSocket, OutgoingResponse, RouteContext } from '../env.ts'
import { textResponse } from './responses.ts'

/** An answer, and whether the client was there when it was sent. */
export interface HandOver {
  readonly response: Response
  /** Resolves with true when the whole answer was handed to the system, and with false when the client was gone before. */
  readonly sent: Promise<boolean>
}

/**
 * An answer of JSON that tells whether it was sent. On node:http the response says so. Elsewhere it is sent when its body was
 * read; a reader that has read it may still fail to pass it on.
 */
export async function handOver(
  { req, env }: RouteContext,
  text: string,
  headers: Readonly<Record<string, string>>,
): Promise<HandOver> {
  const init = { status: 200, headers: { 'content-type': 'application/json', ...headers } }
  const { signal } = req.raw
  const { incoming, outgoing } = env
  const node = incoming && outgoing && { socket: incoming.socket, outgoing }
  if (node) await readPending()
  if (signal.aborted || (node && isGone(node.outgoing, node.socket)))
    return { response: new Response(null, { status: 499 }), sent: Promise.resolve(false) }
  if (node) return { response: textResponse(text, init), sent: finished(node.outgoing, node.socket) }
  return streamed(Buffer.from(text), init, signal)
}

/**
 * Lets two turns of the event loop pass. In the second one at the latest, all that the client had sent is read: the end of its
 * connection too, if it was gone when it was its turn.
 */
async function readPending(): Promise<void> {
  for (let turn = 0; turn < 2; turn++) await new Promise<void>((resolve) => void nextTurn(resolve))
}

/** The client has closed its connection: node:http sends it nothing then. */
function isGone(outgoing: OutgoingResponse, socket: ClientSocket): boolean {
  return outgoing.destroyed || socket.destroyed || socket.readableEnded
}

function finished(outgoing: OutgoingResponse, socket: ClientSocket): Promise<boolean> {
  return new Promise((resolve) => {
    const onClosed = () => settle(outgoing.writableFinished)
    const settle = (sent: boolean) => {
      socket.removeListener('close', onClosed)
      resolve(sent)
    }
    outgoing.once('finish', () => settle(true))
    outgoing.once('close', onClosed)
    socket.once('close', onClosed)
  })
}

function streamed(
  bytes: Uint8Array,
  init: { status: number; headers: Record<string, string> },
  signal: AbortSignal,
): HandOver {
  let settle: (sent: boolean) => void = () => {}
  const sent = new Promise<boolean>((resolve) => {
    settle = resolve
  })
  const onGone = () => settle(false)
  signal.addEventListener('abort', onGone, { once: true })
  void sent.then(() => signal.removeEventListener('abort', onGone))
  const body = new ReadableStream<Uint8Array>(
    {
      pull(controller) {
        controller.enqueue(bytes)
        controller.close()
        settle(!signal.aborted)
      },
      cancel: onGone,
    },
    // Nothing is read before the adapter asks for it.
    { highWaterMark: 0 },
  )
  const headers = { ...init.headers, 'content-length': String(bytes.byteLength) }
  return { response: new Response(body, { ...init, headers }), sent }
}
