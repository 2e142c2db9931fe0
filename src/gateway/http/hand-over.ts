import pDefer from 'p-defer'
import { nextTurn } from '../../kernel/time.ts'
import type { ClientSocket, OutgoingResponse, RouteContext } from '../env.ts'
import { Answer, emptyAnswer } from './answer.ts'
import { isGone, onSocketClosed } from './client.ts'

/** An answer, and whether the client was there when it was sent. */
export interface HandOver {
  readonly answer: Answer
  /** Resolves with true when the whole answer was handed to the system, and with false when the client was gone before. */
  readonly sent: Promise<boolean>
}

/**
 * An answer that tells whether it was sent; without the text, 499, if the client is gone already. On node:http the response says
 * whether it was sent. Elsewhere it counts as sent when its body was read; the reader may still fail to pass it on.
 */
export async function handOver(
  c: RouteContext,
  text: string,
  headers: Readonly<Record<string, string>>,
): Promise<HandOver> {
  const { incoming, outgoing } = c.env
  const node = incoming && outgoing && { socket: incoming.socket, outgoing }
  if (node) await pendingRead()
  if (isGone(c)) return MISSED
  if (!node) {
    const answer = new StreamedAnswer(200, headers, text)
    return { answer, sent: answer.sent }
  }
  return { answer: new Answer(200, headers, text), sent: finished(node.outgoing, node.socket) }
}

/** The client was gone before. */
const MISSED: HandOver = { answer: emptyAnswer(499), sent: Promise.resolve(false) }

/** Answers that were made in this turn of the event loop wait together. */
let waitingTogether: Promise<void> | undefined

/**
 * Lets two turns of the event loop pass. In the second one at the latest, all that the client had sent is read: the end of its
 * connection too, if it was gone when it was its turn.
 */
function pendingRead(): Promise<void> {
  waitingTogether ??= new Promise<void>((resolve) => {
    nextTurn(() => {
      waitingTogether = undefined
      nextTurn(resolve)
    })
  })
  return waitingTogether
}

function finished(outgoing: OutgoingResponse, socket: ClientSocket): Promise<boolean> {
  return new Promise((resolve) => {
    const onClosed = () => {
      leaveSocket()
      resolve(outgoing.writableFinished)
    }
    const leaveSocket = onSocketClosed(socket, onClosed)
    outgoing.once('close', onClosed)
  })
}

/** An answer that tells whether its body was read. */
class StreamedAnswer extends Answer {
  readonly #sent = pDefer<boolean>()

  get sent(): Promise<boolean> {
    return this.#sent.promise
  }

  override toResponse({ signal }: Request): Response {
    const bytes = Buffer.from(this.body)
    const sent = this.#sent
    const onGone = () => sent.resolve(false)
    signal.addEventListener('abort', onGone, { once: true })
    void sent.promise.then(() => signal.removeEventListener('abort', onGone))
    const body = new ReadableStream<Uint8Array>(
      {
        pull(controller) {
          controller.enqueue(bytes)
          controller.close()
          sent.resolve(!signal.aborted)
        },
        cancel: onGone,
      },
      // Nothing is read before the adapter asks for it.
      { highWaterMark: 0 },
    )
    return new Response(body, { status: this.status, headers: this.fields(bytes.byteLength) })
  }
}
