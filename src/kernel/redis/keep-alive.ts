import { type Clock, systemClock } from '../time/clock.ts'
import { setRepeatingTimer } from '../time/timers.ts'
import { rootContext } from '../work/user-code.ts'

/** The longest interval of a timer. Its callback does nothing. */
const INTERVAL_MS = 2 ** 31 - 1

let references = 0
let handle: NodeJS.Timeout | undefined

/**
 * Keeps the process alive until {@link unrefProcess} was called as often. Waiters and workers call it. Sockets do not
 * suffice: there is none while Redis is unreachable, and none in embedded mode. Has no effect with a simulated clock.
 */
export function refProcess(clock: Clock): void {
  if (clock !== systemClock) return
  references++
  if (references > 1) return
  handle ??= rootContext.run(() => setRepeatingTimer(() => {}, INTERVAL_MS))
  handle.ref()
}

/** Undoes one call of {@link refProcess} with the same clock. */
export function unrefProcess(clock: Clock): void {
  if (clock !== systemClock) return
  references--
  if (references === 0) handle?.unref()
}
