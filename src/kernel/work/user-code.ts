import { AsyncLocalStorage, AsyncResource } from 'node:async_hooks'
import { type Codec, messageOf } from '../codec/codec.ts'
import { emit } from '../telemetry.ts'
import { microtask } from '../time/timers.ts'
import { warnOnce } from '../warnings.ts'

/**
 * The work that is running, as its layer describes it. No part of an AsyncContext: handlers and hooks do not belong to
 * the work that registered them.
 */
export const runningWork: AsyncLocalStorage<object | undefined> = new AsyncLocalStorage()

/** Runs a function as if no work called it: nobody waits for what it begins. */
export function outsideWork<T>(run: () => T): T {
  return runningWork.run(undefined, run)
}

/**
 * The async context of a call: the stores of all AsyncLocalStorages of the moment in which it is made. User code runs in
 * the context of the call that began or registered it. It keeps these stores alive, so only what belongs to that call
 * may hold it.
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
 * The context of no call: that in which the package was loaded. Whatever outlives a call (connections, timers, batches,
 * schedulers) is begun in it. Otherwise it would keep the stores of the first call alive, and leak them into others.
 */
export const rootContext: AsyncContext = new AsyncContext()

/**
 * Calls a hook or listener of the user in its context; undefined: that of whoever calls. Returns undefined when it throws.
 * Nobody waits for a hook: what it throws or rejects with is published on the channel `soloflight:hook`, and each
 * different failure, of the first hundred, is told once by `process.emitWarning` with the code E_HOOK. It ends neither the
 * process nor the operation that called the hook.
 */
export function callHook<Args extends unknown[], T>(
  context: AsyncContext | undefined,
  name: string,
  hook: (...args: Args) => T,
  ...args: Args
): T | undefined {
  try {
    const returned = context ? context.run(() => hook(...args)) : hook(...args)
    // A promise that rejects would end the process.
    const { then } = (returned ?? {}) as { then?: unknown }
    if (typeof then === 'function')
      then.call(returned, undefined, (error: unknown) => reportHookError(name, error))
    return returned
  } catch (error) {
    reportHookError(name, error)
    return undefined
  }
}

/** Calls `onProgress` with the progress of a work, in a microtask of its own. */
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
    // Progress that cannot be decoded is not shown: the outcome will tell if something is wrong.
  }
}

/** Reports what a hook threw: see {@link callHook}. */
export function reportHookError(hook: string, error: unknown): void {
  emit('hook', { hook, error })
  warnOnce('E_HOOK', `\`${hook}\` failed: ${messageOf(error)}`, error)
}
