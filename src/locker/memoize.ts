import { checkFunction } from '../kernel/check.ts'
import { checkVersion, type MemoizeOptions, type RunOptions, runOptionsOf } from './options.ts'
import type { Work } from './waiter.ts'

/** A function that does its work once per key. */
export interface Memoized<Args extends unknown[], Result> {
  (...args: Args): Promise<Result>
  /** Forgets the result for these arguments, everywhere. Rejects as `Locker.invalidate` does. */
  invalidate(...args: Args): Promise<void>
  /** Computes the result for these arguments anew. */
  refresh(...args: Args): Promise<Result>
}

/** What a memoized function needs of its locker. `version`: of the shape of its results, '' for none. */
export interface MemoizeHost {
  run(key: string, version: string, work: Work<unknown>, options: RunOptions | undefined): Promise<unknown>
  invalidate(key: string, version: string): Promise<void>
}

/** Puts a function behind a locker. */
export function memoize<Args extends unknown[], Result>(
  fn: (this: unknown, ...args: Args) => Result | PromiseLike<Result>,
  options: MemoizeOptions<Args>,
  host: MemoizeHost,
): Memoized<Args, Result> {
  checkFunction('fn', fn)
  checkFunction('key', options?.key)
  const { key, version: given, tags, ...rest } = options
  const version = checkVersion(given)
  const fixed = runOptionsOf(typeof tags === 'function' ? rest : { ...rest, tags })
  const tagsOf = typeof tags === 'function' ? tags : undefined
  const call = (self: unknown, args: Args, refresh: boolean) => {
    const more = { ...(tagsOf && { tags: tagsOf(...args) }), ...(refresh && { refresh }) }
    const chosen = tagsOf || refresh ? { ...fixed, ...more } : fixed
    return host.run(key(...args), version, () => fn.apply(self, args), chosen) as Promise<Result>
  }
  function memoized(this: unknown, ...args: Args): Promise<Result> {
    try {
      return call(this, args, false)
    } catch (error) {
      return Promise.reject(error)
    }
  }
  return Object.assign(memoized, {
    async invalidate(...args: Args): Promise<void> {
      await host.invalidate(key(...args), version)
    },
    async refresh(this: unknown, ...args: Args): Promise<Result> {
      return await call(undefined, args, true)
    },
  })
}
