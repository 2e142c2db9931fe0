/**
 * Streams: the chunks of one grant are kept in a log of their own, and every reader in every process reads that.
 *
 * The record of the key (namespace `s`) says who produces: whoever asks first is granted the lease, and shows to all who
 * wait which log to read (a {@link StreamNote}, as progress). The outcome that the record accepts at the end is a note
 * too: how many chunks the log has, and the failure if there was one. So only the record decides that a stream is
 * complete, and a producer that was replaced completes nothing, whatever it still writes.
 *
 *     producer  granted ── note as progress ── append … append ── note as result, accepted ── done
 *                  └─ lease lost, log lost, Redis away, unwanted ── its work is stopped, the lease released
 *     reader    asking ── told of a log ── reading ── outcome accepted: reads up to its end ── done, or RemoteError
 *                  │                         └─ another log, or a grant: the producer is dead
 *                  │                              nothing delivered yet: reads the other log, or is the producer
 *                  │                              something delivered: StreamInterruptedError
 *                  └─ granted ── producer, and first reader of its log
 *
 * A log is named by its key and fence, `<prefix>:1:x/<digest of the key>/<fence>`: a late producer writes into its own,
 * which nobody is sent to any more. On Redis it is a stream; chunk n (from 0) is the entry n + 1, so that an append that
 * is sent twice has the effect of one, and a reader that was cut off goes on after the last chunk it has. Each process
 * that follows the log is a consumer group of that stream, by the name of its inbox and a nonce: an append tells it, in
 * the same step, with the chunks in the message when they are small. A message is a hint: a reader also looks after a
 * while by itself, and when the subscription is back. One key per script: nothing more is needed on a cluster.
 *
 * The cap (`maxBytes`): beyond it the log keeps the newest chunks only, at most so many bytes. Its beginning is gone, so
 * nobody may join any more: who comes now runs a work of its own, shared with later callers of its process at most. Who
 * reads on goes on; who is further behind than the log reaches is interrupted. The producer is held up by nobody, except
 * that it does not trim what the foremost reader of its own process has yet to read while no other process reads.
 *
 * A producer that is stopped forgets its log, so that nobody begins with what comes to no end; that of one that died is
 * still found until its lease has run out.
 *
 * Expiry: a log that is written is kept for {@link LOG_GRACE} after the last sign of its producer, a complete one for its
 * `ttl` and that; whoever reads has that long to read on.
 */

/** What an append does. */
export interface Append {
  /** Number of the first of the chunks. */
  from: number
  /** At least one. */
  chunks: readonly Buffer[]
  /** Chunks before this one need not be kept any more. */
  first: number
  /** The log is kept for so long at least, ms. */
  keep: number
}

export interface Read {
  /** Number of the first chunk that is wanted. */
  from: number
  /** The nonce by which this process wants to be told of what is appended; it has then to be listened to. */
  follower: string | undefined
}

export type ReadReply =
  /** Chunks from there on, as many as fit; `more`: there are more already. */
  | { status: 'read'; chunks: Buffer[]; more: boolean }
  /** The wanted one is not kept any more: the log begins later. */
  | { status: 'trimmed' }
  /** There is no such log any more. */
  | { status: 'gone' }

/** Who is told of what is appended. */
export interface LogFollower {
  /** Chunks from number `from` on; none of them when they are too large for a message: then there are `length`. */
  appended(from: number, chunks: readonly Buffer[], length: number): void
}

/** Promises reject with UnavailableError, OverloadedError or ClosedError when the store cannot be used. */
export interface LogStore {
  /**
   * Adds chunks, and tells those who follow. `kept` is false when the log is not what it should be: it was lost, in whole
   * or at its end. `followers`: how many processes follow it.
   */
  append(log: string, append: Append, within: number): Promise<{ kept: boolean; followers: number }>
  /**
   * Chunks, at most {@link READ_CHUNKS} and, from the second on, {@link READ_BYTES}. Whoever follows from the beginning
   * may do so before the first append.
   */
  read(log: string, read: Read, within: number): Promise<ReadReply>
  /** Keeps a log for so long at least, ms. */
  keep(log: string, ms: number, within: number): Promise<{ kept: boolean; followers: number }>
  /** Forgets a log, if no process follows it or `anyway`: whether it is gone. */
  forget(log: string, anyway: boolean, within: number): Promise<boolean>
  /** This process wants to be told no more. */
  unfollow(log: string, follower: string, within: number): Promise<void>

  /** Whether messages arrive. */
  readonly subscribed: boolean
  /** Hears the messages for a nonce until {@link ignore}. */
  listen(nonce: string, follower: LogFollower): void
  ignore(nonce: string): void
  /** Calls `changed` whenever messages arrive again, or no more; the returned function ends that. */
  onLink(changed: () => void): () => void
}

/** How long a log is kept after its last use by a producer or reader, ms. */
export const LOG_GRACE: number = 60_000

/** Chunks and bytes that one read returns at most. */
export const READ_CHUNKS: number = 128
export const READ_BYTES: number = 256 * 1024
