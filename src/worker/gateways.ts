import { AbortedError, UnavailableError } from '../errors.ts'
import { messageOf } from '../kernel/codec/codec.ts'
import { type Clock, systemClock, type Timer } from '../kernel/time.ts'
import { type Answer, describeAnswer, readAnswer, retryAfterOf } from './answer.ts'
import { backoff } from './backoff.ts'

export interface GatewayRequest {
  readonly method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'
  /** Path and query. */
  readonly path: string
  readonly body?: string | undefined
  /** The lease that it is about. */
  readonly lease?: string | undefined
  /** How long the gateway may wait before it answers, ms. @default 0 */
  readonly wait?: number | undefined
  /** How long the gateway has to answer beside the `wait`, if that is less than the `timeout` of the worker, ms. */
  readonly within?: number | undefined
  readonly signal?: AbortSignal | undefined
  /** Its answer, or the want of one, says nothing about whether the gateway serves. */
  readonly isAside?: boolean | undefined
}

export interface GatewaysOptions {
  readonly urls: readonly string[]
  readonly token: string | undefined
  readonly workerId: string
  /** ms */
  readonly timeout: number
  /** Largest body that is read, bytes. */
  readonly maxBody: number
  readonly fetch: typeof globalThis.fetch
  /** A gateway does not answer, or refuses for the time being. */
  onAway(url: string, reason: string): void
  /** It answers again. */
  onBack(url: string): void
}

/**
 * The time for an answer is waited for in so many parts, one after the other. However long this process is blocked, and cannot read
 * the answer, that uses up one part at most.
 */
const PARTS = 4

interface Gateway {
  readonly url: string
  /** Failures in a row. */
  failures: number
  /** When it failed last, and from when on it may be asked again, by the clock, ms. */
  failedAt: number
  retryAt: number
}

/**
 * The gateways of a worker: any of them answers any request. The one that answered last is asked first. One that fails is left
 * alone for a while, and the next one is asked.
 */
export class Gateways {
  readonly #options: GatewaysOptions
  readonly #clock: Clock = systemClock
  readonly #gateways: readonly Gateway[]
  /** Index of the gateway that is asked first. */
  #first = 0

  constructor(options: GatewaysOptions) {
    this.#options = options
    const never = { failures: 0, failedAt: Number.NEGATIVE_INFINITY, retryAt: Number.NEGATIVE_INFINITY }
    this.#gateways = options.urls.map((url) => ({ url, ...never }))
  }

  /** How long there is no gateway to ask, ms; 0: there is one. */
  get pause(): number {
    return Math.max(0, Math.min(...this.#gateways.map(({ retryAt }) => retryAt)) - this.#clock.now())
  }

  /**
   * Makes a request once, to a gateway that may be asked; if there is none, to the one that may be asked first.
   * @throws UnavailableError if it is not known whether the request took effect, or the gateway refuses for the time being;
   * AbortedError if the signal aborted.
   */
  async request(request: GatewayRequest): Promise<Answer> {
    const gateway = this.#choose()
    const startedAt = this.#clock.now()
    let answer: Answer
    try {
      answer = await this.#send(gateway.url, request)
    } catch (error) {
      if (request.signal?.aborted) throw new AbortedError('The request was aborted', { cause: error })
      throw this.#failed(gateway, request, startedAt, reasonOf(error))
    }
    if (answer.status >= 500 || answer.status === 429)
      throw this.#failed(gateway, request, startedAt, describeAnswer(answer), retryAfterOf(answer))
    if (!request.isAside) this.#answered(gateway)
    return answer
  }

  #choose(): Gateway {
    const count = this.#gateways.length
    const inOrder = Array.from({ length: count }, (_, at) => (this.#first + at) % count)
    const now = this.#clock.now()
    const retryAt = (index: number) => Math.max(now, this.#gateways[index]?.retryAt ?? now)
    const [chosen = 0] = inOrder.sort((one, other) => retryAt(one) - retryAt(other))
    this.#first = chosen
    return this.#gateways[chosen] as Gateway
  }

  /** Sends a request and reads its answer, within the time that the gateway has. */
  async #send(url: string, request: GatewayRequest): Promise<Answer> {
    const { method, path, body, lease, wait = 0, within = Number.POSITIVE_INFINITY, signal } = request
    const { token, workerId, timeout, maxBody, fetch } = this.#options
    const time = wait + Math.min(timeout, within)
    const controller = new AbortController()
    const abort = () => controller.abort(new Error('stopped'))
    const late = () => controller.abort(new Error(`no answer within ${Math.round(time)} ms`))
    if (signal?.aborted) abort()
    signal?.addEventListener('abort', abort)
    const cancel = this.#afterParts(time, late)
    const headers: Record<string, string> = { 'x-presque-workerid': workerId }
    if (token !== undefined) headers['authorization'] = `Bearer ${token}`
    if (lease !== undefined) headers['x-lease'] = lease
    if (body !== undefined) headers['content-type'] = 'application/json'
    try {
      const response = await fetch(url + path, {
        ...{ method, headers, signal: controller.signal },
        ...(body === undefined ? {} : { body }),
        // A token must not follow to another place.
        redirect: 'manual',
      })
      return await readAnswer(response, maxBody)
    } finally {
      cancel()
      signal?.removeEventListener('abort', abort)
    }
  }

  /** Calls `late` after a time, ms, unless the returned function is called before. */
  #afterParts(time: number, late: () => void): () => void {
    let timer: Timer
    const wait = (parts: number) => {
      timer = this.#clock.after(time / PARTS, () => (parts > 1 ? wait(parts - 1) : late()))
    }
    wait(PARTS)
    return () => timer.cancel()
  }

  #failed(
    gateway: Gateway,
    { isAside = false }: GatewayRequest,
    startedAt: number,
    reason: string,
    retryAfter = 0,
  ): UnavailableError {
    const { url } = gateway
    // Requests that were under way together count as one failure.
    if (startedAt >= gateway.failedAt && !isAside) {
      const now = this.#clock.now()
      gateway.failures++
      gateway.failedAt = now
      gateway.retryAt = now + Math.max(retryAfter, backoff(gateway.failures))
      // When it may be asked again, it is the last one.
      if (this.#gateways[this.#first] === gateway) this.#first = (this.#first + 1) % this.#gateways.length
      if (gateway.failures === 1) this.#options.onAway(url, reason)
    }
    return new UnavailableError(`The gateway ${url} does not serve: ${reason}`)
  }

  #answered(gateway: Gateway): void {
    if (gateway.failures === 0) return
    gateway.failures = 0
    gateway.retryAt = Number.NEGATIVE_INFINITY
    this.#options.onBack(gateway.url)
  }
}

/** Why a request failed: `fetch` hides that in the cause. */
function reasonOf(error: unknown): string {
  const { cause } = (error ?? {}) as { cause?: unknown }
  return messageOf(cause ?? error) || messageOf(error)
}
