import { AsyncLocalStorage, AsyncResource } from 'node:async_hooks'
import { type Codec, messageOf } from '../codec/codec.ts'
import { emit } from '../telemetry.ts'
import { microtask } from '../time/timers.ts'
import { warnOnce } from '../warnings.ts'

/**
 * The work that is running, as its layer describes it. An {@link AsyncContext} leaves it out: handlers and hooks are not
 * part of the work that registered them.
 */
export const runningWork: AsyncLocalStorage<object | undefined> = new AsyncLocalStorage()

/** Runs a function outside of the running work: that work does not wait for what the function starts. */
export function outsideWork<T>(run: () => T): T {
  return runningWork.run(undefined, run)
}

/**
 * The async context in which it is created: the stores of all AsyncLocalStorages. User code runs in the context of the call
 * that started or registered it. It keeps these stores alive, so only objects of that call may refer to it.
 */
export class AsyncContext {
  readonly #resource: AsyncResource = outsideWork(
    () => new AsyncResource('soloflight', { requireManualDestroy: true }),
  )

  run<T>(run: () => T): T {
    return this.#resource.runInAsyncScope(run)
  }
}

/**
 * The context in which the package was loaded. Everything that outlives a call (connections, timers, batches, schedulers)
 * starts in it. Otherwise it would keep the stores of the first call alive, and other calls would see them.
 */
export const rootContext: AsyncContext = new AsyncContext()

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
