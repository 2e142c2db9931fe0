import type { IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import { nextTick } from '../../../kernel/time/timers.ts'
import { accessor, beneath, dataProperty, type Face, putOn, setBeneath } from './face.ts'
import type { Wire } from './wire.ts'

type Method = (...args: unknown[]) => unknown

/** What Node destroys the requests of a client with that has gone. */
const GONE = 'ECONNRESET'

/**
 * The end of a client's request while a handler works on it for others too: a client that goes is not seen, unless its
 * body is not complete yet.
 */
export class RequestLife {
  readonly #request: IncomingMessage
  readonly #wire: Wire
  /** The client's properties. */
  readonly #aside: Face
  /** Whether Node is to see the connection that the request came by. */
  #beneath = false
  #gone: Error | undefined

  /** `over`: the client was answered before. */
  constructor(request: IncomingMessage, wire: Wire, connection: Socket, over: boolean) {
    this.#request = request
    this.#wire = wire
    const { socket } = request
    const face: Face = new Map([
      [
        'socket',
        accessor(
          () => (this.#beneath ? socket : connection),
          (value) => setBeneath(request, this.#aside, 'socket', value),
        ),
      ],
      ['destroy', dataProperty((error?: Error) => this.#destroy(error))],
      ['_read', dataProperty((...args: unknown[]) => this.#call('_read', args))],
      ['_destroy', dataProperty((...args: unknown[]) => this.#call('_destroy', args))],
    ])
    if (over) {
      face.set('destroyed', dataProperty(false))
      for (const name of ['on', 'addListener']) face.set(name, dataProperty(this.#listen))
    }
    this.#aside = putOn(request, face)
  }

  /** The handler has ended, or was cut off. */
  end(completed: boolean): void {
    putOn(this.#request, this.#aside)
    if (!this.#gone) return
    // Ends without an error: nobody has missed anything.
    if (completed) this.#request.resume()
    else this.#request.destroy(this.#gone)
  }

  /** Of a request that is over, these have been told: who listens now is told once more. */
  readonly #listen = (event: string | symbol, listener: Method): IncomingMessage => {
    const request = this.#request
    const told = event === 'end' ? request.readableEnded : event === 'close' && request.closed
    if (told) nextTick(() => listener.call(request))
    else this.#call('on', [event, listener])
    return request
  }

  #destroy(error: Error | undefined): IncomingMessage {
    const gone = (error as NodeJS.ErrnoException | undefined)?.code === GONE
    const isOver = error === undefined && this.#request.readableEnded
    if (isOver || (gone && !this.#request.complete)) this.#call('destroy', [error])
    else if (gone) this.#gone = error
    else this.#wire.destroy(error)
    return this.#request
  }

  #call(name: string, args: unknown[]): unknown {
    this.#beneath = true
    try {
      return (beneath(this.#request, this.#aside, name) as Method).apply(this.#request, args)
    } finally {
      this.#beneath = false
    }
  }
}
