import type { OutgoingResponse, RouteContext } from '../env.ts'

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
export function handOver(
  { req, env }: RouteContext,
  text: string,
  headers: Readonly<Record<string, string>>,
): HandOver {
  const init = { status: 200, headers: { 'content-type': 'application/json', ...headers } }
  const { signal } = req.raw
  if (signal.aborted) return { response: new Response(null, { status: 499 }), sent: Promise.resolve(false) }
  const { outgoing } = env
  if (typeof outgoing?.once === 'function')
    return { response: new Response(text, init), sent: finished(outgoing) }
  return streamed(Buffer.from(text), init, signal)
}

function finished(outgoing: OutgoingResponse): Promise<boolean> {
  if (outgoing.destroyed) return Promise.resolve(false)
  return new Promise((resolve) => {
    outgoing.once('finish', () => resolve(true))
    outgoing.once('close', () => resolve(outgoing.writableFinished))
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
