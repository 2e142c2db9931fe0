import { type Clock, systemClock } from '../time/clock.ts'
import { setRepeatingTimer } from '../time/timers.ts'
import { rootContext } from '../work/user-code.ts'

/** The longest interval of a timer, ms. Nothing happens when it fires. */
const INTERVAL_MS = 2 ** 31 - 1

let references = 0
let handle: NodeJS.Timeout | undefined

/**
 * Keeps the process alive until {@link unrefProcess} has been called as often. Held by whatever a caller awaits, and by
 * workers. Sockets do not suffice: there is none while Redis is not reachable, and none in an embedded layer. Does nothing for
 * another clock than the process's own: whoever simulates time decides when that ends.
 */
export function refProcess(clock: Clock): void {
  if (clock !== systemClock) return
  references++
  if (references > 1) return
  handle ??= rootContext.run(() => setRepeatingTimer(() => {}, INTERVAL_MS))
  handle.ref()
}

/** Undoes one call of {@link refProcess}, with the same clock. */
export function unrefProcess(clock: Clock): void {
  if (clock !== systemClock) return
  references--
  if (references === 0) handle?.unref()
}
