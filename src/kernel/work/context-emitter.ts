import { EventEmitter } from 'node:events'
import { AsyncContext, callHook } from './user-code.ts'

type Listener = (...args: unknown[]) => unknown

class Emitter extends EventEmitter {
  override on(event: string | symbol, listener: Listener): this {
    return super.on(event, hookOf(event, listener))
  }

  override addListener(event: string | symbol, listener: Listener): this {
    return this.on(event, listener)
  }

  override prependListener(event: string | symbol, listener: Listener): this {
    return super.prependListener(event, hookOf(event, listener))
  }

  override once(event: string | symbol, listener: Listener): this {
    return super.on(event, hookOf(event, listener, this))
  }

  override prependOnceListener(event: string | symbol, listener: Listener): this {
    return super.prependListener(event, hookOf(event, listener, this))
  }
}

/**
 * Wraps a listener as Node's `once` does, so that `off` and `listeners` find it. `once`: the emitter that it is removed from
 * before it is called.
 */
function hookOf(event: string | symbol, listener: Listener, once?: EventEmitter): Listener {
  // Node refuses it.
  if (typeof listener !== 'function') return listener
  const context = new AsyncContext()
  function hook(this: unknown, ...args: unknown[]): void {
    once?.removeListener(event, hook)
    callHook(context, `on('${String(event)}')`, () => listener.apply(this, args))
  }
  return Object.assign(hook, { listener })
}

/** An EventEmitter whose listeners are hooks: each runs in the context in which it was added. See {@link callHook}. */
export const ContextEmitter = Emitter as unknown as new <
  Events extends Record<keyof Events, unknown[]>,
>() => EventEmitter<Events>
