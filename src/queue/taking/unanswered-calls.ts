import { assertTransition, type Transitions } from '../../kernel/collections.ts'
import type { QueueContext } from '../options.ts'
import type { AttemptRef, TakeRequest } from '../store/store.ts'
import { outcomeOf, REQUEUE } from '../working/attempt-result.ts'

/** Calls that are searched for; of others, the leases end. Nor is a job found beyond those that a search reads: see scripts/take.ts. */
const MAX_CALLS = 1_000
/** Pause between two searches, ms. */
const PAUSE = 1_000
/** A server may run a call of a connection that was lost after it has answered the first search. */
const SEARCHES = 2

/** An attempt that may be held though nobody has its token. */
interface UnknownAttempt {
  readonly attempt: AttemptRef
  /** ms */
  readonly lease: number
}

/** A call that has got no reply. */
interface UnansweredCall {
  readonly request: TakeRequest | UnknownAttempt
  readonly sentAt: number
  /** Searches that the store has answered. */
  searches: number
}

/**
 * | state | a call gets no reply | no call is left | `close` |
 * | --- | --- | --- | --- |
 * | idle | searching | | closed |
 * | searching for all calls, again and again | | idle | closed: each is searched for once more |
 * | closed | it is searched for once | | |
 */
type State = 'idle' | 'searching' | 'closed'

const TRANSITIONS: Transitions<State> = {
  idle: ['searching', 'closed'],
  searching: ['idle', 'closed'],
  closed: [],
}

/**
 * Calls that have got no reply, and by which a job may be held that nobody knows of: calls of `take`, acceptances of deliveries and
 * returns of jobs. Searches for these jobs as soon as the store answers, and gives them back, uncounted: their leases may be long.
 */
export class UnansweredCalls {
  readonly #context: QueueContext
  readonly #calls = new Set<UnansweredCall>()
  #state: State = 'idle'

  constructor(context: QueueContext) {
    this.#context = context
  }

  #enter(state: State): void {
    assertTransition('set of unanswered calls', TRANSITIONS, this.#state, state)
    this.#state = state
  }

  /** Resolves at once; after `close`, when it was searched for. Never rejects. */
  async add(request: TakeRequest | UnknownAttempt, sentAt: number): Promise<void> {
    if (this.#calls.size >= MAX_CALLS) return
    const call = { request, sentAt, searches: 0 }
    this.#calls.add(call)
    if (this.#state === 'closed') await this.#search(call)
    else if (this.#state === 'idle') void this.#searchAll()
  }

  /**
   * Gives a job back, uncounted. `lease`: of a held one, ms; without it, its lease ends soon if the store does not answer. Never
   * rejects.
   */
  async giveBack(attempt: AttemptRef, lease = 0): Promise<void> {
    const { store, within, options, clock } = this.#context
    try {
      await store.finish(outcomeOf(attempt, REQUEUE, options, false), within)
    } catch {
      if (lease > 0) await this.add({ attempt, lease }, clock.now())
    }
  }

  /** Never rejects. */
  async #searchAll(): Promise<void> {
    const { clock } = this.#context
    this.#enter('searching')
    while (this.#calls.size > 0 && this.#state === 'searching') {
      await Promise.all([...this.#calls].map((call) => this.#search(call)))
      await new Promise<void>((resolve) => clock.after(PAUSE, resolve, true))
    }
    if (this.#state === 'searching') this.#enter('idle')
  }

  async #search(call: UnansweredCall): Promise<void> {
    const { store, within, options, clock } = this.#context
    const { request, sentAt } = call
    const age = clock.now() - sentAt
    try {
      const found = 'attempt' in request ? request.attempt : await store.findTaken(request, age, within)
      const reply = found && (await store.finish(outcomeOf(found, REQUEUE, options, false), within))
      const isGivenBack = reply === 'accepted' || reply === 'repeated'
      if (isGivenBack || ++call.searches >= SEARCHES) this.#calls.delete(call)
    } catch {
      // The store does not answer yet. Without a reply, a call is run for as long as its connection lasts, at most.
      if (age > request.lease + within) this.#calls.delete(call)
    }
  }

  /** Searches once more for each. Never rejects. */
  async close(): Promise<void> {
    this.#enter('closed')
    await Promise.all([...this.#calls].map((call) => this.#search(call)))
  }
}
