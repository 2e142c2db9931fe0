import type { OutgoingHttpHeader, ServerResponse } from 'node:http'
import pDefer from 'p-defer'
import { fromRawHeaders, type OriginResponse } from '../../index.ts'

/** Headers that frame the body. Without them Node chunks it. */
const FRAMING = ['content-length', 'transfer-encoding', 'trailer']

/** Responses whose handler has called end(), but whose end is deferred. */
const deferred = new WeakSet<ServerResponse>()

/** Whether the handler has completed a response, even if its end is deferred. */
export function isComplete(response: ServerResponse): boolean {
  return response.writableEnded || deferred.has(response)
}

/**
 * | state    | the handler calls end()      | release()   |
 * | -------- | ---------------------------- | ----------- |
 * | open     | -> deferred                  | -> released |
 * | deferred | ignored                      | -> ended    |
 * | released | -> ended                     | -           |
 * | ended    | Node's own end() is in place | -           |
 */
type State =
  | { readonly kind: 'open' }
  /** `end` ends the response as the handler did. */
  | { readonly kind: 'deferred'; readonly end: () => void }
  | { readonly kind: 'released' }
  | { readonly kind: 'ended' }

/**
 * Defers the end of a response to a request that may change something, until the invalidations have been sent. A client
 * that has the whole response then never gets an older one. Head and body are sent as the handler writes them.
 */
export class DeferredEnd {
  readonly #response: ServerResponse
  readonly #headAtEnd = pDefer<OriginResponse>()
  readonly #endAfterClose = pDefer<OriginResponse>()
  /** The headers passed to writeHead, name, value: getHeaders() does not always have them. */
  #writtenHeaders: string[] = []
  #state: State = { kind: 'open' }

  constructor(response: ServerResponse) {
    this.#response = response
    const { end, write, writeHead } = response
    response.writeHead = (...args: unknown[]) => {
      this.#writtenHeaders = rawHeadersOf(args.at(-1))
      return writeHead.apply(response, args as Parameters<typeof writeHead>)
    }
    response.end = (...args: unknown[]) => {
      this.#onEnd(args, () => {
        Object.assign(response, { end, write, writeHead })
        end.apply(response, args as Parameters<typeof end>)
      })
      return response
    }
    // After its end a response is not written to: its length is in the head.
    response.write = (...args: unknown[]) =>
      this.#isOpen && write.apply(response, args as Parameters<typeof write>)
    // The handler may never end a response whose client has gone, but it may have changed something.
    response.once('close', () =>
      this.#headAtEnd.resolve({ ...this.#head(), completed: this.#endAfterClose.promise }),
    )
  }

  /**
   * Resolves when the handler ends the response, or when its client has gone. In the latter case `completed` of the result
   * resolves when the handler ends the response.
   */
  get headAtEnd(): Promise<OriginResponse> {
    return this.#headAtEnd.promise
  }

  /** Sends the head, as end() would: it can no longer be changed while the end is deferred. */
  #completeHead([chunk, encoding]: unknown[]): void {
    const response = this.#response
    if (response.headersSent) return
    const bodiless = response.statusCode === 204 || response.statusCode === 304
    const framed = FRAMING.some((name) => response.hasHeader(name))
    if (!bodiless && !framed) response.setHeader('content-length', byteLength(chunk, encoding))
    response.writeHead(response.statusCode)
  }

  /** Lets the response end: at once when the handler has ended it. */
  release(): void {
    const state = this.#state
    if (state.kind === 'open') this.#state = { kind: 'released' }
    else if (state.kind === 'deferred') {
      state.end()
      this.#state = { kind: 'ended' }
    }
  }

  /** Whether the handler has not ended the response. */
  get #isOpen(): boolean {
    return this.#state.kind === 'open' || this.#state.kind === 'released'
  }

  #onEnd(args: unknown[], end: () => void): void {
    if (!this.#isOpen) return
    this.#completeHead(args)
    deferred.add(this.#response)
    const head = this.#head()
    this.#headAtEnd.resolve(head)
    this.#endAfterClose.resolve(head)
    if (this.#state.kind === 'open') this.#state = { kind: 'deferred', end }
    else {
      end()
      this.#state = { kind: 'ended' }
    }
  }

  #head(): OriginResponse {
    const { statusCode: status } = this.#response
    return {
      status,
      headers: fromRawHeaders([...rawHeadersOf(this.#response.getHeaders()), ...this.#writtenHeaders]),
    }
  }
}

function byteLength(chunk: unknown, encoding: unknown): number {
  if (typeof chunk === 'string') return Buffer.byteLength(chunk, encoding as BufferEncoding | undefined)
  return chunk instanceof Uint8Array ? chunk.byteLength : 0
}

type OutgoingHeaders = Record<string, OutgoingHttpHeader | undefined>

/** Headers in any form that writeHead takes, as name, value. */
function rawHeadersOf(headers: unknown): string[] {
  if (Array.isArray(headers)) return headers.flat().map(String)
  if (typeof headers !== 'object' || headers === null) return []
  return Object.entries(headers as OutgoingHeaders).flatMap(([name, value]) =>
    [value ?? []].flat().flatMap((line) => [name, String(line)]),
  )
}
