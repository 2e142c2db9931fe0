import { type ClientRequest, type IncomingMessage, request } from 'node:http'
import { until } from './wait.ts'

/** An event as a client dispatches it. */
export interface ReceivedEvent {
  id: string
  event: string
  data: string
}

/** Parses a stream of server-sent events as the HTML standard says (9.2.6, "Interpreting an event stream"). */
export class EventParser {
  readonly events: ReceivedEvent[] = []
  comments = 0
  retry: number | undefined
  lastId = ''
  /** What was searched for line ends, and what came behind it. */
  #rest = ''
  readonly #parts: string[] = []
  #data: string[] | undefined
  #event = ''
  readonly #decoder = new TextDecoder()

  add(bytes: Uint8Array): void {
    const text = this.#decoder.decode(bytes, { stream: true })
    this.#parts.push(text)
    // A long line is not searched again and again.
    if (!/[\r\n]/.test(text) && !this.#rest.endsWith('\r')) return
    this.#rest += this.#parts.splice(0).join('')
    for (;;) {
      const { index, 0: end } = /\r\n|\n|\r(?!$)/.exec(this.#rest) ?? {}
      if (index === undefined || end === undefined) return
      const line = this.#rest.slice(0, index)
      this.#rest = this.#rest.slice(index + end.length)
      this.#line(line)
    }
  }

  #line(line: string): void {
    if (line === '') return this.#dispatch()
    const [, name = '', value = ''] = /^([^:]*):? ?(.*)$/s.exec(line) ?? []
    if (line.startsWith(':')) this.comments++
    else if (name === 'data') this.#data = [...(this.#data ?? []), value]
    else if (name === 'event') this.#event = value
    else if (name === 'id' && !value.includes('\0')) this.lastId = value
    else if (name === 'retry' && /^\d+$/.test(value)) this.retry = Number(value)
  }

  #dispatch(): void {
    if (this.#data)
      this.events.push({ id: this.lastId, event: this.#event || 'message', data: this.#data.join('\n') })
    this.#data = undefined
    this.#event = ''
  }
}

/** A client of an event stream on a connection of its own. */
export class EventClient {
  readonly #request: ClientRequest
  readonly #response: IncomingMessage
  readonly parser: EventParser = new EventParser()
  /** How the answer ended: behind its last byte, or cut. */
  end: 'complete' | 'cut' | undefined
  #taken = 0

  private constructor(sent: ClientRequest, response: IncomingMessage) {
    this.#request = sent
    this.#response = response
    response.on('data', (bytes: Buffer) => this.parser.add(bytes))
    response.on('error', () => {})
    response.on('close', () => {
      this.end = response.complete ? 'complete' : 'cut'
    })
  }

  /** Resolves when the head of the answer is there. */
  static open(
    url: string,
    headers: Record<string, string> = {},
    { paused = false }: { paused?: boolean } = {},
  ): Promise<EventClient> {
    return new Promise((resolve, reject) => {
      const sent = request(url, { headers, agent: false })
      sent.on('error', reject)
      sent.on('response', (response) => {
        const client = new EventClient(sent, response)
        if (paused) client.pause()
        resolve(client)
      })
      sent.end()
    })
  }

  get status(): number {
    return this.#response.statusCode ?? 0
  }

  get headers(): IncomingMessage['headers'] {
    return this.#response.headers
  }

  get events(): readonly ReceivedEvent[] {
    return this.parser.events
  }

  /** The next event that was not returned yet. */
  async next(): Promise<ReceivedEvent> {
    await until(() => this.events.length > this.#taken || this.end !== undefined, { what: 'an event' })
    const event = this.events[this.#taken++]
    if (!event) throw new Error(`The stream has ended: ${this.end}`)
    return event
  }

  /** Resolves when the answer has ended. */
  async ended(): Promise<'complete' | 'cut'> {
    await until(() => this.end !== undefined, { what: 'the end of the stream', timeout: 15_000 })
    return this.end as 'complete' | 'cut'
  }

  /** Stops reading from the connection. */
  pause(): void {
    this.#response.pause()
    this.#request.socket?.pause()
  }

  resume(): void {
    this.#request.socket?.resume()
    this.#response.resume()
  }

  /** The client goes. */
  close(): void {
    this.#request.destroy()
  }
}
