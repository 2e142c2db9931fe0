import { CodecError, LeaseLostError } from '../../errors.ts'
import { checkDuration, checkFields } from '../../kernel/options.ts'
import { emit } from '../../kernel/telemetry.ts'
import type { Slot } from '../../kernel/work/work-scheduler.ts'
import { asWork, type WaitNode } from '../flight/deadlock.ts'
import type { Work, WorkContext } from '../flight/waiter.ts'
import type { Holding } from './held-lease.ts'

/** The flight of a work, as far as the work's end concerns it. */
export interface WorkFlight extends WaitNode {
  /** Nobody waits for it, and it is not to be renewed for those who come either. */
  readonly deserted: boolean
  abandon(holding: Holding, error: unknown, original: unknown): void
}

/** For so long nobody waits for anybody after a result that was not to be kept, unless told otherwise, ms. */
const PASS_FOR = 10_000

/** What a work is given. */
export function contextOf(holding: Holding): WorkContext {
  const { fence, shared } = holding.grant
  return {
    key: holding.call.key,
    get signal() {
      return holding.signal
    },
    fence,
    shared,
    progress: (value) => holding.progress(value),
    setTtl(ttl) {
      holding.terms.ttl = checkDuration('ttl', ttl)
    },
    noStore(options = {}) {
      checkFields('options', options, ['bypassFor'])
      const { bypassFor = PASS_FOR } = options
      holding.terms.bypassFor = Math.ceil(checkDuration('bypassFor', bypassFor))
    },
  }
}

/** Runs a work as soon as its locker has a slot, and publishes what comes of it. */
export function performWork(work: Work<unknown>, holding: Holding, flight: WorkFlight): void {
  holding.call.caller.scheduler.schedule((slot) => {
    void perform(work, holding, flight, slot).finally(() => slot.release())
  })
}

async function perform(work: Work<unknown>, holding: Holding, flight: WorkFlight, slot: Slot): Promise<void> {
  if (!isWanted(holding, flight)) return
  const startedAt = holding.call.caller.clock.now()
  let failed = false
  let result: unknown
  try {
    result = await asWork(holding.call.context, { node: flight, slot }, () => work(contextOf(holding)))
  } catch (error) {
    failed = true
    result = error
  }
  await conclude(holding, flight, { failed, result, startedAt })
}

/** Whether a work is still to be run, after it has waited for its slot. */
export function isWanted(holding: Holding, flight: WorkFlight): boolean {
  if (holding.settledOrSettling) return false
  // Lost while it waited: the flight has moved on.
  if (holding.lost) holding.forsake()
  // Nobody is left who waited while it did.
  else if (flight.deserted) holding.release().catch(() => {})
  else return true
  return false
}

/** Publishes what came of a work. */
export async function conclude(
  holding: Holding,
  flight: WorkFlight,
  { failed, result, startedAt }: { failed: boolean; result: unknown; startedAt: number },
): Promise<void> {
  const { caller, key } = holding.call
  caller.counters.works++
  if (failed) caller.counters.failures++
  emit('work', { key, fence: holding.grant.fence, ms: caller.clock.now() - startedAt, failed })
  try {
    if (failed) await holding.fail(result)
    else await holding.publish(result)
  } catch (error) {
    // Lost: the waiters look for the successor. Not to be carried: they have that as the failure already.
    if (error instanceof LeaseLostError || error instanceof CodecError) return
    flight.abandon(holding, error, failed ? result : undefined)
    await holding.handOver(new LeaseLostError('The outcome could not be published', { key, cause: error }))
  }
}
