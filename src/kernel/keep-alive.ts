import { setRepeatingTimer } from './timers.ts'
import { rootContext } from './user-code.ts'

/** The longest interval of a timer, ms. Nothing happens when it fires. */
const INTERVAL = 2 ** 31 - 1

let references = 0
let handle: NodeJS.Timeout | undefined

/**
 * Keeps the process alive until {@link unrefProcess} has been called as often. Held by whatever a caller awaits, and by
 * workers. Sockets do not suffice: there is none while Redis is not reachable, and none in an embedded layer.
 */
export function refProcess(): void {
  references++
  if (references > 1) return
  handle ??= rootContext.run(() => setRepeatingTimer(() => {}, INTERVAL))
  handle.ref()
}

/** Undoes one call of {@link refProcess}. */
export function unrefProcess(): void {
  references--
  if (references === 0) handle?.unref()
}
