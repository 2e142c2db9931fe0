import { ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import {
  accessor,
  dataProperty,
  type Properties,
  readReplaced,
  replaceProperties,
  writeReplaced,
} from './property-overlay.ts'
import type { BodySink } from './write.ts'

type Method = (...args: unknown[]) => unknown

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
const NODE_STATE = ['_closed', 'destroyed', 'socket']

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
 * Decides what the client's response does for those that hold it (handler, middlewares, Node), while another response, the
 * output, takes what the handler writes. Each column names the response that is used:
 *
 * | state        | methods, listeners | message state | end state | from .. until                                |
 * | ------------ | ------------------ | ------------- | --------- | -------------------------------------------- |
 * | intercepting | output             | output        | output    | the handler is called .. the cache answers   |
 * | exposed      | client's           | client's      | client's  | the cache answers .. it has written the head |
 * | detached     | output             | client's      | output    | .. both responses have ended                 |
 *
 * The response is exposed while the cache writes, so that methods that middlewares have wrapped are called. It is also
 * exposed once both responses have ended.
 */
export class ResponseInterceptor {
  readonly #response: ServerResponse
  readonly #output: ServerResponse
  #state: 'intercepting' | 'exposed' | 'detached' = 'intercepting'
  /** The client's own properties, while others replace them. */
  #replaced: Properties
  /** The properties that the handler sees, with its own changes. Written when the response is exposed. */
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
    this.#replaced = replaceProperties(response, this.#interceptingProperties(socketView))
  }

  /** Where the cache writes the body of the client's response. */
  readonly bodySink: BodySink = {
    onHeadWritten: () => this.detach(),
    write: (chunk) => {
      const mayContinue = this.#callClient('write', chunk) as boolean
      this.#flush?.apply(this.#response)
      return mayContinue
    },
    on: (event, listener) => this.#callClient('on', event, listener),
    flushHeaders: () => this.#callClient('flushHeaders'),
    end: () => this.#whileExposed((response) => response.end()),
    destroy: () => this.#whileExposed((response) => response.destroy()),
    isDestroyed: () => this.#clientValue('destroyed') === true,
  }

  /** Whether the client's response has ended, or its client has gone. */
  get #clientHasEnded(): boolean {
    return this.#clientValue('_closed') === true || this.#clientValue('destroyed') === true
  }

  /** Whether both responses have ended: they no longer need to be kept apart. */
  get #bothHaveEnded(): boolean {
    return this.#output.writableEnded && this.#clientHasEnded
  }

  /** The output has closed. The handler may still write to one that was cut off. */
  onOutputClosed(): void {
    if (this.#state === 'detached' && this.#bothHaveEnded) this.expose()
  }

  /** Puts the client's own properties back. */
  expose(): void {
    if (this.#state === 'exposed') return
    for (const [name, property] of replaceProperties(this.#response, this.#replaced)) {
      if (this.#state === 'intercepting' || !END_STATE.includes(name))
        this.#handlerProperties.set(name, property)
    }
    this.#state = 'exposed'
  }

  /** The cache has begun to write: what the handler does no longer affects the client's response. */
  detach(): void {
    if (this.#state !== 'exposed' || this.#bothHaveEnded) return
    const properties: Properties = new Map()
    for (const name of METHODS)
      if (!HEADER_GETTERS.has(name)) properties.set(name, this.#handlerProperties.get(name))
    for (const name of END_STATE)
      properties.set(
        name,
        accessor(() => this.#endStateValue(name), this.#clientSetter(name)),
      )
    this.#replaced = replaceProperties(this.#response, properties)
    this.#state = 'detached'
  }

  /** Runs `act` while the response is exposed, and returns to the present state. */
  #whileExposed(act: (response: ServerResponse) => unknown): void {
    const before = this.#state
    this.expose()
    try {
      act(this.#response)
    } finally {
      if (before === 'detached') this.detach()
      else if (before === 'intercepting') {
        this.#replaced = replaceProperties(this.#response, this.#handlerProperties)
        this.#state = 'intercepting'
      }
    }
  }

  /** Reads a property of the client's response. */
  #clientValue(name: string): unknown {
    if (this.#state === 'exposed') return Reflect.get(this.#response, name)
    return readReplaced(this.#response, this.#replaced, name)
  }

  #callClient(name: string, ...args: unknown[]): unknown {
    return (this.#clientValue(name) as Method).apply(this.#response, args)
  }

  #clientSetter(name: string): (value: unknown) => void {
    return (value) => writeReplaced(this.#response, this.#replaced, name, value)
  }

  /** The output's state. The output's close is visible only after the client's: Node reads these, too. */
  #endStateValue(name: string): unknown {
    const output: unknown = Reflect.get(this.#output, name)
    return name === '_closed' || name === 'closed' || name === 'destroyed'
      ? this.#clientValue(name) && output
      : output
  }

  #interceptingProperties(socketView: Socket): Properties {
    const output = this.#output
    const properties: Properties = new Map([[ON_FINISHED, undefined]])
    for (const name of METHODS) properties.set(name, dataProperty(this.#outputMethod(name)))
    for (const name of INTERIM_METHODS)
      properties.set(
        name,
        dataProperty((...args: unknown[]) => this.#writeInterim(name, args)),
      )
    properties.set(
      'cork',
      dataProperty(() => this.#cork()),
    )
    properties.set(
      'uncork',
      dataProperty(() => this.#uncork()),
    )
    properties.set(
      'emit',
      dataProperty((...args: unknown[]) => this.#emit(args)),
    )
    for (const name of MESSAGE_STATE) {
      properties.set(
        name,
        accessor(
          () => Reflect.get(output, name),
          (value) => Reflect.set(output, name, value),
        ),
      )
    }
    for (const name of NODE_STATE)
      properties.set(
        name,
        accessor(() => Reflect.get(output, name), this.#clientSetter(name)),
      )
    properties.set(
      'socket',
      accessor(() => socketView, this.#clientSetter('socket')),
    )
    properties.set(
      'connection',
      accessor(() => socketView),
    )
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
    if (this.#state === 'detached' && this.#bothHaveEnded) this.expose()
    return this.#callClient('emit', ...args)
  }

  /** Node corks the client's response by this name, too, when the cache writes to it. */
  #cork(): void {
    if (this.#state !== 'intercepting') return void this.#callClient('cork')
    this.#corks++
    this.#output.cork()
  }

  #uncork(): void {
    if (this.#corks > 0) {
      this.#corks--
      this.#output.uncork()
    } else if (this.#state !== 'intercepting') this.#callClient('uncork')
  }

  #writeInterim(name: (typeof INTERIM_METHODS)[number], args: unknown[]): void {
    if (this.#state !== 'intercepting' || this.#clientHasEnded) return
    this.#whileExposed((response) => (Reflect.get(response, name) as Method).apply(response, args))
  }
}
