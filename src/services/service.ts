import { DuplicateHandlerError } from '../errors.ts'
import { checkWellFormedName } from '../kernel/names.ts'
import { checkFunction } from '../kernel/options.ts'
import { AsyncContext } from '../kernel/time.ts'
import type { AnyHandler, Call } from './call.ts'
import type { AnyApi, Api, ArgsOf, EventOf, ResultOf } from './contract.ts'
import type { ServiceHost } from './serving/service-host.ts'
import { ServiceSettings, type SettingsDeps } from './settings.ts'

/** Answers the calls of an event by its return value, or by its last argument. See {@link Call}. */
export type ServiceHandler<Args extends unknown[] = unknown[], Result = unknown> = (
  ...args: HandlerArgs<Args>
  // biome-ignore lint/suspicious/noConfusingVoidType: `(call) => call(null, result)` returns void
) => Result | PromiseLike<Result> | void

/** Without a contract, a handler may declare any parameters. */
type HandlerArgs<Args extends unknown[]> = unknown[] extends Args
  ? // biome-ignore lint/suspicious/noExplicitAny: the arguments of any event
    any[]
  : [...Args, call: Call]

/**
 * A service that this process serves.
 *
 * @example
 * const sums = await services.register<{ add(a: number, b: number): number }>('sums')
 * sums.on('add', (a, b) => a + b)
 */
export class Service<A extends Api<A> = AnyApi> extends ServiceSettings {
  readonly name: string
  readonly #host: ServiceHost

  /** @internal */
  constructor(host: ServiceHost, deps: SettingsDeps) {
    super(host.service, deps)
    this.name = host.service
    this.#host = host
  }

  /**
   * Adds the handler of an event. It is called with the arguments of the call and a {@link Call}; its return value, or the value
   * of its promise, is the result. A handler that declares a parameter beyond the arguments and returns undefined is expected to
   * call the {@link Call}. It runs in the async context of this call.
   * @throws DuplicateHandlerError if the event has a handler here; TypeError.
   */
  on<E extends EventOf<A>>(event: E, handler: ServiceHandler<ArgsOf<A, E>, ResultOf<A, E>>): this {
    checkWellFormedName('event', event)
    checkFunction('handler', handler)
    if (!this.#host.addHandler(event, { handler: handler as AnyHandler, context: new AsyncContext() }))
      throw new DuplicateHandlerError('The event has a handler in this process', { key: event })
    return this
  }

  /** Removes the handler of an event. Calls that run go on. */
  off(event: EventOf<A>): this {
    this.#host.removeHandler(event)
    return this
  }
}
