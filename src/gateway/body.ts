import pDefer from 'p-defer'
import type { Clock } from '../kernel/time.ts'
import type { GatewayDeps } from './deps.ts'
import { Problem } from './problem.ts'

const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** Requests whose body is as long as they say. */
const exact = new WeakSet<Request>()

/**
 * The body of this request is as long as its Content-Length says: the parser of node:http has seen to that. Then it is read at
 * once, which costs a fifth less than a request takes in all.
 */
export function trustLength(request: Request): void {
  exact.add(request)
}

/**
 * Reads the body of a request as text. Never holds more than `maxBody` bytes of it.
 * @throws Problem 413 if it is longer, 408 if it does not arrive within `bodyTimeout`, 400 if it is cut off or is not UTF-8.
 */
export async function readText(request: Request, { options, clock }: GatewayDeps): Promise<string> {
  const bytes = await readBytes(request, options.maxBody, options.bodyTimeout, clock)
  try {
    return decoder.decode(bytes)
  } catch {
    throw new Problem(400, 'body is not utf-8')
  }
}

async function readBytes(request: Request, max: number, timeout: number, clock: Clock): Promise<Uint8Array> {
  const announced = request.headers.get('content-length')
  if (announced !== null && Number(announced) > max) throw tooLarge(max)
  if (announced !== null && exact.has(request)) return await readWhole(request, timeout, clock)
  const reader = request.body?.getReader()
  if (!reader) return new Uint8Array()
  let failure: Problem | undefined
  const stop = (problem: Problem) => {
    failure ??= problem
    // Rejects if the body has failed already, of which `read` tells.
    reader.cancel(problem).catch(() => {})
  }
  const timer = clock.after(timeout, () => stop(slow()), true)
  const chunks: Uint8Array[] = []
  let size = 0
  try {
    for (;;) {
      const { done, value } = await reader.read()
      if (failure) throw failure
      if (done) return chunks.length === 1 && chunks[0] ? chunks[0] : Buffer.concat(chunks, size)
      size += value.byteLength
      if (size > max) stop(tooLarge(max))
      else chunks.push(value)
    }
  } catch (cause) {
    throw failure ?? new Problem(400, 'body is incomplete', { cause })
  } finally {
    timer.cancel()
  }
}

async function readWhole(request: Request, timeout: number, clock: Clock): Promise<Uint8Array> {
  const late = pDefer<never>()
  const timer = clock.after(timeout, () => late.reject(slow()), true)
  const whole = request.arrayBuffer().catch((cause) => {
    throw new Problem(400, 'body is incomplete', { cause })
  })
  // It goes on after the timeout, and may fail then.
  whole.catch(() => {})
  try {
    return new Uint8Array(await Promise.race([whole, late.promise]))
  } finally {
    timer.cancel()
  }
}

function slow(): Problem {
  return new Problem(408, 'body is too slow')
}

function tooLarge(max: number): Problem {
  return new Problem(413, 'body is too large', { detail: `The largest body has ${max} bytes` })
}
