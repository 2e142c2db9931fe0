import type { OutgoingHttpHeader, ServerResponse } from 'node:http'
import pDefer from 'p-defer'
import { fromRawHeaders, type OriginResponse } from '../../engine/index.ts'

/** Fields by which a response is as long as it says, or by which Node chunks it. */
const FRAMING = ['content-length', 'transfer-encoding', 'trailer']

/** Responses that are kept from ending though all of them is there. */
const complete = new WeakSet<ServerResponse>()

/** Whether a handler has said all of a response. */
export function isComplete(response: ServerResponse): boolean {
  return response.writableEnded || complete.has(response)
}

/**
 * Keeps a response from ending until what it has changed is forgotten everywhere: its client is not to be given what was
 * before. Everything else of it goes its way.
 */
export class HeldResponse {
  readonly #response: ServerResponse
  readonly #ending = pDefer<OriginResponse>()
  readonly #ended = pDefer<OriginResponse>()
  /** Name, value, as they were given to writeHead: nobody else learns of them. */
  #written: string[] = []
  #end: (() => void) | undefined
  #released = false

  constructor(response: ServerResponse) {
    this.#response = response
    const { end, write, writeHead } = response
    response.writeHead = (...args: unknown[]) => {
      this.#written = rawOf(args.at(-1))
      return writeHead.apply(response, args as Parameters<typeof writeHead>)
    }
    response.end = (...args: unknown[]) => {
      if (!this.#end) this.#fixHead(args)
      this.#end ??= () => {
        Object.assign(response, { end, write, writeHead })
        end.apply(response, args as Parameters<typeof end>)
      }
      complete.add(response)
      const head = this.#head()
      this.#ending.resolve(head)
      this.#ended.resolve(head)
      if (this.#released) this.#end()
      return response
    }
    // Once it has ended, nothing more goes out: its length is told already.
    response.write = (...args: unknown[]) =>
      this.#end === undefined && write.apply(response, args as Parameters<typeof write>)
    // Whose client is gone may never end; but it may have changed something.
    response.once('close', () => this.#ending.resolve({ ...this.#head(), completed: this.#ended.promise }))
  }

  /** Settles with the head of the response when it is complete and would end. */
  get ending(): Promise<OriginResponse> {
    return this.#ending.promise
  }

  /** What ends is complete, as if it had gone out: nobody changes its head any more. */
  #fixHead([chunk, encoding]: unknown[]): void {
    const response = this.#response
    if (response.headersSent) return
    const bodiless = response.statusCode === 204 || response.statusCode === 304
    const framed = FRAMING.some((name) => response.hasHeader(name))
    if (!bodiless && !framed) response.setHeader('content-length', lengthOf(chunk, encoding))
    response.writeHead(response.statusCode)
  }

  release(): void {
    this.#released = true
    this.#end?.()
  }

  #head(): OriginResponse {
    const { statusCode: status } = this.#response
    return { status, headers: fromRawHeaders([...rawOf(this.#response.getHeaders()), ...this.#written]) }
  }
}

function lengthOf(chunk: unknown, encoding: unknown): number {
  if (typeof chunk === 'string') return Buffer.byteLength(chunk, encoding as BufferEncoding | undefined)
  return chunk instanceof Uint8Array ? chunk.byteLength : 0
}

type Fields = Record<string, OutgoingHttpHeader | undefined>

function rawOf(fields: unknown): string[] {
  if (Array.isArray(fields)) return fields.flat().map(String)
  if (typeof fields !== 'object' || fields === null) return []
  return Object.entries(fields as Fields).flatMap(([name, value]) =>
    [value ?? []].flat().flatMap((line) => [name, String(line)]),
  )
}
