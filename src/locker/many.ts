import { setMaxListeners } from 'node:events'
import { AbortedError } from '../errors.ts'
import { checkFunction } from '../kernel/check.ts'
import { checkKey } from '../kernel/keys.ts'
import type { Core, Namespace } from './core.ts'
import { checkRunOptions, type RunManyOptions } from './options.ts'
import { type ManyWork, Round } from './round.ts'

/** Most keys of one call. */
const MAX_KEYS = 10_000

/** Runs many keys at once: what nobody has is claimed together, and computed by one call of the work. */
export async function runMany(
  core: Core,
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
  checkRunOptions(options)
  const { signal, leave } = followed(options.signal)
  try {
    const results = new Map<string, Promise<unknown> | undefined>()
    for (const key of keys) results.set(key, core.hit(namespace, key, options)?.promise)
    const missing = [...results.keys()].filter((key) => !results.get(key))
    const round = new Round(missing, work)
    for (const key of missing) results.set(key, join(core, namespace, key, round, { ...options, signal }))
    return await Promise.all(keys.map((key) => results.get(key)))
  } finally {
    leave()
  }
}

function join(
  core: Core,
  namespace: Namespace,
  key: string,
  round: Round,
  options: RunManyOptions,
): Promise<unknown> {
  const call = core.call(namespace, key, computedByItsRound, options)
  call.round = round
  // A stale result is renewed in the same round; its key counts as answered when that is done.
  const stale = core.stale(call)
  if (stale) return stale.promise
  const result = core.flights.join(call)
  const answered = () => round.answered(key)
  result.then(answered, answered)
  return result
}

function computedByItsRound(): never {
  throw new Error('A key of a round is computed with the others')
}

/** A signal of our own that follows another: every key listens to it, and the other is listened to once. */
function followed(signal: AbortSignal | undefined): { signal: AbortSignal | undefined; leave: () => void } {
  if (!signal) return { signal: undefined, leave() {} }
  if (signal.aborted) throw new AbortedError('The caller aborted before it asked', { cause: signal.reason })
  const own = new AbortController()
  setMaxListeners(0, own.signal)
  const abort = () => own.abort(signal.reason)
  signal.addEventListener('abort', abort, { once: true })
  return { signal: own.signal, leave: () => signal.removeEventListener('abort', abort) }
}
