import assert from 'node:assert/strict'
import { createHmac } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type IncomingMessage, type RequestListener, type ServerResponse } from 'node:http'
import { createServer as createSecureServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import type { Certificate } from './certificate.ts'
import { until } from './wait.ts'

/** A secret of Standard Webhooks. */
export const SECRET = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'

/** A request that a receiver has read. */
export interface Received {
  readonly method: string
  readonly path: string
  readonly headers: IncomingMessage['headers']
  readonly body: string
}

/** How a receiver answers the nth request, from 0. It may leave it open. */
export type Respond = (response: ServerResponse, request: Received, index: number) => void

/** A receiver of pushed jobs: an HTTP server that notes what it receives. */
export class PushReceiver implements AsyncDisposable {
  readonly received: Received[] = []
  readonly url: string
  readonly port: number
  /** Number of requests whose connection has ended before their answer. */
  left = 0
  readonly #server: ReturnType<typeof createServer>

  private constructor(server: ReturnType<typeof createServer>, origin: string) {
    this.#server = server
    this.port = (server.address() as AddressInfo).port
    this.url = `${origin}:${this.port}/hook`
  }

  /** `tls`: it is at `https://localhost`, with this certificate. */
  static async start(respond: Respond, host = '127.0.0.1', tls?: Certificate): Promise<PushReceiver> {
    let receiver: PushReceiver | undefined
    const listener: RequestListener = async (request, response) => {
      const chunks: Buffer[] = []
      for await (const chunk of request) chunks.push(chunk as Buffer)
      const { received } = receiver ?? assert.fail()
      const { method = '', url: path = '', headers } = request
      const noted = { method, path, headers, body: Buffer.concat(chunks).toString() }
      response.once('close', () => {
        if (receiver && !response.writableFinished) receiver.left++
      })
      respond(response, noted, received.push(noted) - 1)
    }
    const onRequest: RequestListener = (request, response) => {
      Promise.resolve(listener(request, response)).catch(() => {})
    }
    const server = tls ? createSecureServer(tls, onRequest) : createServer(onRequest)
    await once(server.listen(0, host), 'listening')
    receiver = new PushReceiver(server, tls ? 'https://localhost' : 'http://127.0.0.1')
    return receiver
  }

  /** Resolves when it has received so many requests. */
  async receives(count: number): Promise<Received> {
    const what = `${count} requests`
    await until(() => this.received.length >= count, { what, timeout: 15_000 })
    return this.received[count - 1] ?? assert.fail()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections()
    await new Promise((resolve) => this.#server.close(resolve))
  }
}

/** Answers with a status and a body. */
export function answer(
  status: number,
  body = '',
  headers: Record<string, string | number> = {},
): (response: ServerResponse) => void {
  return (response) => void response.writeHead(status, headers).end(body)
}

/** Fails unless a request is signed with the secrets, in this order, as Standard Webhooks says. */
export function assertSigned({ headers, body }: Received, ...secrets: string[]): void {
  const id = headers['webhook-id'] ?? assert.fail('it has no id')
  const timestamp = headers['webhook-timestamp']
  const age = Date.now() / 1_000 - Number(timestamp)
  assert.ok(age >= -1 && age < 60, `it is ${age} s old`)
  const expected = secrets.map((secret) => {
    const key = Buffer.from(secret.replace('whsec_', ''), 'base64')
    return `v1,${createHmac('sha256', key).update(`${id}.${timestamp}.${body}`).digest('base64')}`
  })
  assert.equal(headers['webhook-signature'], expected.join(' '))
}
