import { newId } from '../../kernel/keys.ts'
import { Frame, type ServerSentEvent } from '../http/event-frame.ts'
import type { EventStream } from '../http/event-stream.ts'

/** Most events, and bytes of them, that a feed keeps for slow clients and for those that reconnect. */
const MAX_EVENTS = 1_000
const MAX_BYTES = 1024 * 1024

interface FeedClient {
  readonly stream: EventStream
  /** Number of the next event. */
  next: number
  /** The client is slow, and is waited for. */
  isWaiting: boolean
}

/**
 * Events for any number of clients. Each is encoded once. The last ones are kept: a client that is slow, or comes again with the
 * id of the last event that it has seen, gets what it has not seen. If that is not kept any more, it gets the event `gap`
 * instead. So events are lost to a client only if it is told.
 */
export class Feed {
  /** Names the feed in the ids of its events: another process, or a later feed, counts anew. */
  readonly #name = newId().slice(0, 12)
  /** Those that are kept; the first has the number `#first`. */
  #frames: Frame[] = []
  #first = 1
  #bytes = 0
  readonly #clients = new Set<FeedClient>()
  #isOver = false

  /** Number of the last event. They count from 1. */
  get last(): number {
    return this.#first + this.#frames.length - 1
  }

  get isOver(): boolean {
    return this.#isOver
  }

  /** Number of clients. */
  get size(): number {
    return this.#clients.size
  }

  /** Sends an event to all clients. `id`: another id than that of this feed. */
  publish({ event, data, id = this.#idOf(this.last + 1) }: ServerSentEvent): void {
    if (this.#isOver) return
    const frame = Frame.of({ event, data, id })
    this.#frames.push(frame)
    this.#bytes += frame.bytes.length
    this.#trim()
    this.#sendAll()
  }

  /** Ends the stream of each client behind the last event. */
  end(): void {
    this.#isOver = true
    this.#sendAll()
  }

  #idOf(number: number): string {
    return `${this.#name}-${number}`
  }

  /** The number of the event with this id; undefined if it is none of this feed. */
  numberOf(id: string): number | undefined {
    const [, name, digits] = /^([\w-]{12})-(\d{1,15})$/.exec(id) ?? []
    const number = Number(digits)
    return name === this.#name && number <= this.last ? number : undefined
  }

  /** Sends the events after that with the number `after` to a stream. Resolves when it is over. */
  async send(stream: EventStream, after: number): Promise<void> {
    const client: FeedClient = { stream, next: after + 1, isWaiting: false }
    this.#clients.add(client)
    this.#send(client)
    await stream.ended
    this.#clients.delete(client)
  }

  #sendAll(): void {
    for (const client of this.#clients) this.#send(client)
  }

  #send(client: FeedClient): void {
    const { stream } = client
    while (client.next <= this.last && !stream.isOver) {
      if (stream.isCongested) return this.#sendLater(client)
      if (client.next < this.#first) {
        stream.send(gapFrame(this.#first - client.next, this.#idOf(this.#first - 1)))
        client.next = this.#first
      }
      stream.send(this.#frames[client.next++ - this.#first] as Frame)
    }
    if (this.#isOver) stream.end()
  }

  #sendLater(client: FeedClient): void {
    if (client.isWaiting) return
    client.isWaiting = true
    void client.stream.drained().then(() => {
      client.isWaiting = false
      this.#send(client)
    })
  }

  /** Always keeps the last one. */
  #trim(): void {
    while (this.#frames.length > 1 && (this.#frames.length > MAX_EVENTS || this.#bytes > MAX_BYTES)) {
      this.#bytes -= this.#frames.shift()?.bytes.length ?? 0
      this.#first++
    }
  }
}

/** Says that events were lost. `missed`: how many; undefined if that is not known. */
export function gapFrame(missed?: number, id?: string): Frame {
  return Frame.of({ event: 'gap', data: JSON.stringify({ missed: missed ?? null }), id })
}
