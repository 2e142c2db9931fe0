import type { Transitions } from '../../kernel/collections.ts'
import type { Pending } from '../../kernel/time.ts'

/**
 * choosing  the store chooses a process
 * dealt     a process has it
 * waiting   for a first process that serves the service
 * pausing   all processes are full, or one has refused or lost the call again: waits before it is dispatched again
 * settled
 *
 * | event                          | choosing         | dealt             | waiting  | pausing  |
 * | ------------------------------ | ---------------- | ----------------- | -------- | -------- |
 * | dealt                          | dealt            |                   |          |          |
 * | no process                     | waiting, settled |                   |          |          |
 * | all are full                   | pausing, settled |                   |          |          |
 * | refused: it was not run        | choosing, pausing, settled | choosing, pausing, settled | |  |
 * | process lost                   | choosing: as soon as it is dealt there |  choosing, pausing, settled | | |
 * | try has timed out              | choosing, settled| choosing, settled |          | choosing, settled |
 * | a process registers; pause over|                  |                   | choosing | choosing |
 * | answer, deadline, abort        | settled          | settled           | settled  | settled  |
 *
 * An answer of an earlier try settles the call as well.
 */
export type OutgoingState = 'choosing' | 'dealt' | 'waiting' | 'pausing' | 'settled'

export const OUTGOING_TRANSITIONS: Transitions<OutgoingState> = {
  choosing: ['choosing', 'dealt', 'waiting', 'pausing', 'settled'],
  dealt: ['choosing', 'pausing', 'settled'],
  waiting: ['choosing', 'settled'],
  pausing: ['choosing', 'settled'],
  settled: [],
}

/** One try of a call: its deadline, and the process that it was dealt to. */
export class Try implements Pending {
  deadline: number = Number.POSITIVE_INFINITY
  process: string | undefined
  readonly #onExpired: (tried: Try) => void

  constructor(onExpired: (tried: Try) => void) {
    this.#onExpired = onExpired
  }

  expire(): void {
    this.#onExpired(this)
  }
}
