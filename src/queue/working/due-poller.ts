import { assertTransition, type Transitions } from '../../kernel/collections.ts'
import type { Timer } from '../../kernel/time.ts'
import type { QueueContext } from '../options.ts'
import type { DueResult, StallPolicy } from '../store/store.ts'

/** What a poller asks and tells its queue. */
export interface DuePollerDeps {
  /** Whether this process has a worker or a taker of the queue. */
  takesJobs(): boolean
  /** Called with the result of each batch of due jobs. */
  onProcessed(results: readonly DueResult[]): void
}

/** Delay of the next poll if nothing of what seemed due was due by the server's clock, ms. Doubles up to the maximum. */
const EARLY_RETRY_MIN = 5
const EARLY_RETRY_MAX = 640

/**
 * | state   | dueIn(ms)                            | timer fires | poll ends                         | close() |
 * | ------- | ------------------------------------ | ----------- | --------------------------------- | ------- |
 * | idle    | waiting                              |             |                                   | closed  |
 * | waiting | brings the timer forward             | polling     |                                   | closed  |
 * | polling | remembers the earliest time          |             | waiting, until the earliest time; | closed  |
 * |         |                                      |             | idle, if there is none and nobody |         |
 * |         |                                      |             | takes jobs here                   |         |
 * | closed  |                                      |             |                                   |         |
 */
type PollerState =
  | { readonly kind: 'idle' }
  | { readonly kind: 'waiting'; readonly timer: Timer; readonly until: number }
  | { readonly kind: 'polling'; pollAgainAt: number }
  | { readonly kind: 'closed' }

const POLLER_TRANSITIONS: Transitions<PollerState['kind']> = {
  idle: ['waiting', 'closed'],
  waiting: ['waiting', 'polling', 'closed'],
  polling: ['waiting', 'idle', 'closed'],
  closed: [],
}

/**
 * Promotes delayed jobs that are due, and requeues jobs whose worker died. Every process with a worker has one poller. It
 * polls when the next job is due that it knows of, and at least every 1.4 leases, since it does not know of all jobs. So
 * the job of a dead worker is found when its lease ends, or at most 1.4 leases after it was delivered. Without a worker or a
 * taker it polls as long as any job is delayed or active.
 */
export class DuePoller {
  readonly #context: QueueContext
  readonly #policy: StallPolicy
  readonly #deps: DuePollerDeps
  #state: PollerState = { kind: 'idle' }
  /** What callers of `processNow` wait for. */
  #processing: Promise<number> | undefined
  /** Delay of the next poll if nothing was due yet by the server's clock, ms. */
  #earlyRetry = EARLY_RETRY_MIN

  /** Does not poll before the first call of `dueIn`. */
  constructor(context: QueueContext, policy: StallPolicy, deps: DuePollerDeps) {
    this.#context = context
    this.#policy = policy
    this.#deps = deps
  }

  #waitUntil(at: number): PollerState {
    const { clock } = this.#context
    // One ms later: a timer may fire early by the server's clock.
    const until = at + 1
    return { kind: 'waiting', until, timer: clock.after(until - clock.now(), () => void this.#poll(), true) }
  }

  #enter(state: PollerState): void {
    assertTransition('due poller', POLLER_TRANSITIONS, this.#state.kind, state.kind)
    this.#state = state
  }

  /** Schedules a poll in `ms`, unless one is scheduled earlier. */
  dueIn(ms: number): void {
    const state = this.#state
    const at = this.#context.clock.now() + Math.max(ms, 0)
    if (state.kind === 'polling') state.pollAgainAt = Math.min(state.pollAgainAt, at)
    if (state.kind === 'idle') return this.#enter(this.#waitUntil(at))
    if (state.kind !== 'waiting' || at + 1 >= state.until) return
    state.timer.cancel()
    this.#enter(this.#waitUntil(at))
  }

  async #poll(): Promise<void> {
    const { clock, options } = this.#context
    const polling: PollerState = { kind: 'polling', pollAgainAt: Number.POSITIVE_INFINITY }
    this.#enter(polling)
    let nextIn = options.lease * (1.3 + Math.random() / 10)
    let isDone = false
    try {
      const nextDueIn = await this.#processDue()
      isDone = nextDueIn === Number.POSITIVE_INFINITY
      nextIn = Math.min(nextIn, nextDueIn)
    } catch {
      nextIn = Math.min(nextIn, options.unavailableAfter)
    }
    if (this.#state !== polling) return
    if (isDone && polling.pollAgainAt === Number.POSITIVE_INFINITY && !this.#deps.takesJobs())
      return this.#enter({ kind: 'idle' })
    const now = clock.now()
    this.#enter(this.#waitUntil(Math.max(now, Math.min(now + nextIn, polling.pollAgainAt))))
  }

  /** Processes what is due now, for a caller that waits for it. Never rejects: a poll follows. */
  async processNow(): Promise<void> {
    this.#processing ??= this.#processDue().finally(() => {
      this.#processing = undefined
    })
    try {
      const nextIn = await this.#processing
      if (nextIn < Number.POSITIVE_INFINITY) this.dueIn(nextIn)
    } catch {
      this.dueIn(this.#context.options.unavailableAfter)
    }
  }

  /** Processes everything that is due. Returns the time until the next job is due, ms. */
  async #processDue(): Promise<number> {
    const { store, within } = this.#context
    for (;;) {
      const { jobs, nextIn } = await store.findDue(within)
      if (jobs.length === 0 || this.#state.kind === 'closed') return nextIn ?? Number.POSITIVE_INFINITY
      const results = await store.processDue(jobs, this.#policy, within)
      this.#deps.onProcessed(results)
      // By the server's clock, none of these jobs was due yet.
      if (results.every(({ status }) => status === 'none')) return this.#nextEarlyRetry()
      this.#earlyRetry = EARLY_RETRY_MIN
    }
  }

  #nextEarlyRetry(): number {
    const ms = this.#earlyRetry
    this.#earlyRetry = Math.min(ms * 2, EARLY_RETRY_MAX)
    return ms
  }

  close(): void {
    if (this.#state.kind === 'waiting') this.#state.timer.cancel()
    this.#enter({ kind: 'closed' })
  }
}
