/**
 * Read your invalidations: a strict caller, one without an in-process cache, must not receive a result if an invalidation
 * of it was acknowledged before that caller asked.
 *
 * The waiters of a flight are numbered as they join. A request that is sent after waiter n joined proves, if its reply shows
 * that the result is not invalidated, that it was valid at some moment after n joined: waiters up to n may receive it. The
 * others must ask the store themselves.
 *
 * ```
 * waiters join    1   2       3            4
 * request             |- sent ----- reply: valid -|
 *                 validated: 1, 2      not: 3, 4
 * ```
 *
 * The barrier also knows whether the reply may be kept in the cache of this process: only if, since the request was sent,
 * messages arrived and none of them invalidated it.
 */
export class InvalidationBarrier {
  #lastSeq = 0
  #validatedSeq = 0
  /** When the last request was sent, by the clock. Written by `onSent`. */
  sentAt = 0
  /** The last waiter that had joined then. */
  sentSeq = 0
  /** Since then no message was missed, and none invalidated the key. */
  #keyUnchanged = false
  /** Since then no message was missed, and none invalidated any tag. */
  #tagsUnchanged = false

  /** Number of the last waiter that joined. */
  get lastSeq(): number {
    return this.#lastSeq
  }

  /** Returns the number of a new waiter. */
  nextSeq(): number {
    return ++this.#lastSeq
  }

  /** A request is sent, or a work begins without one. `subscribed`: whether messages arrive. */
  onSent(now: number, subscribed: boolean): void {
    this.sentAt = now
    this.sentSeq = this.#lastSeq
    this.#keyUnchanged = subscribed
    this.#tagsUnchanged = subscribed
  }

  /** The key was invalidated, or may be without a message. */
  onInvalidated(): void {
    this.#keyUnchanged = false
  }

  /** Some tag was invalidated. Only the reply tells which tags the result has. */
  onTagInvalidated(): void {
    this.#tagsUnchanged = false
  }

  /** Whether a result with these tags, as the last request brought it, is not known to be invalidated since. */
  isUnchanged(tags: string): boolean {
    return this.#keyUnchanged && (tags === '' || this.#tagsUnchanged)
  }

  /** The result was valid at some moment after the waiter `seq` joined. */
  validate(seq: number): void {
    this.#validatedSeq = Math.max(this.#validatedSeq, seq)
  }

  /** Whether the result was valid at some moment after the waiter `seq` joined. */
  isValidated(seq: number): boolean {
    return seq <= this.#validatedSeq
  }
}
