import { CodecError, LeaseLostError } from '../../errors.ts'
import { checkDuration, checkFields } from '../../kernel/options.ts'
import { emit } from '../../kernel/telemetry.ts'
import type { Slot } from '../../kernel/work/work-scheduler.ts'
import { runInScope, type WaitNode } from '../flight/deadlock.ts'
import type { Work, WorkContext } from '../flight/waiter.ts'
import type { HeldLease } from './held-lease.ts'

/** The flight of a work, as far as the work's end concerns it. */
export interface WorkFlight extends WaitNode {
  /** Nobody waits for it, and it is not to be renewed for those who come either. */
  readonly hasNoWaiters: boolean
  onPublishFailed(held: HeldLease, error: unknown, original: unknown): void
}

/** For so long nobody waits for anybody after a result that was not to be kept, unless told otherwise, ms. */
const DEFAULT_BYPASS = 10_000

/** What a work is given. */
export function contextOf(held: HeldLease): WorkContext {
  const { fence, shared } = held.grant
  return {
    key: held.call.key,
    get signal() {
      return held.signal
    },
    fence,
    shared,
    progress: (value) => held.progress(value),
    setTtl(ttl) {
      held.resultPolicy.ttl = checkDuration('ttl', ttl)
    },
    noStore(options = {}) {
      checkFields('options', options, ['bypassFor'])
      const { bypassFor = DEFAULT_BYPASS } = options
      held.resultPolicy.bypassFor = Math.ceil(checkDuration('bypassFor', bypassFor))
    },
  }
}

/** Runs a work as soon as its locker has a slot, and publishes what comes of it. */
export function performWork(work: Work<unknown>, held: HeldLease, flight: WorkFlight): void {
  held.call.locker.scheduler.schedule((slot) => {
    void perform(work, held, flight, slot).finally(() => slot.release())
  })
}

async function perform(work: Work<unknown>, held: HeldLease, flight: WorkFlight, slot: Slot): Promise<void> {
  if (!isWanted(held, flight)) return
  const startedAt = held.call.locker.clock.now()
  let failed = false
  let result: unknown
  try {
    result = await runInScope(held.call.context, { node: flight, slot }, () => work(contextOf(held)))
  } catch (error) {
    failed = true
    result = error
  }
  await conclude(held, flight, { failed, result, startedAt })
}

/** Whether a work is still to be run, after it has waited for its slot. */
export function isWanted(held: HeldLease, flight: WorkFlight): boolean {
  if (held.isEnding) return false
  // Lost while it waited: the flight has moved on.
  if (held.isLost) held.discard()
  // Nobody is left who waited while it did.
  else if (flight.hasNoWaiters) held.release().catch(() => {})
  else return true
  return false
}

/** Publishes what came of a work. */
export async function conclude(
  held: HeldLease,
  flight: WorkFlight,
  { failed, result, startedAt }: { failed: boolean; result: unknown; startedAt: number },
): Promise<void> {
  const { locker, key } = held.call
  locker.counters.works++
  if (failed) locker.counters.failures++
  emit('work', { key, fence: held.grant.fence, ms: locker.clock.now() - startedAt, failed })
  try {
    if (failed) await held.fail(result)
    else await held.publish(result)
  } catch (error) {
    // Lost: the waiters look for the successor. Not to be carried: they have that as the failure already.
    if (error instanceof LeaseLostError || error instanceof CodecError) return
    flight.onPublishFailed(held, error, failed ? result : undefined)
    await held.cancelAndRelease(
      new LeaseLostError('The outcome could not be published', { key, cause: error }),
    )
  }
}
