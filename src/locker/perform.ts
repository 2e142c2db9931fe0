import { CodecError, LeaseLostError } from '../errors.ts'
import { tell } from '../kernel/telemetry.ts'
import { asWork, type WaitNode } from './deadlock.ts'
import type { Holding } from './holding.ts'
import type { Slot } from './slots.ts'
import type { Work, WorkContext } from './waiter.ts'

/** The flight of a work, as far as the work's end concerns it. */
export interface WorkFlight extends WaitNode {
  readonly audience: { readonly size: number }
  abandon(holding: Holding, error: unknown, original: unknown): void
}

function contextOf(holding: Holding): WorkContext {
  const { fence, shared } = holding.grant
  return {
    key: holding.call.key,
    signal: holding.signal,
    fence,
    shared,
    progress: (value) => holding.progress(value),
  }
}

/** Runs a work as soon as its locker has a slot, and publishes what comes of it. */
export function performWork(work: Work<unknown>, holding: Holding, flight: WorkFlight): void {
  holding.call.caller.slots.take((slot) => {
    void perform(work, holding, flight, slot).finally(() => slot.give())
  })
}

async function perform(work: Work<unknown>, holding: Holding, flight: WorkFlight, slot: Slot): Promise<void> {
  if (holding.ended) return
  // Lost while it waited for its slot: the flight has moved on.
  if (holding.lost) return holding.forsake()
  // Nobody is left who waited while it did.
  if (flight.audience.size === 0) return holding.release().catch(() => {})
  const { caller, key } = holding.call
  const { fence } = holding.grant
  const startedAt = caller.clock.now()
  let failed = false
  let result: unknown
  try {
    result = await asWork({ node: flight, slot, waits: 0 }, () => work(contextOf(holding)))
  } catch (error) {
    failed = true
    result = error
  }
  caller.counters.works++
  if (failed) caller.counters.failures++
  tell('work', { key, fence, ms: caller.clock.now() - startedAt, failed })
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
