import { Fifo } from '../collections/fifo.ts'
import { rootContext } from '../work/user-code.ts'
import { nextTick } from './timers.ts'

const waiting = new Fifo<() => void>()

/** Calls `send` once all that follows in this tick without waiting is done: what is sent then, is sent together. */
export function atEndOfTick(send: () => void): void {
  waiting.push(send)
  if (waiting.size === 1) rootContext.run(() => nextTick(endTick))
}

/** Sends now what waits for the end of the tick: before something computes that could hold it up. Never throws. */
export function endTick(): void {
  for (let send = waiting.shift(); send; send = waiting.shift()) {
    try {
      send()
    } catch (error) {
      // An uncaught exception of its own, which holds up neither the others nor whoever ends the tick.
      nextTick(() => {
        throw error
      })
    }
  }
}
