import { ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { BodySink } from './messages.ts'
import { accessor, dataProperty, type Method, type Properties, PropertyOverlay } from './property-overlay.ts'

/** Events that Node emits on the response because of its client. */
const CLIENT_EVENTS: ReadonlySet<unknown> = new Set(['close', 'prefinish', 'socket', 'timeout'])

/** The same, and those that Node emits while the cache writes to the client. */
const RESPONSE_EVENTS: ReadonlySet<unknown> = new Set([...CLIENT_EVENTS, 'drain', 'error', 'finish'])

/** Methods that write interim (1xx) responses. They go to the client itself. */
const INTERIM_METHODS = ['writeContinue', 'writeEarlyHints', 'writeProcessing'] as const

/** Properties that handlers read or set. */
const MESSAGE_STATE = [
  '_header',
  '_headerSent',
  'closed',
  'errored',
  'finished',
  'headersSent',
  'sendDate',
  'statusCode',
  'statusMessage',
  'strictContentLength',
  'writable',
  'writableCorked',
  'writableEnded',
  'writableFinished',
  'writableHighWaterMark',
  'writableLength',
  'writableNeedDrain',
]

/** Properties that Node sets because of the client. */
const NODE_STATE = ['_closed', 'destroyed']

/** Methods that only Node calls. */
const NODE_METHODS: ReadonlySet<string> = new Set(['constructor', 'assignSocket', 'detachSocket'])

/** The property in which the package on-finished keeps its listeners. Handler and middlewares need separate lists. */
const ON_FINISHED = '__onFinished'

/** Methods that read the head. In the state detached they read the head of the client's response. */
const HEADER_GETTERS: ReadonlySet<string> = new Set([
  'getHeader',
  'getHeaderNames',
  'getHeaders',
  'getRawHeaderNames',
  'hasHeader',
])

/** Properties that tell the end of a response. The handler must not see the end of its client's response. */
const END_STATE = [
  '_closed',
  'closed',
  'destroyed',
  'errored',
  'writableEnded',
  'writableFinished',
  'writableNeedDrain',
]

/** Properties that the handler sets for the head of its response. */
const HEAD_STATE = ['statusCode', 'statusMessage']

/** The public methods of a response, including those of its base classes. */
const METHODS: readonly string[] = methodsOf(ServerResponse.prototype)

function methodsOf(prototype: object | null): string[] {
  if (prototype === null || prototype === Object.prototype) return []
  const own = Object.entries(Object.getOwnPropertyDescriptors(prototype)).flatMap(([name, { value }]) => {
    const isPublic = !name.startsWith('_') || name === '_implicitHeader'
    return typeof value === 'function' && isPublic && !NODE_METHODS.has(name) ? [name] : []
  })
  return [...new Set([...own, ...methodsOf(Object.getPrototypeOf(prototype))])]
}

/**
 * The state of an interception, and the response (client's or output) that each part of the client's response stands for:
 *
 * | state        | methods, listeners | message state | end state | entered by                                        |
 * | ------------ | ------------------ | ------------- | --------- | ------------------------------------------------- |
 * | intercepting | output             | output        | output    | the constructor                                   |
 * | exposed      | client's           | client's      | client's  | expose(): the cache answers                       |
 * | detached     | output             | client's (1)  | output    | detach(): the cache has written the head          |
 * | ended        | client's           | client's      | client's  | detached or detach(), when both responses ended   |
 *
 * (1) A status that the handler sets is set on the output: other clients may wait for it.
 *
 * intercepting -> exposed -> detached -> ended. While the cache writes, the response is exposed: methods that middlewares have
 * wrapped must be called. To write an interim response, or the end, it is exposed for one call, and then as before.
 */
type State = 'intercepting' | 'exposed' | 'detached' | 'ended'

/**
 * Decides what the client's response does for those that hold it (handler, middlewares, Node), while another response, the
 * output, takes what the handler writes.
 */
export class ResponseInterceptor {
  readonly #response: ServerResponse
  readonly #output: ServerResponse
  #state: State = 'intercepting'
  /** The overlay of the present state; removed when there is none. */
  #overlay: PropertyOverlay
  /** The properties that the handler sees, with its own changes. Written by expose(). */
  #handlerProperties: Properties = new Map()
  /** Whether `close` was emitted on the client's response. */
  #closeEmitted: boolean
  /** How often the output is corked by the handler. */
  #corks = 0
  /** Set by a compressing middleware before the cache: sends what it has buffered. */
  readonly #flush: Method | undefined

  constructor(response: ServerResponse, output: ServerResponse, socketView: Socket) {
    this.#response = response
    this.#output = output
    this.#closeEmitted = response.closed
    this.#flush = (response as { flush?: Method }).flush
    this.#overlay = new PropertyOverlay(response, this.#interceptingProperties(socketView))
  }

  /** Where the cache writes the body of the client's response. */
  readonly bodySink: BodySink = {
    onHeadWritten: () => this.detach(),
    write: (chunk) => {
      const mayContinue = this.#overlay.call('write', [chunk]) as boolean
      this.#flush?.apply(this.#response)
      return mayContinue
    },
    on: (event, listener) => this.#overlay.call('on', [event, listener]),
    flushHeaders: () => this.#overlay.call('flushHeaders', []),
    end: () => this.#whileExposed((response) => response.end()),
    destroy: () => this.#whileExposed((response) => response.destroy()),
    isDestroyed: () => this.#overlay.read('destroyed') === true,
  }

  /** Whether the client's response has ended, or its client has gone. */
  get #clientHasEnded(): boolean {
    return this.#overlay.read('_closed') === true || this.#overlay.read('destroyed') === true
  }

  /** Whether both responses have ended: they no longer need to be kept apart. */
  get #bothHaveEnded(): boolean {
    return this.#output.writableEnded && this.#clientHasEnded
  }

  /** The cache answers: puts the client's own properties back. */
  expose(): void {
    if (this.#state === 'exposed' || this.#state === 'ended') return
    for (const [name, property] of this.#overlay.remove()) {
      // What a detached response shows of the end and the head is no change by the handler.
      if (this.#state === 'intercepting' || !(END_STATE.includes(name) || HEAD_STATE.includes(name)))
        this.#handlerProperties.set(name, property)
    }
    this.#state = 'exposed'
  }

  /** The cache has begun to write: what the handler does no longer affects the client's response. */
  detach(): void {
    if (this.#state === 'detached' || this.#state === 'ended') return
    if (this.#state === 'intercepting') throw new Error('The response was not exposed before it was detached')
    if (this.#bothHaveEnded) {
      this.#state = 'ended'
      return
    }
    const properties: Properties = new Map()
    for (const name of METHODS)
      if (!HEADER_GETTERS.has(name)) properties.set(name, this.#handlerProperties.get(name))
    for (const name of END_STATE)
      properties.set(
        name,
        accessor(() => this.#endStateValue(name), this.#clientSetter(name)),
      )
    for (const name of HEAD_STATE)
      properties.set(
        name,
        accessor(
          () => this.#overlay.read(name),
          (value) => Reflect.set(this.#output, name, value),
        ),
      )
    this.#overlay = new PropertyOverlay(this.#response, properties)
    this.#state = 'detached'
  }

  /** Called when either response has closed. The handler may still write to an output that was cut off. */
  onClose(): void {
    if (this.#state !== 'detached' || !this.#bothHaveEnded) return
    this.#overlay.remove()
    this.#state = 'ended'
  }

  /** Runs `act` while the response is exposed, and returns to the present state. */
  #whileExposed(act: (response: ServerResponse) => unknown): void {
    const state = this.#state
    this.expose()
    try {
      act(this.#response)
    } finally {
      if (state === 'detached') this.detach()
      else if (state === 'intercepting') {
        this.#overlay = new PropertyOverlay(this.#response, this.#handlerProperties)
        this.#state = 'intercepting'
      }
    }
  }

  #clientSetter(name: string): (value: unknown) => void {
    return (value) => this.#overlay.write(name, value)
  }

  /** The output's state. The output's close is visible only after the client's: Node reads these, too. */
  #endStateValue(name: string): unknown {
    const output: unknown = Reflect.get(this.#output, name)
    return name === '_closed' || name === 'closed' || name === 'destroyed'
      ? this.#overlay.read(name) && output
      : output
  }

  #interceptingProperties(socketView: Socket): Properties {
    const output = this.#output
    const properties: Properties = new Map([[ON_FINISHED, undefined]])
    const setMethod = (name: string, method: Method) => properties.set(name, dataProperty(method))
    const setAccessor = (
      name: string,
      set?: (value: unknown) => void,
      get = () => Reflect.get(output, name),
    ) => properties.set(name, accessor(get, set))
    for (const name of METHODS) setMethod(name, this.#outputMethod(name))
    for (const name of INTERIM_METHODS) setMethod(name, (...args) => this.#writeInterim(name, args))
    setMethod('cork', () => this.#cork())
    setMethod('uncork', () => this.#uncork())
    setMethod('emit', (...args) => this.#emit(args))
    for (const name of MESSAGE_STATE) setAccessor(name, (value) => Reflect.set(output, name, value))
    for (const name of NODE_STATE) setAccessor(name, this.#clientSetter(name))
    setAccessor('socket', this.#clientSetter('socket'), () => socketView)
    setAccessor('connection', undefined, () => socketView)
    return properties
  }

  #outputMethod(name: string): Method {
    return (...args) => {
      const result = (Reflect.get(this.#output, name) as Method).apply(this.#output, args)
      return result === this.#output ? this.#response : result
    }
  }

  #emit(args: unknown[]): unknown {
    const [event] = args
    const clientEvents = this.#state === 'detached' ? RESPONSE_EVENTS : CLIENT_EVENTS
    if (!clientEvents.has(event))
      return (Reflect.get(this.#output, 'emit') as Method).apply(this.#output, args)
    if (event === 'close' && this.#closeEmitted) return false
    if (event === 'close') this.#closeEmitted = true
    this.onClose()
    return this.#overlay.call('emit', args)
  }

  /** Node 24 calls cork() of the response itself, too, when the cache writes to the client. */
  #cork(): void {
    if (this.#state !== 'intercepting') return void this.#overlay.call('cork', [])
    this.#corks++
    this.#output.cork()
  }

  #uncork(): void {
    if (this.#corks > 0) {
      this.#corks--
      this.#output.uncork()
    } else if (this.#state !== 'intercepting') this.#overlay.call('uncork', [])
  }

  #writeInterim(name: (typeof INTERIM_METHODS)[number], args: unknown[]): void {
    if (this.#state !== 'intercepting' || this.#clientHasEnded) return
    this.#whileExposed((response) => (Reflect.get(response, name) as Method).apply(response, args))
  }
}
