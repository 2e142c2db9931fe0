import { Fifo } from '../collections/fifo.ts'
import type { Clock } from '../time/clock.ts'
import { endTick } from '../time/tick.ts'
import { microtask, nextTick, nextTurn } from '../time/timers.ts'
import { rootContext, runningWork } from './user-code.ts'

/** Works compute for so long in one turn of the event loop, ms: replies, renewals and publishes get through in between. */
const TURN_BUDGET_MS = 5

/** Works that compute for less than this together, ms, may be started together; so many at most. */
const QUICK_MS = 0.5
const MAX_BATCH = 16

/** A work that has a slot. */
class Start {
  readonly #start: (slot: Slot) => void
  readonly #slot: Slot
  /** It may start with others: what comes of them goes out together, and waits until all have computed. */
  readonly batchable: boolean

  constructor(start: (slot: Slot) => void, slot: Slot, together: boolean) {
    this.#start = start
    this.#slot = slot
    this.batchable = together
  }

  run(): void {
    this.#start(this.#slot)
  }
}

/**
 * Starts works at once, as long as those that were started in the same turn of the event loop have not used up its budget.
 * All works of a process share it, whatever layer they are of.
 *
 * | state | a work comes | those that were started have given way | the next turn begins |
 * | --- | --- | --- | --- |
 * | idle | starts it: running | | refills the budget |
 * | running | queues it | starts the next: running; none: idle; no budget left: exhausted | refills the budget |
 * | exhausted | queues it | | refills the budget, starts the next: running; none: idle |
 *
 * Of works that may start together, it starts one, and twice as many each time that they were quick, until some are not or
 * none is left.
 */
class StartQueue {
  readonly #clock: Clock
  readonly #ready = new Fifo<Start>()
  #state: 'idle' | 'running' | 'exhausted' = 'idle'
  /** What is left of the budget of this turn, ms. */
  #budget = TURN_BUDGET_MS
  /** Works that are started next, at most, before they give way. */
  #batchSize = 1
  /** The next turn is waited for. */
  #turnAwaited = false

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** Works wait for the next turn: those that were started have used up the budget of this one. */
  get exhausted(): boolean {
    return this.#state === 'exhausted' && this.#ready.size > 0
  }

  add(start: Start): void {
    this.#ready.push(start)
    if (this.#state === 'idle') this.#startNext()
  }

  #startNext(): void {
    this.#state = 'idle'
    const start = this.#ready.shift()
    if (!start) {
      this.#batchSize = 1
      return
    }
    this.#state = 'running'
    const startedAt = this.#clock.now()
    rootContext.run(() => {
      this.#awaitTurn()
      // After all that follows from them without waiting: what they have computed goes out before others compute.
      microtask(() => nextTick(() => this.#onYielded(startedAt)))
      start.run()
      for (
        let more = this.#batchSize - 1;
        more > 0 && start.batchable && this.#ready.first?.batchable;
        more--
      ) {
        if (this.#clock.now() - startedAt >= QUICK_MS) return
        this.#ready.shift()?.run()
      }
    })
  }

  #onYielded(startedAt: number): void {
    endTick()
    const took = this.#clock.now() - startedAt
    this.#batchSize = took < QUICK_MS ? Math.min(2 * this.#batchSize, MAX_BATCH) : 1
    this.#budget -= took
    if (this.#budget > 0) return this.#startNext()
    this.#state = 'exhausted'
    // Runtimes may disagree on whether the turn that was waited for has begun meanwhile.
    this.#awaitTurn()
  }

  #awaitTurn(): void {
    if (this.#turnAwaited) return
    this.#turnAwaited = true
    nextTurn(() => {
      this.#turnAwaited = false
      this.#budget = TURN_BUDGET_MS
      if (this.#state === 'exhausted') this.#startNext()
    })
  }
}

/** One for each clock, so that time that is simulated is measured by its own clock. */
const startQueues = new WeakMap<Clock, StartQueue>()

function startQueueOf(clock: Clock): StartQueue {
  const queue = startQueues.get(clock) ?? new StartQueue(clock)
  startQueues.set(clock, queue)
  return queue
}

/** Whether works of this process wait for the next turn of the event loop, because others compute. */
export function worksAreDeferred(clock: Clock): boolean {
  return startQueueOf(clock).exhausted
}

/**
 * The right of one work to run.
 *
 * running: counts. lent: waits for another work of this library, and does not count meanwhile; otherwise, with few slots,
 * works that wait would keep those from running that they wait for. released: the work has ended.
 */
export class Slot {
  readonly #onCountChange: (change: 1 | -1) => void
  #state: 'running' | 'lent' | 'released' = 'running'
  /** How many things the work waits for at present. */
  #loans = 0

  /** `count`: told when it begins or ceases to count. */
  constructor(count: (change: 1 | -1) => void) {
    this.#onCountChange = count
  }

  /**
   * Lends it until the returned function is called. What the work waited for has come then: it runs on, even if that is one
   * too many for a while.
   */
  lend(): () => void {
    if (this.#loans++ === 0 && this.#state === 'running') this.#move('lent')
    return () => {
      if (--this.#loans === 0 && this.#state === 'lent') this.#move('running')
    }
  }

  release(): void {
    this.#move('released')
  }

  #move(to: 'running' | 'lent' | 'released'): void {
    const from = this.#state
    this.#state = to
    if (from !== 'running' && to === 'running') this.#onCountChange(1)
    if (from === 'running' && to !== 'running') this.#onCountChange(-1)
  }
}

/** Lets so many works run at once; the others wait, first come first served. */
export class WorkScheduler {
  readonly #limit: number
  readonly #batchable: boolean
  readonly #starts: StartQueue
  #running = 0
  readonly #waiting = new Fifo<(slot: Slot) => void>()

  /** `together`: its works may start together, if they are quick. */
  constructor(limit: number, clock: Clock, { together = false }: { together?: boolean } = {}) {
    this.#limit = limit
    this.#batchable = together
    this.#starts = startQueueOf(clock)
  }

  /** Works that have a slot, and do not lend it. */
  get running(): number {
    return this.#running
  }

  /** Works that wait for a slot. */
  get waiting(): number {
    return this.#waiting.size
  }

  /** Calls `start` as soon as there is a slot, and time in the turn: now, or later. Whoever is called releases the slot. */
  schedule(start: (slot: Slot) => void): void {
    this.#waiting.push(start)
    this.#admit()
  }

  #admit(): void {
    while (this.#running < this.#limit) {
      const start = this.#waiting.shift()
      if (!start) return
      this.#running++
      this.#starts.add(new Start(start, new Slot(this.#onCountChange), this.#batchable))
    }
  }

  readonly #onCountChange = (change: 1 | -1): void => {
    this.#running += change
    if (change < 0) this.#admit()
  }
}

/** A work that runs, as whatever it calls sees it. */
export interface RunningWork {
  readonly slot: Slot
}

/** Lends the slot of the work that is calling, if one is, until the returned function is called. */
export function lendSlot(): (() => void) | undefined {
  return (runningWork.getStore() as RunningWork | undefined)?.slot.lend()
}
