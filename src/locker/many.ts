import { setMaxListeners } from 'node:events'
import { AbortedError } from '../errors.ts'
import { checkFunction } from '../kernel/check.ts'
import { decodeWith } from '../kernel/codec.ts'
import { checkKey } from '../kernel/keys.ts'
import { type Core, type Namespace, nameOf } from './core.ts'
import { checkRunOptions, type RunManyOptions } from './options.ts'
import { type ManyWork, Round } from './round.ts'
import type { Outcome } from './store.ts'

/** One of the keys, and its result as soon as there is one to wait for. */
interface Item {
  key: string
  record: string
  name: string
  result: Promise<unknown> | undefined
}

/** Most keys of one call. */
const MAX_KEYS = 10_000

/**
 * Runs many keys at once. While most of them are found, they are read before they are claimed: a read costs the server
 * a tenth of a claim, and one that finds nothing a round trip.
 */
export class Many {
  readonly #core: Core
  readonly #namespace: Namespace
  #promising = false

  constructor(core: Core, namespace: Namespace) {
    this.#core = core
    this.#namespace = namespace
  }

  async run(keys: readonly string[], work: ManyWork<unknown>, options: RunManyOptions): Promise<unknown[]> {
    checkFunction('work', work)
    if (!Array.isArray(keys) || keys.length > MAX_KEYS) {
      throw new TypeError(`Expected \`keys\` to be an array of at most ${MAX_KEYS} strings`)
    }
    checkRunOptions(options)
    const { signal, leave } = followed(options.signal)
    try {
      const items = [...new Set(keys)].map((key) => this.#item(key, options))
      const since = this.#core.clock.now()
      const { timeout = this.#core.options.timeout } = options
      if (!options.refresh) await this.#read(items, timeout, signal)
      const left = Math.max(0, timeout - (this.#core.clock.now() - since))
      if (signal?.aborted) throw new AbortedError('The caller aborted its waiting', { cause: signal.reason })
      this.#claim(items, work, { ...options, signal, timeout: left })
      const results = new Map(items.map(({ key, result }) => [key, result]))
      return await Promise.all(keys.map((key) => results.get(key)))
    } finally {
      leave()
    }
  }

  #item(key: string, { refresh }: RunManyOptions): Item {
    checkKey(key)
    const name = nameOf(this.#namespace, key)
    const result = refresh ? undefined : this.#core.hit(name, key)?.promise
    return { key, name, record: this.#core.record(this.#namespace, key), result }
  }

  /** Reads what is kept, if it is worth it. What has tags, or cannot be read, is claimed. */
  async #read(items: readonly Item[], timeout: number, signal: AbortSignal | undefined): Promise<void> {
    const missing = items.filter(({ result }) => !result)
    if (!this.#promising || missing.length === 0) return
    const { flights, limits, clock } = this.#core
    const dropped = new Set<string>()
    const unlisten = flights.onStale({
      drop: (record) => dropped.add(record),
      dropTag() {},
      verify() {},
      unverify: () => {
        for (const { record } of missing) dropped.add(record)
      },
    })
    const cacheable = flights.store.subscribed
    const sentAt = clock.now()
    try {
      const records = missing.map(({ record }) => record)
      const reading = flights.store.findMany(records, { within: Math.min(limits.within, timeout) })
      const found = (await unlessAborted(reading, signal)) ?? []
      for (const [index, item] of missing.entries()) {
        const outcome = found[index]
        if (outcome) this.#serve(item, outcome, sentAt, cacheable && !dropped.has(item.record))
      }
    } catch {
      // The claims will tell.
    } finally {
      unlisten()
    }
  }

  #serve(item: Item, { bytes, fence, fresh }: Outcome, sentAt: number, cacheable: boolean): void {
    const { key, record, name } = item
    const { caller, cache } = this.#core
    const result = decodeWith(this.#namespace.codec, bytes, key)
    item.result = Promise.resolve(result)
    caller.counters.hits++
    const until = sentAt + fresh
    const times = { freshUntil: until, staleUntil: until }
    if (cacheable) cache?.set(name, { record, result, fence, tags: [], bytes: bytes.length, ...times })
  }

  /** Claims what was not found, all in one tick. */
  #claim(items: readonly Item[], work: ManyWork<unknown>, options: RunManyOptions): void {
    const { caller } = this.#core
    const missing = items.filter(({ result }) => !result)
    const { hits } = caller.counters
    const round = new Round(
      missing.map(({ key }) => key),
      work,
    )
    for (const item of missing) item.result = this.#join(item.key, round, options)
    void Promise.allSettled(missing.map(({ result }) => result)).then(() => {
      const found = caller.counters.hits - hits + items.length - missing.length
      this.#promising = 2 * found >= items.length
    })
  }

  #join(key: string, round: Round, options: RunManyOptions): Promise<unknown> {
    const call = { ...this.#core.call(this.#namespace, key, computedByItsRound, options), round }
    const hit = this.#core.cached(call)
    // What is over is renewed in the same round, and counts as answered when that is.
    if (hit && hit.freshUntil > this.#core.clock.now()) round.answered(key)
    if (hit) return hit.promise
    const result = this.#core.flights.join(call)
    const answered = () => round.answered(key)
    result.then(answered, answered)
    return result
  }
}

/** What a promise brings, or undefined as soon as the signal aborts: what is claimed then says so. */
function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T | undefined> {
  if (!signal) return promise
  return new Promise((resolve, reject) => {
    signal.addEventListener('abort', () => resolve(undefined), { once: true })
    promise.then(resolve, reject)
  })
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
