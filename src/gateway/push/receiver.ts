import {
  type ClientRequest,
  Agent as HttpAgent,
  request as httpRequest,
  type IncomingMessage,
} from 'node:http'
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https'
import { lookupPublic } from './addresses.ts'

/** A connection that no request uses is closed after so long, ms: before receivers do, who might close it under a request. */
const IDLE_MS = 1_000

const SWITCHING_PROTOCOLS = 101

/** A request to a receiver. */
export interface Push {
  readonly headers: Readonly<Record<string, string>>
  readonly body: Buffer
  /** Ends the request: it rejects with the reason. */
  readonly signal: AbortSignal
  /** The body of the answer is read up to so many bytes. */
  readonly maxBytes: number
}

/** The answer of a receiver. */
export interface ReceiverAnswer {
  readonly status: number
  readonly headers: IncomingMessage['headers']
  readonly body: Buffer
  /** Whether the body has more bytes than were read. */
  readonly isCut: boolean
}

/** The receiver behind a URL. It keeps connections to it. Redirects are answers as others are. */
export class Receiver {
  readonly #url: URL
  readonly #agent: HttpAgent
  readonly #request: typeof httpRequest

  /** `allowInternal`: addresses are not checked. */
  constructor(url: URL, { allowInternal }: { allowInternal: boolean }) {
    const isSecure = url.protocol === 'https:'
    const options = { keepAlive: true, timeout: IDLE_MS, ...(!allowInternal && { lookup: lookupPublic }) }
    this.#url = url
    this.#agent = isSecure ? new HttpsAgent(options) : new HttpAgent(options)
    this.#request = isSecure ? httpsRequest : httpRequest
  }

  /** Posts a body. Rejects with the error of the connection, or the reason of the signal. */
  async post({ headers, body, signal, maxBytes }: Push): Promise<ReceiverAnswer> {
    signal.throwIfAborted()
    const request = this.#request(this.#url, { method: 'POST', agent: this.#agent, headers: { ...headers } })
    let abort = () => {}
    // A request that has ended already emits nothing when it is destroyed.
    const aborted = new Promise<never>((_, reject) => {
      abort = () => {
        request.destroy()
        reject(signal.reason)
      }
    })
    signal.addEventListener('abort', abort, { once: true })
    try {
      return await Promise.race([aborted, answerOf(request, body, maxBytes)])
    } catch (error) {
      throw signal.aborted ? signal.reason : error
    } finally {
      signal.removeEventListener('abort', abort)
    }
  }

  /** Closes the connections. */
  close(): void {
    this.#agent.destroy()
  }
}

async function answerOf(request: ClientRequest, body: Buffer, maxBytes: number): Promise<ReceiverAnswer> {
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    request.once('response', resolve)
    // 101, which was not asked for: the connection speaks no HTTP any more.
    request.once('upgrade', (response, socket) => {
      socket.destroy()
      resolve(response)
    })
    // After the response too: a receiver that does not read the whole body may close the connection when it has answered.
    request.on('error', reject)
    // The last event of every request, also of one that has ended without an error.
    request.once('close', () => reject(new Error('The request has ended without an answer')))
    request.end(body)
  })
  return readAnswer(response, maxBytes)
}

/** Holds at most `maxBytes` of the body and one chunk. */
async function readAnswer(response: IncomingMessage, maxBytes: number): Promise<ReceiverAnswer> {
  const { statusCode: status = 0, headers } = response
  // It has no body, nor an end.
  if (status === SWITCHING_PROTOCOLS) return { status, headers, body: Buffer.alloc(0), isCut: false }
  const chunks: Buffer[] = []
  let size = 0
  // Leaving the loop ends the connection, unless the body was read to its end.
  for await (const chunk of response as AsyncIterable<Buffer>) {
    size += chunk.length
    chunks.push(chunk)
    if (size > maxBytes) break
  }
  return { status, headers, body: Buffer.concat(chunks).subarray(0, maxBytes), isCut: size > maxBytes }
}
