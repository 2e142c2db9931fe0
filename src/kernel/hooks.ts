import { EventEmitter } from 'node:events'
import { type Codec, messageOf } from './codec/codec.ts'
import { emit, warnOnce } from './telemetry.ts'
import { AsyncContext, microtask } from './time.ts'

/**
 * Calls a hook or listener of the user in `context`; undefined: in the present one. Returns undefined if the hook throws.
 * An error that a hook throws or rejects with ends neither the process nor the operation that called the hook. It is
 * emitted as `hook`, and as a process warning with the code E_HOOK, once for each of the first 100 different messages.
 */
export function callHook<Args extends unknown[], T>(
  context: AsyncContext | undefined,
  name: string,
  hook: (...args: Args) => T,
  ...args: Args
): T | undefined {
  try {
    const returned = context ? context.run(() => hook(...args)) : hook(...args)
    // An unhandled rejection would end the process.
    const { then } = (returned ?? {}) as { then?: unknown }
    if (typeof then === 'function')
      then.call(returned, undefined, (error: unknown) => reportHookError(name, error))
    return returned
  } catch (error) {
    reportHookError(name, error)
    return undefined
  }
}

/** Calls `onProgress` with the decoded progress of a work, in a microtask of its own. */
export function notifyProgress(
  codec: Codec,
  bytes: Buffer,
  context: AsyncContext | undefined,
  onProgress: (value: unknown) => void,
): void {
  try {
    const value = codec.decode(bytes)
    microtask(() => callHook(context, 'onProgress', onProgress, value))
  } catch {
    // Progress is best effort. A wrong codec shows in the outcome.
  }
}

/** Reports the error of a hook: see {@link callHook}. */
export function reportHookError(hook: string, error: unknown): void {
  emit('hook', { hook, error })
  warnOnce('E_HOOK', `\`${hook}\` failed: ${messageOf(error)}`, error)
}

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
