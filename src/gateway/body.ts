import pDefer from 'p-defer'
import type { Clock, Timer } from '../kernel/time.ts'
import type { GatewayDeps } from './deps.ts'
import type { IncomingBody, RouteContext } from './env.ts'
import { Problem } from './problem.ts'

const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/**
 * Reads the body of a request as text. Never holds more than `maxBody` bytes of it.
 * @throws Problem 413 if it is longer, 408 if it does not arrive within `bodyTimeout`, 400 if it is cut off or is not UTF-8.
 */
export async function readText(c: RouteContext, { options, clock }: GatewayDeps): Promise<string> {
  const announced = c.req.header('content-length')
  if (announced !== undefined && Number(announced) > options.maxBody) throw tooLarge(options.maxBody)
  const { incomingBody } = c.env
  const body = new Body(options.maxBody)
  if (incomingBody) await readIncoming(incomingBody, body, options.bodyTimeout, clock)
  else await readStream(c.req.raw.body, body, options.bodyTimeout, clock)
  return body.text()
}

/** What has arrived of a body. */
class Body {
  readonly #max: number
  readonly #chunks: Uint8Array[] = []
  #size = 0

  /** `max`: bytes. */
  constructor(max: number) {
    this.#max = max
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
    const isWhole = first !== undefined && this.#chunks.length === 1
    try {
      return decoder.decode(isWhole ? first : Buffer.concat(this.#chunks, this.#size))
    } catch {
      throw new Problem(400, 'body is not utf-8')
    }
  }
}

/** Reads the body of a request of node:http, which mostly is there already. */
async function readIncoming(
  incoming: IncomingBody,
  body: Body,
  timeout: number,
  clock: Clock,
): Promise<void> {
  // Somebody else has read it.
  if (incoming.readableDidRead) throw incomplete()
  addBuffered(incoming, body)
  if (isComplete(incoming)) return
  if (incoming.destroyed) throw incomplete()
  const arrived = pDefer<void>()
  const timer = clock.after(timeout, () => arrived.reject(slow()), true)
  const onReadable = () => {
    try {
      addBuffered(incoming, body)
    } catch (problem) {
      arrived.reject(problem)
    }
  }
  const onOver = (cause?: unknown) => {
    if (isComplete(incoming)) arrived.resolve()
    else arrived.reject(incomplete(cause))
  }
  incoming.on('readable', onReadable).on('end', onOver).on('error', onOver).on('close', onOver)
  try {
    await arrived.promise
  } finally {
    timer.cancel()
    incoming.off('readable', onReadable).off('end', onOver).off('error', onOver).off('close', onOver)
  }
}

/** Adds what has arrived and was not read. @throws Problem 413 */
function addBuffered(incoming: IncomingBody, body: Body): void {
  for (let chunk = incoming.read(); chunk; chunk = incoming.read()) body.add(chunk)
}

/** Whether the whole body has arrived. The client may be gone. A stream of HTTP/2 is complete also when it was reset. */
function isComplete({ complete, aborted, httpVersionMajor }: IncomingBody): boolean {
  return complete && !(aborted && httpVersionMajor > 1)
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

function incomplete(cause?: unknown): Problem {
  return new Problem(400, 'body is incomplete', { cause })
}

function tooLarge(max: number): Problem {
  return new Problem(413, 'body is too large', { detail: `The largest body has ${max} bytes` })
}
