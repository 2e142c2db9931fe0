import { Fifo } from '../collections/fifo.ts'
import { rootContext } from '../work/user-code.ts'
import { nextTick } from './timers.ts'

const waiting = new Fifo<() => void>()

/** Calls `send` at the end of this tick, so that everything that one tick wants to send is sent together. */
export function atEndOfTick(send: () => void): void {
  waiting.push(send)
  if (waiting.size === 1) rootContext.run(() => nextTick(endTick))
}

/** Calls now what waits for the end of the tick: before user code that may block the event loop. Never throws. */
export function endTick(): void {
  for (let send = waiting.shift(); send; send = waiting.shift()) {
    try {
      send()
    } catch (error) {
      // Becomes an uncaught exception of its own, so that the other callbacks and the caller go on.
      nextTick(() => {
        throw error
      })
    }
  }
}
