import { types } from 'node:util'
import { LeaseLostError } from '../../errors.ts'
import { AsyncContext } from '../../kernel/time.ts'
import type { Slot } from '../../kernel/work-scheduler.ts'
import type { WaitNode, WorkContext } from '../work.ts'
import type { HeldLease } from './held-lease.ts'
import { conclude, contextOf, isWanted, runInScope, type WorkResult } from './work-runner.ts'

/** What the work of a `runMany` is given. */
export interface ManyContext {
  /** Aborts when all leases are lost, or at the end of `close`. */
  readonly signal: AbortSignal
  /** What a work of one of the keys alone would be given. */
  of(key: string): WorkContext
}

/**
 * Computes results for keys: an array in the same order, or a Map; promises among them are awaited. An Error among them,
 * or a promise that rejects, is the failure of its key.
 */
export type ManyWork<T> = (
  keys: string[],
  context: ManyContext,
) => ManyResults<T> | PromiseLike<ManyResults<T>>

export type ManyResults<T> =
  | readonly (T | Error | PromiseLike<T>)[]
  | ReadonlyMap<string, T | Error | PromiseLike<T>>

/** Later grants are collected for this time before the work runs, ms. */
const TAKEOVER_WINDOW = 5

/**
 * The keys of one `runMany` that are claimed together: when all claims are answered, the work is called once with those
 * that were granted. Grants that come later, by a takeover, are another batch.
 */
export class BatchRun implements WaitNode {
  waitsFor: Map<WaitNode, number> | undefined
  /** Keys whose claims are not answered. */
  readonly #pending: Set<string>
  readonly #work: ManyWork<unknown>
  #granted: HeldLease[] = []
  #collecting = true
  #context: AsyncContext | undefined

  constructor(keys: Iterable<string>, work: ManyWork<unknown>) {
    this.#pending = new Set(keys)
    this.#work = work
  }

  /** The async context of the work. Created on first access. */
  get context(): AsyncContext {
    this.#context ??= new AsyncContext()
    return this.#context
  }

  /** The claim of a key was answered: granted, parked, joined or served. */
  onClaimAnswered(key: string): void {
    if (this.#pending.delete(key) && this.#pending.size === 0) this.#start()
  }

  onGranted(held: HeldLease): void {
    this.#granted.push(held)
    if (this.#collecting) this.onClaimAnswered(held.call.key)
    else if (this.#granted.length === 1) held.call.locker.clock.after(TAKEOVER_WINDOW, () => this.#start())
  }

  #start(): void {
    this.#collecting = false
    const granted = this.#granted
    this.#granted = []
    const [first] = granted
    first?.call.locker.scheduler.schedule((slot) => {
      void this.#perform(granted, slot).finally(() => slot.release())
    })
  }

  async #perform(granted: readonly HeldLease[], slot: Slot): Promise<void> {
    const leases = granted.filter(isWanted)
    const [first] = leases
    if (!first) return
    const startedAt = first.call.locker.clock.now()
    for (const { node } of leases) node.waitsFor = new Map([[this, 1]])
    const keys = leases.map(({ call }) => call.key)
    const results = await runInScope(this.context, { node: this, slot }, async () =>
      readResults(await this.#work([...keys], contextOfMany(leases)), keys),
    ).catch((error: unknown) => keys.map(() => ({ failed: true, result: error })))
    await Promise.all(
      leases.map((held, index) => {
        held.node.waitsFor = undefined
        return conclude(held, results[index] as WorkResult, startedAt)
      }),
    )
  }
}

async function readResults(results: ManyResults<unknown>, keys: readonly string[]): Promise<WorkResult[]> {
  const listed = results instanceof Map ? keys.map((key) => results.get(key)) : results
  if (!Array.isArray(listed) || listed.length !== keys.length) {
    throw new TypeError(
      `Expected the work to return ${keys.length} results in the order of its keys, or a Map`,
    )
  }
  const settled = await Promise.allSettled(listed)
  return settled.map((each, index) => {
    if (each.status === 'rejected') return { failed: true, result: each.reason as unknown }
    const missing = results instanceof Map && !results.has(keys[index])
    const result = missing ? new Error('The work returned no result for the key') : (each.value as unknown)
    // Errors of Node itself are of another realm under Jest.
    return { failed: result instanceof Error || types.isNativeError(result), result }
  })
}

function contextOfMany(leases: readonly HeldLease[]): ManyContext {
  const contexts = new Map(leases.map((held) => [held.call.key, contextOf(held)]))
  const abort = new AbortController()
  let left = leases.length
  for (const { signal } of leases) {
    signal.addEventListener('abort', () => {
      if (--left === 0) abort.abort(signal.reason)
    })
  }
  return {
    signal: abort.signal,
    of(key) {
      const context = contexts.get(key)
      if (!context) throw new LeaseLostError('The key is not among those of this work', { key })
      return context
    },
  }
}
