import { CodecError, LeaseLostError } from '../../errors.ts'
import { checkDuration, checkOptions, type OptionTable } from '../../kernel/options.ts'
import { emit } from '../../kernel/telemetry.ts'
import { type AsyncContext, runningWork } from '../../kernel/time.ts'
import type { RunningWork, Slot } from '../../kernel/work-scheduler.ts'
import type { WaitNode, Work, WorkContext } from '../work.ts'
import type { HeldLease } from './held-lease.ts'

/** How long callers run their own works after a result that was not stored, unless the work says otherwise, ms. */
const DEFAULT_BYPASS = 10_000

const NO_STORE_OPTIONS: OptionTable<{ bypassFor?: number | undefined }> = { bypassFor: [checkDuration] }

/** What a work came to. */
export interface WorkResult {
  failed: boolean
  /** The value, or what was thrown. */
  result: unknown
}

/** What a work is given. */
export function contextOf(held: HeldLease): WorkContext {
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
export function isWanted(held: HeldLease): boolean {
  if (held.isEnding) return false
  // The flight has gone on without it.
  if (held.isLost) held.discard()
  else if (held.isUnwanted) held.release().catch(() => {})
  else return true
  return false
}

/** Publishes the result of a work that began at `startedAt`. Never rejects. */
export async function conclude(
  held: HeldLease,
  { failed, result }: WorkResult,
  startedAt: number,
): Promise<void> {
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

// Deadlocks. A work may ask for other keys, and then waits for their flights. The flights and batches of this process, and
// for which others their works wait, form a graph; a caller that would close a cycle in it is rejected. The work that a
// caller belongs to is known by AsyncLocalStorage.

/** A work that runs. */
export interface WorkScope extends RunningWork {
  /** The flight or batch of the work. */
  readonly node: WaitNode
}

/** The work that the present code belongs to, if any. */
export function callingWork(): WorkScope | undefined {
  return runningWork.getStore() as WorkScope | undefined
}

/** Number of works that run. */
let running = 0

/**
 * Runs a work in its scope, and in the async context of its call. While no work runs, the AsyncLocalStorage is disabled: on
 * Node before 24 it makes every promise of the process cost twice as much.
 */
export async function runInScope<T>(
  context: AsyncContext,
  scope: WorkScope,
  work: () => T | PromiseLike<T>,
): Promise<T> {
  running++
  try {
    return await context.run(() => runningWork.run(scope, work))
  } finally {
    running--
    if (running === 0) runningWork.disable()
  }
}

/** Whether `target` waits for `caller`, directly or through others. */
export function wouldDeadlock(caller: WaitNode, target: WaitNode): boolean {
  const seen = new Set<WaitNode>()
  const pending = [target]
  for (let node = pending.pop(); node; node = pending.pop()) {
    if (node === caller) return true
    if (seen.has(node)) continue
    seen.add(node)
    for (const waitedFor of node.waitsFor?.keys() ?? []) pending.push(waitedFor)
  }
  return false
}

/** Adds that a work waits for `target`, and lends its slot. The returned function ends both. */
export function addWait({ node, slot }: WorkScope, target: WaitNode): () => void {
  node.waitsFor ??= new Map()
  const { waitsFor } = node
  waitsFor.set(target, (waitsFor.get(target) ?? 0) + 1)
  const resume = slot.lend()
  return () => {
    const left = (waitsFor.get(target) ?? 1) - 1
    if (left === 0) waitsFor.delete(target)
    else waitsFor.set(target, left)
    resume()
  }
}
