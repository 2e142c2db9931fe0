/** One request for a job. */
export interface Ask {
  readonly queue: string
  /** How long it waits for a job, ms. */
  readonly wait: number
}

export interface TurnsOptions {
  readonly queues: readonly string[]
  readonly order: 'turns' | 'priority'
  readonly concurrency: number
  /** Longest wait of a request, ms. */
  readonly wait: number
  /** Longest wait if another queue could have to wait for it, ms. */
  readonly interval: number
}

/** Shortest wait of a request that finds all queues empty, ms. */
const SHORTEST_WAIT = 100

/**
 * What is known of the jobs of a queue.
 *
 * | state | a job | no job | no answer | by priority: a job of a later queue |
 * | --- | --- | --- | --- | --- |
 * | ready: it may have jobs. Not asked yet, or the last answer was a job | ready | empty | empty; ready, if it may be asked at once | ready |
 * | empty | ready | empty | empty | ready, unless it is being asked |
 *
 * In each state it may rest besides, until a time, and have requests under way: an answer without a request throws.
 */
type Supply = 'ready' | 'empty'

/** A queue, as the worker sees it. */
interface QueueState {
  readonly queue: string
  supply: Supply
  /** Requests that are under way, and how many may be while it is ready. */
  asks: number
  mostAsks: number
  /** When it was asked last, and from when on it may be asked again, by the clock, ms. */
  askedAt: number
  restsUntil: number
}

/**
 * Decides which queue is asked next, and how long that request waits. Each request reserves a slot, so a request that waits long
 * could keep the slot from the jobs of another queue.
 *
 * - By turns, the queues are asked one after the other.
 * - By priority, a queue is asked if those before it are empty. After each job, those before its queue are asked anew.
 * - A request does not wait while a ready queue has no slot. Requests wait for `wait` if there is one queue, or, by turns, free
 *   slots for each queue twice. Otherwise a round over all empty queues takes `interval`.
 */
export class Turns {
  readonly #options: TurnsOptions
  readonly #states: readonly QueueState[]
  /** By turns: index of the queue that is asked next. */
  #next = 0

  constructor(options: TurnsOptions) {
    this.#options = options
    const common = { supply: 'ready' as const, asks: 0, mostAsks: 1 }
    const never = { askedAt: Number.NEGATIVE_INFINITY, restsUntil: Number.NEGATIVE_INFINITY }
    this.#states = options.queues.map((queue) => ({ queue, ...common, ...never }))
  }

  /** The next request, which is under way from now on; undefined: none. `free`: slots without a job and without a request. */
  next(free: number, now: number): Ask | undefined {
    if (free <= 0) return undefined
    const state = this.#options.order === 'turns' ? this.#byTurns(now) : this.#byPriority(now)
    if (!state) return undefined
    const wait = this.#waitOf(state, free)
    state.asks++
    state.askedAt = now
    return { queue: state.queue, wait }
  }

  /** When a queue that rests now may be asked, by the clock, ms; Infinity: none rests. */
  restsUntil(now: number): number {
    const ends = this.#states.map(({ restsUntil }) => restsUntil).filter((end) => end > now)
    return Math.min(...ends, Number.POSITIVE_INFINITY)
  }

  #mayAsk({ supply, asks, mostAsks, restsUntil }: QueueState, now: number): boolean {
    return asks < (supply === 'ready' ? mostAsks : 1) && restsUntil <= now
  }

  #byTurns(now: number): QueueState | undefined {
    const count = this.#states.length
    for (let step = 0; step < count; step++) {
      const at = (this.#next + step) % count
      const state = this.#states[at]
      if (!state || !this.#mayAsk(state, now)) continue
      this.#next = (at + 1) % count
      return state
    }
    return undefined
  }

  #byPriority(now: number): QueueState | undefined {
    const first = this.#states.find(({ supply }) => supply === 'ready')
    if (first) return this.#mayAsk(first, now) ? first : undefined
    // All are empty: the one that was asked longest ago.
    const asked = this.#states.filter((state) => this.#mayAsk(state, now))
    return asked.sort((one, other) => one.askedAt - other.askedAt)[0]
  }

  #waitOf(state: QueueState, free: number): number {
    const { order, wait, interval } = this.#options
    const count = this.#states.length
    // One request of a queue waits. The others only see whether it has more jobs.
    if (state.asks > 0) return 0
    if (count === 1) return wait
    if (order === 'priority' && state.supply === 'ready') return 0
    const needsSlot = (other: QueueState) => other !== state && other.supply === 'ready' && other.asks === 0
    if (this.#states.filter(needsSlot).length > free - 1) return 0
    const slots = this.#states.reduce((sum, { asks }) => sum + asks, free)
    if (order === 'turns' && slots >= 2 * count) return wait
    // The slots go over the queues in so many rows.
    const rows = Math.ceil(count / slots)
    return Math.min(wait, Math.max(SHORTEST_WAIT, interval / rows))
  }

  /** A request was answered with a job. */
  gotJob({ queue }: Ask): void {
    const at = this.#states.findIndex((state) => state.queue === queue)
    const state = this.#answered(queue)
    state.supply = 'ready'
    state.mostAsks = Math.min(2 * state.mostAsks, this.#options.concurrency)
    if (this.#options.order === 'turns') return
    // Those with a request under way are being asked.
    for (const before of this.#states.slice(0, at)) if (before.asks === 0) before.supply = 'ready'
  }

  /** There was no job. An answer that came before the end of the wait is not asked for again at once. */
  gotNone({ queue, wait }: Ask): void {
    const state = this.#answered(queue)
    state.supply = 'empty'
    state.mostAsks = 1
    state.restsUntil = state.askedAt + Math.min(wait, this.#options.interval)
  }

  /** It is not known whether there is a job. `restsUntil`: the queue is not asked before, by the clock, ms. */
  gotNoAnswer({ queue }: Ask, restsUntil: number): void {
    const state = this.#answered(queue)
    state.restsUntil = restsUntil
    // It must not keep others waiting.
    if (restsUntil > state.askedAt) state.supply = 'empty'
  }

  #answered(queue: string): QueueState {
    const state = this.#states.find((each) => each.queue === queue)
    if (!state || state.asks === 0) throw new Error(`An answer of a queue that was not asked: ${queue}`)
    state.asks--
    return state
  }
}
