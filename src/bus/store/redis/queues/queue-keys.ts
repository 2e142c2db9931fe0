import { recordBase, reservationKey } from '../keys.ts'

/** The Redis keys of a queue. All have the same hash tag, so they are in one slot. */
export class QueueKeys {
  /** As the scripts take them: queue, messages, leases, ids, turns, waiting, metadata, closed. */
  readonly all: readonly string[]
  /** The reservation: its token may make the queue. */
  readonly reservation: string

  constructor(prefix: string, queue: string) {
    const base = recordBase(prefix, 'queue', queue)
    this.all = ['Q', 'S', 'L', 'I', 'T', 'W', 'M', 'C'].map((letter) => base + letter)
    this.reservation = reservationKey(prefix, 'queue', queue)
  }
}
