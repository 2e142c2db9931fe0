import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { type RawData, WebSocketServer } from 'ws'
import { RemoteBus } from '../../src/bus/remote/index.ts'
import { remoteOptions } from './remote-bus.ts'

/** A message of a client. */
export interface Asked {
  readonly id: string | number
  readonly type: string
  readonly sub?: string
  readonly queue?: string
}

type Send = (message: unknown) => void

/** False: it has not answered, and the answer is that of a gateway. */
export type Answer = (asked: Asked, send: Send, nth: number) => boolean

const OK: Record<string, unknown> = { hello: { scopes: [] }, attach: true, push: 1, inspect: 1, send: 1 }

/** What answers to clients of `/ws` as a test says. */
export class FakeGateway implements AsyncDisposable {
  readonly #server: WebSocketServer
  /** When the sockets were opened, ms. */
  readonly opened: number[] = []

  private constructor(server: WebSocketServer) {
    this.#server = server
  }

  /** `nth` socket: from 1. `upgrades`: the statuses by which it answers to the first requests, instead of opening a socket. */
  static async start(answer: Answer, upgrades: readonly number[] = []): Promise<FakeGateway> {
    const refused = [...upgrades]
    const server = new WebSocketServer({
      ...{ port: 0, host: '127.0.0.1' },
      verifyClient: (_, allow) => {
        const status = refused.shift()
        allow(status === undefined, status)
      },
    })
    await once(server, 'listening')
    const gateway = new FakeGateway(server)
    server.on('connection', (socket) => {
      const nth = gateway.opened.push(performance.now())
      const send = (message: unknown) =>
        socket.send(
          typeof message === 'string' || Buffer.isBuffer(message) ? message : JSON.stringify(message),
        )
      socket.on('message', (data: RawData) => {
        const asked = JSON.parse(String(data)) as Asked
        if (!answer(asked, send, nth)) send({ id: asked.id, ok: OK[asked.type] ?? null })
      })
    })
    return gateway
  }

  bus(): RemoteBus {
    const { port } = this.#server.address() as AddressInfo
    return new RemoteBus(`ws://127.0.0.1:${port}/ws`, remoteOptions({ token: 't' }))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#server.clients) socket.terminate()
    await new Promise((resolve) => this.#server.close(resolve))
  }
}
