import type { Context } from 'hono'
import type { Answer } from './http/answer.ts'
import type { Scope } from './options.ts'

/**
 * What the gateway uses of the listener for node:http: whether the client is there, the body of the request, whether the response
 * was sent, and how an answer is sent without a Response.
 */
export interface NodeBindings {
  readonly incoming?: IncomingRequest | undefined
  readonly outgoing?: OutgoingResponse | undefined
  /** The Request that the adapter has made of `incoming`. The body of another one is not that of `incoming`. */
  readonly received?: Request | undefined
  /** Sends the answer. Returns the Response that tells the adapter so. */
  readonly sendAnswer?: ((answer: Answer) => Response) | undefined
}

/** Of HTTP/1 or HTTP/2. */
export interface IncomingRequest {
  readonly socket: ClientSocket
  readonly readableDidRead: boolean
  readonly destroyed: boolean
  /** All has arrived. Of HTTP/2 also if the stream was reset. */
  readonly complete: boolean
  readonly aborted: boolean
  /** Of HTTP/2. */
  readonly stream?: { readonly rstCode?: number | undefined } | undefined
  readonly readableEncoding: BufferEncoding | null
  /** The body, if a serverless runtime has read it. */
  readonly rawBody?: unknown
  read(): Uint8Array | string | null
  pause(): this
  resume(): this
  on(event: 'data', listener: (chunk: Uint8Array | string) => void): this
  on(event: 'end' | 'error' | 'close', listener: (error?: unknown) => void): this
  off(event: 'data', listener: (chunk: Uint8Array | string) => void): this
  off(event: 'end' | 'error' | 'close', listener: (error?: unknown) => void): this
}

export interface OutgoingResponse {
  readonly writableFinished: boolean
  /** Not of HTTP/2. */
  readonly destroyed?: boolean | undefined
  /** Of HTTP/2. */
  readonly stream?: { readonly destroyed: boolean } | undefined
  once(event: 'close', listener: () => void): unknown
  removeListener(event: 'close', listener: () => void): unknown
}

/** The connection of a client. Also a response that waits for others on it, and has no socket yet, ends with it. */
export interface ClientSocket {
  readonly destroyed: boolean
  readonly readableEnded: boolean
  once(event: 'close', listener: () => void): unknown
}

/** What a caller may do. */
export interface Caller {
  readonly scopes: readonly Scope[]
  /** By what: a token, the cookie of a session, or because the gateway needs no token. */
  readonly by: 'token' | 'session' | 'nothing'
  /** Of its token. */
  readonly name?: string | undefined
  /** Whose token it is. Undefined if the gateway needs none. */
  readonly holder?: unknown
  /** When its session ends, ms since the epoch. Undefined: never. */
  readonly until?: number | undefined
}

/** What a handler tells of its action beside what the path says. */
export interface ActionDetails {
  /** If it is more exact than that of the route. */
  readonly action?: string
  readonly id?: string
  readonly count?: number
  /** Nothing is done: there is no event. */
  readonly isDry?: boolean
}

/** The bindings of a request, and its answer. */
export interface Exchange extends Pick<NodeBindings, 'incoming' | 'outgoing'> {
  /** Its body, if that need not be read by the Request, which costs several times as much. */
  readonly body: IncomingRequest | undefined
  answer?: Answer
  /** Undefined: not looked up yet; null: it has neither a token that is known nor a session. */
  caller?: Caller | null
  /** What its audit event says beside its path. */
  action?: ActionDetails
}

/** The environment of the routes. */
export interface GatewayEnv {
  Bindings: Exchange
}

export type RouteContext = Context<GatewayEnv>
