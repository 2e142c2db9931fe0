import { types } from 'node:util'
import { CodecError, LeaseLostError } from '../../errors.ts'
import { checkDuration, checkOptions, type OptionTable } from '../../kernel/options.ts'
import { emit, warnOnce } from '../../kernel/telemetry.ts'
import { AsyncContext, lossMargin } from '../../kernel/time.ts'
import { runInScope, type Slot, type WaitNode } from '../../kernel/work-scheduler.ts'
import type { Call, Work, WorkContext } from '../call.ts'
import { track } from '../locker-context.ts'
import type { Outcome } from '../store/store.ts'
import type { HeldLease } from './held-lease.ts'

/** How long callers run their own works after a result that was not stored, unless the work says otherwise, ms. */
const DEFAULT_BYPASS = 10_000

const NO_STORE_OPTIONS: OptionTable<{ bypassFor?: number | undefined }> = { bypassFor: [checkDuration] }

interface WorkResult {
  failed: boolean
  /** The value, or what was thrown. */
  result: unknown
}

function contextOf(held: HeldLease): WorkContext {
  return {
    key: held.call.key,
    get signal() {
      return held.signal
    },
    fence: held.grant.fence,
    shared: held.shared,
    progress: (value) => held.progress(value),
    setTtl(ttl) {
      checkDuration('ttl', ttl)
      held.resultPolicy.ttl = ttl
    },
    noStore(options = {}) {
      checkOptions(options, NO_STORE_OPTIONS)
      const { bypassFor = DEFAULT_BYPASS } = options
      held.resultPolicy.bypassFor = Math.ceil(bypassFor)
    },
  }
}

/** Whether no work can begin under the lease of a call, as it was granted so long after its claim was sent. */
export function isGrantedTooLate({ lease, locker }: Call, sentAt: number): boolean {
  if (locker.clock.now() < sentAt + lease - lossMargin(lease)) return false
  const message = `Redis took longer to grant a lease of ${lease} ms than it lasts: no work can begin under it`
  warnOnce('SOLOFLIGHT_LEASE_TOO_SHORT', message)
  return true
}

/** Runs a work as soon as its locker has a slot, and publishes its result. */
export function performWork(work: Work<unknown>, held: HeldLease): void {
  held.call.locker.scheduler.schedule((slot) => {
    void perform(work, held, slot).finally(() => slot.release())
  })
}

async function perform(work: Work<unknown>, held: HeldLease, slot: Slot): Promise<void> {
  if (!isWanted(held)) return
  const startedAt = held.call.locker.clock.now()
  let failed = false
  let result: unknown
  try {
    result = await runInScope(held.call.context, { node: held.node, slot }, () => work(contextOf(held)))
  } catch (error) {
    failed = true
    result = error
  }
  await conclude(held, { failed, result }, startedAt)
}

/** Whether a work must still run, after it has waited for its slot. If not, its lease is ended. */
function isWanted(held: HeldLease): boolean {
  if (held.isEnding) return false
  // The flight has gone on without it.
  if (held.isLost) held.discard()
  else if (held.isUnwanted) held.release().catch(() => {})
  else return true
  return false
}

/** Publishes the result of a work that began at `startedAt`. Never rejects. */
async function conclude(held: HeldLease, { failed, result }: WorkResult, startedAt: number): Promise<void> {
  const { locker, key } = held.call
  locker.counters.works++
  if (failed) locker.counters.failures++
  emit('work', { key, fence: held.grant.fence, ms: locker.clock.now() - startedAt, failed })
  try {
    if (failed) await held.fail(result)
    else await held.publish(result)
  } catch (error) {
    // Lost: the waiters look for the next processor. Refused by the codec: the waiters have received that as the failure.
    if (error instanceof LeaseLostError || error instanceof CodecError) return
    await held.giveUp(error, failed ? result : undefined)
  }
}

/**
 * Stores the result of a work that ran in a bypass, which ends the bypass. An error, a result with tags, and a result that the
 * work declared unstorable are not stored. `lastFence`: the last fence when the work began; nothing is stored if anything was
 * granted or invalidated since. Best effort.
 */
export function storeBypassed({ call, resultPolicy }: HeldLease, outcome: Outcome, lastFence: number): void {
  if (outcome.kind === 'error' || resultPolicy.bypassFor !== undefined || call.tags.length > 0) return
  const retention = { ttl: resultPolicy.ttl ?? call.ttl, keepStale: call.keepStale, tags: '' }
  track(call.locker, call.storeUnclaimed(outcome.bytes, retention, lastFence))
}

/** The context of a work of `runMany`. */
export interface ManyContext {
  /** Aborts when all leases are lost, or at the end of `close`. */
  readonly signal: AbortSignal
  /** The context of the work of this key alone. @throws LeaseLostError when the key is not one of this work */
  of(key: string): WorkContext
}

/**
 * Computes the results of keys. Returns an array in the order of `keys`, or a Map; promises among the results are awaited.
 * An Error among the results, or a promise that rejects, is the failure of its key.
 */
export type ManyWork<T> = (
  keys: string[],
  context: ManyContext,
) => ManyResults<T> | PromiseLike<ManyResults<T>>

/** The results of a work of `runMany`: by position, or by key. */
export type ManyResults<T> =
  | readonly (T | Error | PromiseLike<T>)[]
  | ReadonlyMap<string, T | Error | PromiseLike<T>>

/** Grants that come after the work was first called are gathered for this long, ms. */
const TAKEOVER_WINDOW = 5

/**
 * The keys of one `runMany` that are claimed together.
 *
 * | state | all claims are answered | a key is granted |
 * | --- | --- | --- |
 * | claiming | calls the work with the keys that were granted: started | |
 * | started | | a takeover: gathers for a while, then calls the work once more |
 */
export class BatchRun implements WaitNode {
  waitsFor: Map<WaitNode, number> | undefined
  #state: 'claiming' | 'started' = 'claiming'
  /** Keys whose claims are under way. */
  readonly #pending: Set<string>
  readonly #work: ManyWork<unknown>
  /** Leases for which the work was not called yet. */
  #granted: HeldLease[] = []
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
    if (this.#state === 'claiming') this.onClaimAnswered(held.call.key)
    else if (this.#granted.length === 1) held.call.locker.clock.after(TAKEOVER_WINDOW, () => this.#start())
  }

  #start(): void {
    this.#state = 'started'
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

/** What the work came to for each key. @throws TypeError when there is not one result for each */
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
