/** Header fields by lower-case name. A field that came in several lines is an array of them. */
export type HeaderFields = Record<string, string | string[] | undefined>

/** A request as the cache sees it. Its body stays with the caller that supplies the origin. */
export interface HttpRequest {
  /** As received: methods are case-sensitive. */
  method: string
  /**
   * The request target. Only the origin form (path and query) is looked up in the cache. A request in absolute form is
   * forwarded; if its method is unsafe, it invalidates what its target names.
   */
  url: string
  /**
   * 'http' or 'https'. It is part of the cache key: requests of different schemes never share a response. When absent, all
   * requests count as one scheme.
   */
  scheme?: string | undefined
  headers: HeaderFields
  /**
   * Resolves when the client's response has been sent. When present, a background refresh on behalf of this request starts
   * only after that.
   */
  whenAnswered?: (() => Promise<void>) | undefined
  /**
   * False when this request cannot be sent to the origin in the background. It is then never answered by a stale response
   * that would have to be refreshed.
   * @default true
   */
  canRefresh?: boolean | undefined
  /**
   * Aborts when the client has disconnected. The request then stops waiting; the origin's work goes on only while other requests
   * wait for it.
   */
  signal?: AbortSignal | undefined
}

/** The request that the origin receives. */
export interface OriginRequest {
  method: string
  url: string
  /** The client's end-to-end fields, without those that a shared response must not depend on, and with validators. */
  headers: HeaderFields
  /**
   * Whether other clients may receive the response too. Otherwise the request is this client's as it came, and the origin
   * may answer the client by itself.
   */
  shared: boolean
  /** Aborts when no request waits for the response any longer, or when it did not begin within `timeout`. */
  signal: AbortSignal | undefined
  /** Whether this refreshes a stale response in the background: the client has been answered already. */
  background?: boolean | undefined
}

/** A body as origins give it: whole, or in pieces. */
export type OriginBody = Uint8Array | string | AsyncIterable<Uint8Array | string> | null | undefined

/** The response of an origin. */
export interface OriginResponse {
  status: number
  /** The reason phrase, if there is one. */
  statusText?: string | undefined
  headers: HeaderFields
  body?: OriginBody
  /**
   * Lower-case names of the fields that belong to the requesting client, such as those a middleware set for it. They count
   * when the cache decides whether the response may be shared, and are sent to this client alone. Vary, Cache-Control, Date
   * and Content-Length are never private.
   */
  privateFields?: readonly string[] | undefined
  /**
   * Whether the response is for the requesting client alone, whatever its fields say.
   * @default false
   */
  private?: boolean | undefined
  /**
   * Present when the origin may still be changing something after this response. Resolves with the response at its end;
   * the cache then invalidates once more.
   */
  completed?: Promise<OriginResponse> | undefined
}

/** Makes responses: a handler of this process, or a client of a server behind it. */
export type Origin = (request: OriginRequest) => OriginResponse | PromiseLike<OriginResponse>

/** The response of the cache, ready to be written. */
export interface HttpResponse {
  status: number
  statusText: string | undefined
  /** Name, value, name, value, as `writeHead` of node:http takes it. Responses share this array: do not change it. */
  headers: string[]
  /**
   * Responses share a Buffer: do not change it. Pieces belong to this response alone; read them to their end, or call
   * `return()`. Undefined when there is no body.
   */
  body: Buffer | AsyncIterable<Uint8Array> | undefined
}
