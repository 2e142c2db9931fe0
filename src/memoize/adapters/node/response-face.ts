import { ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { accessor, beneath, dataProperty, type Face, putOn, setBeneath } from './face.ts'
import type { Outlet } from './write.ts'

type Method = (...args: unknown[]) => unknown

/** Events that Node emits for the client. */
const OF_THE_CLIENT: ReadonlySet<unknown> = new Set(['close', 'prefinish', 'socket', 'timeout'])

/** The same, while the client is answered. */
const OF_THE_ANSWER: ReadonlySet<unknown> = new Set([...OF_THE_CLIENT, 'drain', 'error', 'finish'])

/** Before the final head, only the client itself can be told. */
const INTERIM = ['writeContinue', 'writeEarlyHints', 'writeProcessing'] as const

/** State that handlers read, or set. */
const STATE = [
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

/** State that Node sets, for the client. */
const LIFE = ['_closed', 'destroyed', 'socket']

/** Methods that Node alone calls. */
const OF_NODE: ReadonlySet<string> = new Set(['constructor', 'assignSocket', 'detachSocket'])

/** Where the package on-finished keeps its listeners: those of the handler are not those of what stands before. */
const LISTENERS = '__onFinished'

/** What is read of a head, which may be that of the client's answer once that has begun. */
const READING: ReadonlySet<string> = new Set([
  'getHeader',
  'getHeaderNames',
  'getHeaders',
  'getRawHeaderNames',
  'hasHeader',
])

/** State in which a handler must not see its client's end, nor the end of its client's answer. */
const ENDINGS = [
  '_closed',
  'closed',
  'destroyed',
  'errored',
  'writableEnded',
  'writableFinished',
  'writableNeedDrain',
]

const METHODS: readonly string[] = methodsOf(ServerResponse.prototype)

function methodsOf(prototype: object | null): string[] {
  if (prototype === null || prototype === Object.prototype) return []
  const own = Object.entries(Object.getOwnPropertyDescriptors(prototype)).flatMap(([name, { value }]) => {
    const isPublic = !name.startsWith('_') || name === '_implicitHeader'
    return typeof value === 'function' && isPublic && !OF_NODE.has(name) ? [name] : []
  })
  return [...new Set([...own, ...methodsOf(Object.getPrototypeOf(prototype))])]
}

/**
 * What a client's response is to those who hold it, while another response, the output, takes what its handler writes:
 *
 * | state    | methods, listeners | state of the message | endings            |
 * | -------- | ------------------ | -------------------- | ------------------ |
 * | captured | the output's       | the output's         | the output's       |
 * | real     | the client's       | the client's         | the client's       |
 * | guarded  | the output's       | the client's         | the output's, too  |
 *
 * It is captured from the call of the handler until the client is answered; real while the cache answers, so that what
 * has wrapped its methods before the cache is used; and guarded from then on while the handler still runs.
 */
export class ResponseFace {
  readonly #response: ServerResponse
  readonly #output: ServerResponse
  #state: 'captured' | 'real' | 'guarded' = 'captured'
  /** The client's properties, while others stand in their place. */
  #aside: Face
  /** The handler's, with what it has put in their place. Complete while the client's are shown. */
  #handlers: Face = new Map()
  /** Whether the client's `close` was emitted. */
  #closed: boolean
  /** How often the handler has corked the output. */
  #corks = 0
  /** Of what compresses before the cache: passes on what it was given. */
  readonly #flush: Method | undefined

  constructor(response: ServerResponse, output: ServerResponse, connection: Socket) {
    this.#response = response
    this.#output = output
    this.#closed = response.closed
    this.#flush = (response as { flush?: Method }).flush
    this.#aside = putOn(response, this.#capturing(connection))
  }

  /** How the client is answered. */
  readonly outlet: Outlet = {
    begin: () => this.guard(),
    write: (chunk) => {
      const goesOn = this.#call('write', chunk) as boolean
      this.#flush?.apply(this.#response)
      return goesOn
    },
    on: (event, listener) => this.#call('on', event, listener),
    flushHeaders: () => this.#call('flushHeaders'),
    end: () => this.#briefly((response) => response.end()),
    destroy: () => this.#briefly((response) => response.destroy()),
    isDestroyed: () => this.#of('destroyed') === true,
  }

  /** Whether the client was answered to the end, or is gone: nothing is told of its response any more. */
  get #hasEnded(): boolean {
    return this.#of('_closed') === true || this.#of('destroyed') === true
  }

  /** Whether both have: nothing has to be kept apart any more. */
  get #isOver(): boolean {
    return this.#output.writableEnded && this.#hasEnded
  }

  /** The output has closed. One that was cut off may be written to yet. */
  end(): void {
    if (this.#state === 'guarded' && this.#isOver) this.show()
  }

  /** Everybody who holds the response holds the client's. */
  show(): void {
    if (this.#state === 'real') return
    for (const [name, property] of putOn(this.#response, this.#aside)) {
      if (this.#state === 'captured' || !ENDINGS.includes(name)) this.#handlers.set(name, property)
    }
    this.#state = 'real'
  }

  /** The client's answer has begun: the handler has no part in it. */
  guard(): void {
    if (this.#state !== 'real' || this.#isOver) return
    const face: Face = new Map()
    for (const name of METHODS) if (!READING.has(name)) face.set(name, this.#handlers.get(name))
    for (const name of ENDINGS)
      face.set(
        name,
        accessor(() => this.#ending(name), this.#setter(name)),
      )
    this.#aside = putOn(this.#response, face)
    this.#state = 'guarded'
  }

  /** Does something with the client's response itself. */
  #briefly(act: (response: ServerResponse) => unknown): void {
    const before = this.#state
    this.show()
    try {
      act(this.#response)
    } finally {
      if (before === 'guarded') this.guard()
      else if (before === 'captured') {
        this.#aside = putOn(this.#response, this.#handlers)
        this.#state = 'captured'
      }
    }
  }

  /** What a property is of the client's response. */
  #of(name: string): unknown {
    if (this.#state === 'real') return Reflect.get(this.#response, name)
    return beneath(this.#response, this.#aside, name)
  }

  #call(name: string, ...args: unknown[]): unknown {
    return (this.#of(name) as Method).apply(this.#response, args)
  }

  #setter(name: string): (value: unknown) => void {
    return (value) => setBeneath(this.#response, this.#aside, name, value)
  }

  /** A client that goes is nothing that the handler sees; nor does Node see the end of the output. */
  #ending(name: string): unknown {
    const output: unknown = Reflect.get(this.#output, name)
    return name === '_closed' || name === 'closed' || name === 'destroyed' ? this.#of(name) && output : output
  }

  #capturing(connection: Socket): Face {
    const output = this.#output
    const face: Face = new Map([[LISTENERS, undefined]])
    for (const name of METHODS) face.set(name, dataProperty(this.#delegate(name)))
    for (const name of INTERIM)
      face.set(
        name,
        dataProperty((...args: unknown[]) => this.#interim(name, args)),
      )
    face.set(
      'cork',
      dataProperty(() => this.#cork()),
    )
    face.set(
      'uncork',
      dataProperty(() => this.#uncork()),
    )
    face.set(
      'emit',
      dataProperty((...args: unknown[]) => this.#emit(args)),
    )
    for (const name of STATE) {
      face.set(
        name,
        accessor(
          () => Reflect.get(output, name),
          (value) => Reflect.set(output, name, value),
        ),
      )
    }
    for (const name of LIFE)
      face.set(
        name,
        accessor(() => Reflect.get(output, name), this.#setter(name)),
      )
    face.set(
      'socket',
      accessor(() => connection, this.#setter('socket')),
    )
    face.set(
      'connection',
      accessor(() => connection),
    )
    return face
  }

  #delegate(name: string): Method {
    return (...args) => {
      const result = (Reflect.get(this.#output, name) as Method).apply(this.#output, args)
      return result === this.#output ? this.#response : result
    }
  }

  #emit(args: unknown[]): unknown {
    const [event] = args
    const own = this.#state === 'guarded' ? OF_THE_ANSWER : OF_THE_CLIENT
    if (!own.has(event)) return (Reflect.get(this.#output, 'emit') as Method).apply(this.#output, args)
    if (event === 'close' && this.#closed) return false
    if (event === 'close') this.#closed = true
    if (this.#state === 'guarded' && this.#isOver) this.show()
    return this.#call('emit', ...args)
  }

  /** Node corks the client's response, too, as it writes to it. */
  #cork(): void {
    if (this.#state !== 'captured') return void this.#call('cork')
    this.#corks++
    this.#output.cork()
  }

  #uncork(): void {
    if (this.#corks > 0) {
      this.#corks--
      this.#output.uncork()
    } else if (this.#state !== 'captured') this.#call('uncork')
  }

  #interim(name: (typeof INTERIM)[number], args: unknown[]): void {
    if (this.#state !== 'captured' || this.#hasEnded) return
    this.#briefly((response) => (Reflect.get(response, name) as Method).apply(response, args))
  }
}
