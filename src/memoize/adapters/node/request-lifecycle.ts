import type { IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import { nextTick } from '../../../kernel/time/timers.ts'
import type { CapturedConnection } from './captured-connection.ts'
import { accessor, dataProperty, type Method, type Properties, PropertyOverlay } from './property-overlay.ts'

/** The code of the error with which Node destroys the requests of a client that has gone. */
const CLIENT_DISCONNECTED = 'ECONNRESET'

/**
 * The end of a client's request while the handler also works for other clients. A disconnect of the client is hidden from
 * the handler until the handler has ended, unless the body of the request is incomplete.
 */
export class RequestLifecycle {
  readonly #request: IncomingMessage
  readonly #connection: CapturedConnection
  readonly #overlay: PropertyOverlay
  /** Set while a method of Node runs, which must see the client's socket. */
  #showsRealSocket = false
  /** The hidden disconnect. */
  #disconnectError: Error | undefined

  /** `background`: the client has been answered before. */
  constructor(
    request: IncomingMessage,
    connection: CapturedConnection,
    socketView: Socket,
    background: boolean,
  ) {
    this.#request = request
    this.#connection = connection
    const { socket } = request
    const properties: Properties = new Map([
      [
        'socket',
        accessor(
          () => (this.#showsRealSocket ? socket : socketView),
          (value) => this.#overlay.write('socket', value),
        ),
      ],
      ['destroy', dataProperty((error?: Error) => this.#destroy(error))],
      ['_read', dataProperty((...args: unknown[]) => this.#call('_read', args))],
      ['_destroy', dataProperty((...args: unknown[]) => this.#call('_destroy', args))],
    ])
    if (background) {
      properties.set('destroyed', dataProperty(false))
      for (const name of ['on', 'addListener']) properties.set(name, dataProperty(this.#listen))
    }
    this.#overlay = new PropertyOverlay(request, properties)
  }

  /** The handler has ended its response, or was cut off. Applies a hidden disconnect. */
  end(completed: boolean): void {
    this.#overlay.remove()
    if (!this.#disconnectError) return
    // The handler has completed its response: the request ends without an error.
    if (completed) this.#request.resume()
    else this.#request.destroy(this.#disconnectError)
  }

  /** A request that has ended has emitted these events already. Emits them again to the new listener. */
  readonly #listen = (event: string | symbol, listener: Method): IncomingMessage => {
    const request = this.#request
    const wasEmitted = event === 'end' ? request.readableEnded : event === 'close' && request.closed
    if (wasEmitted) nextTick(() => listener.call(request))
    else this.#call('on', [event, listener])
    return request
  }

  #destroy(error: Error | undefined): IncomingMessage {
    const isDisconnect = (error as NodeJS.ErrnoException | undefined)?.code === CLIENT_DISCONNECTED
    const isCleanup = error === undefined && this.#request.readableEnded
    if (isCleanup || (isDisconnect && !this.#request.complete)) this.#call('destroy', [error])
    else if (isDisconnect) this.#disconnectError = error
    else this.#connection.destroy(error)
    return this.#request
  }

  #call(name: string, args: unknown[]): unknown {
    this.#showsRealSocket = true
    try {
      return this.#overlay.call(name, args)
    } finally {
      this.#showsRealSocket = false
    }
  }
}
