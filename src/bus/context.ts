import type { Codec } from '../kernel/codec/codec.ts'
import type { Clock } from '../kernel/time.ts'
import type { Renewals } from './renewals.ts'
import type { Instance, RecordKind, Renewal, RenewalReply, TopicTerms } from './store/store.ts'

/** An instance of a bus, with the leases that this bus renews there. */
export interface Member {
  readonly instance: Instance
  readonly queueLeases: Renewals<Renewal, RenewalReply>
  readonly topicLeases: Renewals<readonly [topic: string, terms: TopicTerms], undefined>
  readonly objectLeases: Renewals<readonly [name: string, ttl: number], undefined>
}

/** Knows where records are. */
export interface Places {
  /**
   * Where a record is; undefined if there is none.
   * @throws UnavailableError if it may be on an instance that does not answer.
   */
  find(kind: RecordKind, name: string): Promise<Member | undefined>
  /**
   * Calls `use` where the record is, or else where it is to be made: then with a token that has reserved its name ('' if no
   * reservation is needed). If `use` resolves with undefined, the record is not there, and it is looked for again.
   * @throws UnavailableError; what `use` rejects with.
   */
  place<T>(
    kind: RecordKind,
    name: string,
    use: (member: Member, token: string) => Promise<T | undefined>,
  ): Promise<T>
  /** The record may not be there any more: it is looked for when it is used again. */
  forget(kind: RecordKind, name: string): void
}

/** What the objects of a bus share. */
export interface BusContext {
  readonly places: Places
  readonly clock: Clock
  readonly codec: Codec
  /** Largest message, in bytes when encoded. */
  readonly maxMessage: number
  /** Time limit of a call to an instance, ms. */
  readonly within: number
  /** @throws ClosedError after `disconnect`. */
  assertOpen(): void
  /** Calls `close` when the bus disconnects, and waits for it up to the grace. `close` never rejects. The returned function ends that. */
  onDisconnect(close: () => Promise<void>): () => void
}
