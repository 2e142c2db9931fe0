/** Header fields by lower-case name. A field that came in several lines is an array of them. */
export type HeaderFields = Record<string, string | string[] | undefined>

/** A request as the cache sees it. Its body stays with whoever calls the origin. */
export interface HttpRequest {
  /** As it came: methods are case-sensitive. */
  method: string
  /** Path and query. Other forms have no place in the cache; of the absolute one it is understood what it changes. */
  url: string
  /**
   * 'http' or 'https': requests of different schemes are never given each other's answers. Absent: they are all of one,
   * or it does not matter.
   */
  scheme?: string | undefined
  headers: HeaderFields
  /** Resolves when its client has been answered: where it has this, it may be asked in the background only then. */
  answered?: (() => Promise<void>) | undefined
  /** False when it cannot be asked in the background at all: it is not answered by what it would have to renew. */
  renews?: boolean | undefined
  /** Aborts when its client has gone: it then waits no longer, and the work goes on only if others wait for it. */
  signal?: AbortSignal | undefined
}

/** What the origin is asked: the request with the fields that it must not see taken out, and validators put in. */
export interface OriginRequest {
  method: string
  url: string
  headers: HeaderFields
  /** Aborts when nobody wants the answer any more, or it did not come in time. */
  signal: AbortSignal | undefined
  /** Whether this renews a stale response, with which the client whose request it is has been answered already. */
  background?: boolean | undefined
}

/** A body as origins give it: whole, or in pieces. */
export type OriginBody = Uint8Array | string | AsyncIterable<Uint8Array | string> | null | undefined

/** The answer of an origin. */
export interface OriginResponse {
  status: number
  /** The reason phrase, where there is one. */
  statusText?: string | undefined
  headers: HeaderFields
  body?: OriginBody
  /**
   * Names of fields that are judged like all others, but are given to the request's own client alone: they were made for it
   * by something that runs for every client. Vary, Cache-Control, Date and Content-Length cannot be among them.
   */
  own?: readonly string[] | undefined
  /** Whether nobody else may have it, whatever it says. */
  unshared?: boolean | undefined
  /** Where this head does not mean that all is done: the one at the end of what the request has changed. */
  ended?: Promise<OriginResponse> | undefined
}

/** Whatever makes the answers: a handler of this process, or a server behind it. */
export type Origin = (request: OriginRequest) => OriginResponse | PromiseLike<OriginResponse>

/** An answer, ready to be written. */
export interface HttpResponse {
  status: number
  statusText: string | undefined
  /** Name, value, name, value: as `writeHead` of node:http takes it. Shared between answers: not to be changed. */
  headers: string[]
  /**
   * A Buffer is shared between answers: not to be changed. Pieces are this answer's own, and must be read to their end, or
   * ended by `return()`. Undefined: none.
   */
  body: Buffer | AsyncIterable<Uint8Array> | undefined
}
