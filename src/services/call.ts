/**
 * The last argument of a handler: the callback of the call, and the data of the call. As a callback: `call(error)` fails the
 * call; `call(null, result)` ends it with a result, `call(null, a, b)` with `[a, b]`. The first of the callback and the handler's
 * own return counts.
 */
export interface Call {
  (error: unknown, ...results: unknown[]): void
  /** The same in all tries of the call. */
  readonly id: string
  /** 1 for the first try; above it for further ones of `pemit`, also after tries for which all processes were full. */
  readonly attempt: number
  /** Id of the Services object that calls. */
  readonly from: string
  /** Aborts when the result is no longer wanted: the deadline has passed, the caller has aborted, this process closes. */
  readonly signal: AbortSignal
  /** Trace context (W3C traceparent) of the caller. */
  readonly trace: string | undefined
  /** ms until the deadline; Infinity without one. */
  left(): number
  /**
   * Sends a value to the caller's `onProgress`. Best effort: one value per 50 ms is sent, the latest.
   * @throws CodecError if the value cannot be encoded, or is too large.
   */
  progress(value: unknown): void
}

// biome-ignore lint/suspicious/noExplicitAny: handlers of any service
export type AnyHandler = (...args: any[]) => unknown

/** What an incoming call offers to its {@link Call}. */
export interface CallSource extends Pick<Call, 'id' | 'attempt' | 'from' | 'trace' | 'left' | 'progress'> {
  readonly signal: AbortSignal
}

/**
 * Calls a handler with the arguments and a {@link Call}, which is the last that it declares, or comes after the arguments if
 * there are more. Resolves with its result: what it returns, if that is a promise or
 * not undefined; what it passes to the callback, if it declares a parameter beyond the arguments; else undefined.
 */
export function runHandler(
  handler: AnyHandler,
  args: readonly unknown[],
  source: CallSource,
): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const callback = (error: unknown, ...results: unknown[]): void => {
      if (error !== null && error !== undefined) reject(error)
      else resolve(results.length > 1 ? results : results[0])
    }
    const missing = Math.max(0, handler.length - 1 - args.length)
    const returned = handler(...args, ...Array(missing), callOf(callback, source))
    if (returned !== undefined) resolve(returned)
    else if (handler.length <= args.length) resolve(undefined)
  })
}

const SOURCE = Symbol('source')

/** Inherited by every {@link Call}: an accessor that each defined for itself would cost more than all the rest of it. */
const CALL_PROTOTYPE: object = Object.create(Function.prototype, {
  signal: {
    // It is created when it is first read.
    get(this: { [SOURCE]: CallSource }) {
      return this[SOURCE].signal
    },
    enumerable: true,
  },
})

function callOf(callback: (error: unknown, ...results: unknown[]) => void, source: CallSource): Call {
  const { id, attempt, from, trace } = source
  const call = Object.assign(callback, {
    [SOURCE]: source,
    id,
    attempt,
    from,
    trace,
    left: () => source.left(),
    progress: (value: unknown) => source.progress(value),
  })
  return Object.setPrototypeOf(call, CALL_PROTOTYPE)
}
