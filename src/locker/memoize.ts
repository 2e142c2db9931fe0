import { checkFunction, checkOptions } from '../kernel/options.ts'
import type { Work } from './call.ts'
import { checkVersion, type MemoizeOptions, RUN_OPTIONS, type RunOptions } from './options.ts'

/** A function that runs once per key, however many processes call it. It rejects as `Locker.run` does. */
export interface Memoized<Args extends unknown[], Result> {
  (...args: Args): Promise<Result>
  /** Removes the result for these arguments, in every process. Rejects as `Locker.invalidate` does. */
  invalidate(...args: Args): Promise<void>
  /** Computes the result for these arguments again, whatever is stored. */
  refresh(...args: Args): Promise<Result>
}

/** The part of a locker that holds the results of a memoized function. */
export interface MemoizeHost {
  run(key: string, work: Work<unknown>, options: RunOptions): Promise<unknown>
  invalidate(key: string): Promise<void>
}

/** See `Locker.memoize`. `hostOf`: returns where the results of a version are kept; '' is none. */
export function memoize<Args extends unknown[], Result>(
  fn: (this: unknown, ...args: Args) => Result | PromiseLike<Result>,
  options: MemoizeOptions<Args>,
  hostOf: (version: string) => MemoizeHost,
): Memoized<Args, Result> {
  checkFunction('fn', fn)
  checkFunction('key', options?.key)
  const { key, version, tags, ...fixed } = options
  const tagsOf = typeof tags === 'function' ? tags : undefined
  const plain: RunOptions = typeof tags === 'function' ? fixed : { ...fixed, tags }
  checkOptions(plain, RUN_OPTIONS)
  const host = hostOf(checkVersion(version))
  const call = (self: unknown, args: Args, chosen: RunOptions): Promise<Result> => {
    const own = tagsOf ? { ...chosen, tags: tagsOf(...args) } : chosen
    return host.run(key(...args), () => fn.apply(self, args), own) as Promise<Result>
  }
  function memoized(this: unknown, ...args: Args): Promise<Result> {
    try {
      return call(this, args, plain)
    } catch (error) {
      return Promise.reject(error)
    }
  }
  return Object.assign(memoized, {
    async invalidate(...args: Args): Promise<void> {
      await host.invalidate(key(...args))
    },
    async refresh(...args: Args): Promise<Result> {
      return await call(undefined, args, { ...plain, refresh: true })
    },
  })
}
