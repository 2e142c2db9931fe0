import { CodecError, LeaseLostError } from '../errors.ts'
import { tell } from '../kernel/telemetry.ts'
import { asWorkOf, type WaitNode } from './deadlock.ts'
import type { Holding } from './holding.ts'
import type { Work, WorkContext } from './waiter.ts'

/** The flight of a work, as far as the work's end concerns it. */
export interface WorkFlight extends WaitNode {
  abandon(holding: Holding, error: unknown): void
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

/**
 * Runs a work as soon as its locker has a slot, and publishes what comes of it. Returns what makes it run without one.
 */
export function performWork(work: Work<unknown>, holding: Holding, flight: WorkFlight): () => void {
  const { slots } = holding.call.caller
  return slots.take(() => {
    void perform(work, holding, flight).finally(() => slots.give())
  })
}

async function perform(work: Work<unknown>, holding: Holding, flight: WorkFlight): Promise<void> {
  // Lost, or closed, while it waited for its slot: another has the grant by now.
  if (holding.lost || holding.ended) return
  const { caller, key } = holding.call
  const { fence } = holding.grant
  const startedAt = caller.clock.now()
  let failed = false
  let result: unknown
  try {
    result = await asWorkOf(flight, () => work(contextOf(holding)))
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
    flight.abandon(holding, error)
    await holding.handOver(new LeaseLostError('The outcome could not be published', { key, cause: error }))
  }
}
