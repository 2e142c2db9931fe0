import type { QueueContext } from '../options.ts'
import type { TakeRequest } from '../store/store.ts'
import { outcomeOf, REQUEUE } from '../working/attempt-result.ts'

/** Calls that are searched for; of others, the leases end. Nor is a job found beyond those that a search reads: see scripts/take.ts. */
const MAX_LOST = 1_000
/** Pause between two searches, ms. */
const PAUSE = 1_000
/** A server may run a call of a connection that was lost after it has answered the first search. */
const SEARCHES = 2

/** A call of `take` that has got no reply. */
interface LostTake {
  readonly request: TakeRequest
  readonly sentAt: number
  /** Searches that the store has answered. */
  searches: number
}

/**
 * Calls of `take` that have got no reply, and may have taken a job that nobody knows of. Searches for these jobs as soon as the
 * store answers, and gives them back, uncounted: their leases may be long.
 */
export class LostTakes {
  readonly #context: QueueContext
  readonly #lost = new Set<LostTake>()
  #searching = false
  #closed = false

  constructor(context: QueueContext) {
    this.#context = context
  }

  /** Number of calls that are searched for. */
  get size(): number {
    return this.#lost.size
  }

  /** Resolves at once; after `close`, when it was searched for. Never rejects. */
  async add(request: TakeRequest, sentAt: number): Promise<void> {
    if (this.#lost.size >= MAX_LOST) return
    const take = { request, sentAt, searches: 0 }
    this.#lost.add(take)
    if (this.#closed) await this.#search(take)
    else if (!this.#searching) void this.#searchAll()
  }

  /** Never rejects. */
  async #searchAll(): Promise<void> {
    const { clock } = this.#context
    this.#searching = true
    while (this.#lost.size > 0 && !this.#closed) {
      await Promise.all([...this.#lost].map((take) => this.#search(take)))
      await new Promise<void>((resolve) => clock.after(PAUSE, resolve, true))
    }
    this.#searching = false
  }

  async #search(take: LostTake): Promise<void> {
    const { store, within, options, clock } = this.#context
    const { request, sentAt } = take
    const age = clock.now() - sentAt
    try {
      const found = await store.findTaken(request, age, within)
      if (found) await store.finish(outcomeOf(found, REQUEUE, options, false), within)
      if (found || ++take.searches === SEARCHES) this.#lost.delete(take)
    } catch {
      // The store does not answer yet. Without a reply, a call is run for as long as its connection lasts, at most.
      if (age > request.lease + within) this.#lost.delete(take)
    }
  }

  /** Searches once more for each. Never rejects. */
  async close(): Promise<void> {
    this.#closed = true
    await Promise.all([...this.#lost].map((take) => this.#search(take)))
  }
}
