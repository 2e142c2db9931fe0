import { AlreadyAttachedError, ClosedError, NotAttachedError } from '../errors.ts'
import { ContextEmitter } from '../kernel/hooks.ts'
import {
  type Complete,
  checkOptions,
  checkSignal,
  checkTimeout,
  countFrom,
  defaultsOf,
  type OptionTable,
  unchecked,
  withDefaults,
} from '../kernel/options.ts'
import type { Clock } from '../kernel/time.ts'
import type { Call, RegisterOptions, Remote, Services } from '../services/index.ts'
import { type ReplyFunction, replyAtOnce, replyInParts } from './service-reply.ts'

/** Options of {@link BusService.serve}. */
export interface ServeOptions extends RegisterOptions {
  /** Number of requests, after which it stops serving. Not together with `backlog`. @default Infinity */
  max?: number | undefined
}

const SERVE_OPTIONS: OptionTable<ServeOptions, { max: number }> = {
  max: [countFrom(1), Number.POSITIVE_INFINITY],
  // Checked by Services.
  capacity: [unchecked],
  backlog: [unchecked],
  version: [unchecked],
}
const SERVE_DEFAULTS = defaultsOf(SERVE_OPTIONS)

/** Options of requests. */
export interface ServiceRequestOptions {
  /** Time for the request and its reply, ms; for a stream, for each chunk. Infinity is allowed. @default 1_000 */
  reqTimeout?: number | undefined
  /** Ends the request. */
  signal?: AbortSignal | undefined
}

const REQUEST_OPTIONS: OptionTable<
  ServiceRequestOptions,
  Complete<Pick<ServiceRequestOptions, 'reqTimeout'>>
> = {
  reqTimeout: [checkTimeout, 1_000],
  signal: [checkSignal],
}
const REQUEST_DEFAULTS = defaultsOf(REQUEST_OPTIONS)

/** Options of {@link BusService.connect}: those of its requests. */
export type ServiceConnectOptions = Pick<ServiceRequestOptions, 'reqTimeout'>

/** Events of a BusService. */
export interface BusServiceEvents<Data, Result> {
  /** This object serves from now on. */
  serving: []
  /** Requests can be made from now on. */
  connected: []
  /** This object no longer serves, and no longer makes requests. */
  disconnect: []
  /** A request, to be answered by `reply`. */
  request: [data: Data, reply: ReplyFunction<Result>]
}

/** The events of the engine: a request, and one whose reply is read in parts. */
const REQUEST = 'request'
const STREAM = 'stream'

/** What a service needs of its bus. */
export interface BusServiceDeps {
  readonly clock: Clock
  /** The Services object of the instance that this name chooses. @throws ClosedError */
  engine(): Services
  /** See {@link BusContext.onDisconnect}. */
  onDisconnect(close: () => Promise<void>): () => void
}

/** How long `disconnect` waits by default, ms. */
const DEFAULT_GRACE = 5_000

/** A request that is not over. */
interface OpenRequest {
  readonly controller: AbortController
  readonly over: Promise<unknown>
}

/**
 * Requests and replies between processes, on the engine of {@link Services}. Each request goes to the least busy object, in any
 * process, that serves the name. The service is on the best instance for its name.
 *
 * @example
 * const sums = bus.service<number[], number>('sums')
 * sums.on('request', (numbers, reply) => reply(null, numbers.reduce((sum, number) => sum + number, 0)))
 * await sums.serve()
 */
export class BusService<Data = unknown, Result = unknown> extends ContextEmitter<
  BusServiceEvents<Data, Result>
