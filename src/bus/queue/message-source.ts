import type { Detached, Lost, Taken } from '../store/store.ts'

/** Where a consumption gets its messages from. Each method may reject with UnavailableError, OverloadedError or ClosedError. */
export interface MessageSource {
  /** Begins, or begins again after {@link onLost}. */
  join(): Promise<Detached | undefined>
  /** How many more messages may be fetched, by what is held. */
  readonly room: number
  /** Whether something is to be sent with the next fetch, even if no message is wanted. */
  readonly hasNews: boolean
  fetch(want: number): Promise<Taken | Lost | Detached>
  /** Whether nothing that was handed over is still to be acknowledged. */
  readonly isSettled: boolean
  /** Whether what was fetched may still be handed over. */
  readonly isValid: boolean
  /** A message was handed over. */
  onHanded(id: number): void
  /** Everything that was fetched is lost: the lease was over, or the queue was remade. */
  onLost(): void
  /** Ends. `unhanded`: ids of messages that were fetched and not handed over. */
  leave(unhanded: readonly number[]): Promise<void>
}
