import { WebSocket } from 'ws'
import { type UntilOptions, until } from './wait.ts'

/** A reply that is a problem. */
export class ProblemReply extends Error {
  readonly problem: Record<string, unknown>

  constructor(problem: Record<string, unknown>) {
    super(`${problem['status']} ${problem['error']}`)
    this.problem = problem
  }
}

/** What belongs to a subscription. */
export interface Push {
  sub: string | number
  [member: string]: unknown
}

/** A client of `/ws` that sends what it is told. */
export class SocketClient implements AsyncDisposable {
  readonly socket: WebSocket
  readonly pushes: Push[] = []
  /** Replies without a call. */
  readonly others: string[] = []
  /** Of the end of the socket. */
  closed: { code: number; reason: string } | undefined
  readonly #calls = new Map<number, (reply: { ok?: unknown; problem?: Record<string, unknown> }) => void>()
  #ids = 0

  private constructor(socket: WebSocket) {
    this.socket = socket
    socket.on('message', (data) => this.#onMessage(String(data)))
    socket.on('close', (code, reason) => {
      this.closed = { code, reason: String(reason) }
    })
    socket.on('error', () => {})
  }

  /** Resolves when it is open. Rejects if it is refused, with the status. */
  static async open(
    { port }: { port: number },
    { path = '/ws', headers = {} }: { path?: string; headers?: Record<string, string> } = {},
  ): Promise<SocketClient> {
    const socket = new WebSocket(`ws://127.0.0.1:${port}${path}`, { headers })
    const client = new SocketClient(socket)
    await new Promise<void>((resolve, reject) => {
      socket.once('open', resolve)
      socket.once('error', reject)
      socket.once('unexpected-response', (_, response) => {
        response.resume()
        socket.terminate()
        reject(new Error(`refused: ${response.statusCode}`))
      })
    })
    return client
  }

  #onMessage(text: string): void {
    const message = JSON.parse(text) as { id?: number; sub?: string; ok?: unknown }
    if (message.sub !== undefined) this.pushes.push(message as Push)
    else {
      const settle = this.#calls.get(message.id ?? -1)
      this.#calls.delete(message.id ?? -1)
      if (settle) settle(message)
      else this.others.push(text)
    }
  }

  /** Sends a message. Resolves with `ok`. @throws ProblemReply */
  call(type: string, members: Record<string, unknown> = {}): Promise<unknown> {
    return this.send(type, members).reply
  }

  /** The same; its id names a subscription. */
  send(type: string, members: Record<string, unknown> = {}): { id: number; reply: Promise<unknown> } {
    const id = ++this.#ids
    const reply = new Promise((resolve, reject) => {
      this.#calls.set(id, ({ ok, problem }) => (problem ? reject(new ProblemReply(problem)) : resolve(ok)))
      this.socket.once('close', () => reject(new Error('closed')))
    })
    this.socket.setMaxListeners(0)
    this.socket.send(JSON.stringify({ id, type, ...members }))
    return { id, reply }
  }

  /** Resolves with the first push that is like this, and takes it. */
  async take(is: (push: Push) => unknown, options: UntilOptions = { what: 'a push' }): Promise<Push> {
    const index = await until(() => {
      const found = this.pushes.findIndex(is)
      return found >= 0 && { found }
    }, options)
    return this.pushes.splice(index.found, 1)[0] as Push
  }

  /** Resolves with how it ended. */
  ended(timeout = 10_000): Promise<{ code: number; reason: string }> {
    return until(() => this.closed, { what: 'the socket to end', timeout })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.socket.terminate()
    await this.ended()
  }
}
