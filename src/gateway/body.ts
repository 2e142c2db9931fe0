import pDefer from 'p-defer'
import type { Clock, Timer } from '../kernel/time.ts'
import type { GatewayDeps } from './deps.ts'
import type { IncomingRequest, RouteContext } from './env.ts'
import { Problem } from './problem.ts'

const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/**
 * Reads the body of a request as text. Never holds more than `maxBody` bytes of it.
 * @throws Problem 413 if it is longer, 408 if it does not arrive within `bodyTimeout`, 400 if it is cut off or is not UTF-8.
 */
export async function readText(c: RouteContext, { options, clock }: GatewayDeps): Promise<string> {
  const { maxBody, bodyTimeout } = options
  const announced = c.req.header('content-length')
  const body = new Body(maxBody, announced === undefined ? undefined : Number(announced))
  if (c.env.body) await readIncoming(c.env.body, body, bodyTimeout, clock)
  else await readStream(c.req.raw.body, body, bodyTimeout, clock)
  return body.text()
}

/** What has arrived of a body. */
class Body {
  readonly #max: number
  readonly #announced: number | undefined
  readonly #chunks: Uint8Array[] = []
  #size = 0

  /** In bytes. `announced`: by Content-Length. @throws Problem 413 */
  constructor(max: number, announced: number | undefined) {
    if (announced !== undefined && announced > max) throw tooLarge(max)
    this.#max = max
    this.#announced = announced
  }

  /** Whether all bytes have arrived that were announced: a parser of HTTP lets no more follow. Undefined: none were announced. */
  get isWhole(): boolean | undefined {
    return this.#announced === undefined ? undefined : this.#size === this.#announced
  }

  /** @throws Problem 413 if it is too long with this chunk, which is not kept then. */
  add(chunk: Uint8Array): void {
    this.#size += chunk.byteLength
    if (this.#size > this.#max) throw tooLarge(this.#max)
    this.#chunks.push(chunk)
  }

  /** @throws Problem 400 */
  text(): string {
    const [first] = this.#chunks
    const isOne = first !== undefined && this.#chunks.length === 1
    try {
      return decoder.decode(isOne ? first : Buffer.concat(this.#chunks, this.#size))
    } catch {
      throw new Problem(400, 'body is not utf-8')
    }
  }
}

/** Reads the body of a request of node:http. Most bodies have arrived with the headers. */
async function readIncoming(
  incoming: IncomingRequest,
  body: Body,
  timeout: number,
  clock: Clock,
): Promise<void> {
  const { rawBody } = incoming
  // A serverless runtime has read it.
  if (rawBody instanceof Uint8Array) return body.add(rawBody)
  if (incoming.readableDidRead) throw incomplete(undefined, 'It was read before the gateway')
  const add = (chunk: Uint8Array | string) =>
    body.add(typeof chunk === 'string' ? Buffer.from(chunk, incoming.readableEncoding ?? 'utf8') : chunk)
  if (!incoming.destroyed) return await readArriving(incoming, body, add, timeout, clock)
  // The client is gone: no event tells of its body, which may be whole.
  for (let chunk = incoming.read(); chunk; chunk = incoming.read()) add(chunk)
  if (!isComplete(incoming)) throw incomplete()
}

/** Reads a body that may still be on its way. */
async function readArriving(
  incoming: IncomingRequest,
  body: Body,
  add: (chunk: Uint8Array | string) => void,
  timeout: number,
  clock: Clock,
): Promise<void> {
  const arrived = pDefer<void>()
  // It may fail before it is awaited.
  arrived.promise.catch(() => {})
  const onData = (chunk: Uint8Array | string) => {
    try {
      add(chunk)
      if (body.isWhole) arrived.resolve()
    } catch (problem) {
      arrived.reject(problem)
    }
  }
  const onOver = (cause?: unknown) => {
    if (isComplete(incoming) && body.isWhole !== false) arrived.resolve()
    else arrived.reject(incomplete(cause))
  }
  // At once: if others listen, they do not make it flow past this one.
  incoming.on('data', onData).on('end', onOver).on('error', onOver).on('close', onOver).resume()
  let timer: Timer | undefined
  try {
    // The parser announces a request by its headers, and gives the body that has come with them a moment later.
    await undefined
    // One that is announced to be empty is whole from the beginning.
    if (body.isWhole) arrived.resolve()
    else timer = clock.after(timeout, () => arrived.reject(slow()), true)
    await arrived.promise
  } catch (error) {
    incoming.pause()
    throw error
  } finally {
    timer?.cancel()
    incoming.off('data', onData).off('end', onOver).off('error', onOver).off('close', onOver)
  }
}

/** Whether all has arrived; the client may be gone. A request of HTTP/2 is complete also when its stream was reset or destroyed. */
function isComplete({ complete, stream, aborted }: IncomingRequest): boolean {
  return complete && !(stream && (stream.rstCode || aborted))
}

async function readStream(
  stream: ReadableStream<Uint8Array> | null,
  body: Body,
  timeout: number,
  clock: Clock,
): Promise<void> {
  const reader = stream?.getReader()
  if (!reader) return
  let failure: unknown
  const stop = (problem: unknown) => {
    failure ??= problem
    // Rejects if the body has failed already, of which `read` tells.
    reader.cancel(problem).catch(() => {})
  }
  const timer: Timer = clock.after(timeout, () => stop(slow()), true)
  try {
    for (;;) {
      const { done, value } = await reader.read()
      if (failure) throw failure
      if (done) return
      body.add(value)
    }
  } catch (cause) {
    if (cause instanceof Problem) stop(cause)
    throw failure ?? incomplete(cause)
  } finally {
    timer.cancel()
  }
}

function slow(): Problem {
  return new Problem(408, 'body is too slow')
}

function incomplete(cause?: unknown, detail?: string): Problem {
  return new Problem(400, 'body is incomplete', { cause, detail })
}

function tooLarge(max: number): Problem {
  return new Problem(413, 'body is too large', { detail: `The largest body has ${max} bytes` })
}