> {
  readonly name: string
  readonly #deps: BusServiceDeps
  /** The Services object by which it is served. */
  #server: Services | undefined
  /** The Services object by which requests are made, and the time limit of these. */
  #client: { readonly engine: Services; readonly reqTimeout: number } | undefined
  readonly #requests = new Set<OpenRequest>()
  /** Ends the notice of a disconnect of the bus. */
  #ignoreBus: (() => void) | undefined

  /** @internal */
  constructor(name: string, deps: BusServiceDeps) {
    super()
    this.name = name
    this.#deps = deps
  }

  /** Whether this object serves: it takes requests. */
  isServing(): boolean {
    return this.#server !== undefined
  }

  /** Whether requests can be made. */
  isConnected(): boolean {
    return this.#client !== undefined
  }

  /**
   * Serves: requests arrive as events `request`. One object of a bus can serve a name.
   * @throws AlreadyAttachedError if it serves; DuplicateHandlerError if another object of this bus does; UnavailableError;
   * ClosedError; TypeError.
   */
  async serve(given: ServeOptions = {}): Promise<void> {
    checkOptions(given, SERVE_OPTIONS)
    const { max } = withDefaults(given, SERVE_DEFAULTS)
    const { max: _, ...options } = given
    if (Number.isFinite(max) && options.backlog)
      throw new TypeError('Expected no `backlog` beside `max`: a request that waits could be one too many')
    if (this.#server)
      throw new AlreadyAttachedError('The service is served by this object', { key: this.name })
    const engine = this.#deps.engine()
    this.#server = engine
    this.#watchBus()
    try {
      const service = await engine.register(this.name, options)
      let taken = 0
      const take = () => {
        if (++taken === max) void this.#stopServing(Number.POSITIVE_INFINITY)
      }
      service.on(REQUEST, (data: Data, call: Call) => {
        take()
        return replyAtOnce<Result>(call, (reply) => this.#onRequest(data, reply))
      })
      service.on(STREAM, (data: Data, call: Call) => {
        take()
        return replyInParts<Result>(call, (reply) => this.#onRequest(data, reply))
      })
    } catch (error) {
      if (this.#server === engine) this.#server = undefined
      throw error
    }
    this.emit('serving')
  }

  #onRequest(data: Data, reply: ReplyFunction<Result>): void {
    if (!this.emit('request', data, reply)) reply(new Error('The service has no listener of `request`'))
  }

  /**
   * Makes requests possible. Does not wait for a process that serves.
   * @throws AlreadyAttachedError if it is connected; ClosedError; TypeError.
   */
  async connect(given: ServiceConnectOptions = {}): Promise<void> {
    checkOptions(given, REQUEST_OPTIONS)
    if (this.#client) throw new AlreadyAttachedError('The service is connected', { key: this.name })
    const { reqTimeout } = withDefaults(given, REQUEST_DEFAULTS)
    this.#client = { engine: this.#deps.engine(), reqTimeout }
    this.#watchBus()
    this.emit('connected')
  }

  /**
   * Makes a request. Resolves with its result. If no process serves the name yet, it waits for one.
   * @throws RemoteError if the reply is an error; NoServiceError, TimeoutError after `reqTimeout`; NotAttachedError before
   * `connect`; AbortedError if it is aborted, or has not ended within the grace of a disconnect; and all others of `Remote.emit`.
   */
  async request(data: Data, options: ServiceRequestOptions = {}): Promise<Result> {
    return this.#request(options, (remote, { timeout, signal }) =>
      remote.with({ within: timeout, signal }).emit(REQUEST, data),
    )
  }

  /**
   * Makes a request, and yields the parts of the reply. The request is made with the first read. Leaving the loop ends it.
   * `reqTimeout` limits the wait for each part.
   * @throws as `request`.
   */
  async *stream(data: Data, options: ServiceRequestOptions = {}): AsyncGenerator<Result, void> {
    let end = () => {}
    const over = new Promise<void>((resolve) => {
      end = resolve
    })
    let chunks: AsyncIterable<Result> | undefined
    const request = this.#request(options, (remote, { signal }) => {
      chunks = remote.with({ signal }).stream(STREAM, data)
      return over
    })
    try {
      if (chunks) yield* chunks
    } finally {
      end()
      await request
    }
  }

  /** Counts a request as open until the promise that `make` returns is settled. */
  async #request<T>(
    given: ServiceRequestOptions,
    make: (remote: Remote, terms: { readonly timeout: number; readonly signal: AbortSignal }) => Promise<T>,
  ): Promise<T> {
    checkOptions(given, REQUEST_OPTIONS)
    if (!this.#client) throw new NotAttachedError('The service is not connected', { key: this.name })
    const { engine, reqTimeout } = this.#client
    const timeout = given.reqTimeout ?? reqTimeout
    const controller = new AbortController()
    const abort = () => controller.abort(given.signal?.reason)
    if (given.signal?.aborted) abort()
    given.signal?.addEventListener('abort', abort)
    const remote = engine.require(this.name, { timeout, wait: timeout })
    const over = make(remote, { timeout, signal: controller.signal })
    const request = { controller, over }
    this.#requests.add(request)
    try {
      return await over
    } finally {
      this.#requests.delete(request)
      given.signal?.removeEventListener('abort', abort)
    }
  }

  /**
   * Takes and makes no more requests, and waits up to `grace` ms for the running ones, on both sides. Resolves when these have
   * ended. Never rejects.
   * @throws TypeError if `grace` is not a duration.
   */
  disconnect({ grace = DEFAULT_GRACE }: { grace?: number } = {}): Promise<void> {
    checkTimeout('grace', grace)
    return this.#disconnect(grace)
  }

  async #disconnect(grace: number): Promise<void> {
    if (!this.#server && !this.#client) return
    this.#client = undefined
    const requests = [...this.#requests]
    await Promise.all([this.#stopServing(grace), this.#settled(requests, grace)])
    for (const { controller } of requests) controller.abort(new ClosedError('The service was disconnected'))
    this.#ignoreBus?.()
    this.#ignoreBus = undefined
    this.emit('disconnect')
  }

  async #stopServing(grace: number): Promise<void> {
    const server = this.#server
    this.#server = undefined
    await server?.unregister(this.name, { grace })
  }

  async #settled(requests: readonly OpenRequest[], grace: number): Promise<void> {
    if (requests.length === 0) return
    await new Promise<void>((resolve) => {
      const timer = Number.isFinite(grace) ? this.#deps.clock.after(grace, resolve) : undefined
      void Promise.allSettled(requests.map(({ over }) => over)).then(() => {
        timer?.cancel()
        resolve()
      })
    })
  }

  /** The bus waits up to its own grace. */
  #watchBus(): void {
    this.#ignoreBus ??= this.#deps.onDisconnect(() => this.#disconnect(Number.POSITIVE_INFINITY))
  }
}
