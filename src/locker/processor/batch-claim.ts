import { checkKey } from '../../kernel/keys.ts'
import { checkFunction, checkOptions } from '../../kernel/options.ts'
import type { Namespace } from '../call.ts'
import { RUN_OPTIONS, type RunManyOptions } from '../options.ts'
import type { LockerRuntime } from '../runtime.ts'
import { BatchRun, type ManyWork } from './batch-run.ts'

/** Most keys of one call. */
const MAX_KEYS = 10_000

/** Runs many keys at once: what nobody has is claimed together, and computed by one call of the work. */
export async function runMany(
  runtime: LockerRuntime,
  namespace: Namespace,
  keys: readonly string[],
  work: ManyWork<unknown>,
  options: RunManyOptions,
): Promise<unknown[]> {
  checkFunction('work', work)
  if (!Array.isArray(keys) || keys.length > MAX_KEYS) {
    throw new TypeError(`Expected \`keys\` to be an array of at most ${MAX_KEYS} strings`)
  }
  for (const key of keys) checkKey(key)
  checkOptions(options, RUN_OPTIONS)
  const results = new Map<string, Promise<unknown> | undefined>()
  for (const key of keys) results.set(key, runtime.cachedFresh(namespace, key, options)?.promise)
  const missing = [...results.keys()].filter((key) => !results.get(key))
  const batch = new BatchRun(missing, work)
  for (const key of missing) results.set(key, join(runtime, namespace, key, batch, options))
  return await Promise.all(keys.map((key) => results.get(key)))
}

function join(
  runtime: LockerRuntime,
  namespace: Namespace,
  key: string,
  batch: BatchRun,
  options: RunManyOptions,
): Promise<unknown> {
  const call = runtime.createCall(namespace, key, computedByItsBatch, options)
  // A stale result is revalidated in the same batch; its key counts as answered when that is done.
  const stale = runtime.serveStale(call, batch)
  if (stale) return stale.promise
  const result = runtime.flights.join(call, batch)
  const answered = () => batch.onClaimAnswered(key)
  result.then(answered, answered)
  return result
}

function computedByItsBatch(): never {
  throw new Error('A key of a batch is computed with the others')
}
