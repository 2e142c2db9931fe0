import { Fifo } from './collections.ts'
import {
  type AsyncContext,
  type Clock,
  endTurn,
  microtask,
  nextTick,
  nextTurn,
  rootContext,
  runningWork,
} from './time.ts'

/** Works may compute this long in one turn of the event loop. Replies, renewals and publishes are handled in between. */
const TURN_BUDGET_MS = 5

/** A batch of works is quick if it computes for less than this. */
const QUICK_MS = 0.5
/** Works in a batch, at most. */
const MAX_BATCH = 16

/** A work that has a slot and waits to be started. */
class Start {
  readonly #start: (slot: Slot) => void
  readonly #slot: Slot
  /** It may start in a batch: the results of a batch are sent together, after all its works have computed. */
  readonly batchable: boolean

  constructor(start: (slot: Slot) => void, slot: Slot, batchable: boolean) {
    this.#start = start
    this.#slot = slot
    this.batchable = batchable
  }

  run(): void {
    this.#start(this.#slot)
  }
}

/**
 * Starts works immediately while the works of this turn of the event loop have not used up its time budget. All works of a
 * process share one queue, in all layers.
 *
 * | state     | add            | the works yielded                                       | next turn                     |
 * | --------- | -------------- | ------------------------------------------------------- | ----------------------------- |
 * | idle      | start: running | -                                                       | refill                        |
 * | running   | queue          | next: running, none left: idle, budget spent: exhausted | refill                        |
 * | exhausted | queue          | -                                                       | refill, next: running or idle |
 *
 * Batchable works start in batches. The size of a batch begins at 1, doubles after each quick batch, and falls back to 1
 * after a slow one and when the queue is empty.
 */
class StartQueue {
  readonly #clock: Clock
  readonly #ready = new Fifo<Start>()
  #state: 'idle' | 'running' | 'exhausted' = 'idle'
  /** Remaining budget of this turn, ms. */
  #budget = TURN_BUDGET_MS
  /** Works in the next batch, at most. */
  #batchSize = 1
  /** A callback for the next turn is pending. */
  #turnAwaited = false

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** Whether works wait for the next turn because the budget of this one is spent. */
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
      // Runs after all microtasks and ticks that the works cause: their results are sent before other works compute.
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
    endTurn()
    const took = this.#clock.now() - startedAt
    this.#batchSize = took < QUICK_MS ? Math.min(2 * this.#batchSize, MAX_BATCH) : 1
    this.#budget -= took
    if (this.#budget > 0) return this.#startNext()
    this.#state = 'exhausted'
    // Runtimes differ in whether the awaited turn has begun meanwhile.
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

/** One queue for each clock, so that a simulation measures its own time. */
const startQueues = new WeakMap<Clock, StartQueue>()

function startQueueOf(clock: Clock): StartQueue {
  const queue = startQueues.get(clock) ?? new StartQueue(clock)
  startQueues.set(clock, queue)
  return queue
}

/** Whether works of this process wait for the next turn of the event loop because the budget of this one is spent. */
export function worksAreDeferred(clock: Clock): boolean {
  return startQueueOf(clock).exhausted
}

/**
 * The permission of one work to run.
 *
 * | state    | counts against the limit | entered when                                                   |
 * | -------- | ------------------------ | -------------------------------------------------------------- |
 * | running  | yes                      | the work starts, or everything that it waited for has arrived  |
 * | lent     | no                       | the work waits for another work of this library                |
 * | released | no                       | the work has ended                                             |
 *
 * A work that waits lends its slot, so that the work that it waits for can run when there are few slots.
 */
export class Slot {
  readonly #onCountChange: (change: 1 | -1) => void
  #state: 'running' | 'lent' | 'released' = 'running'
  /** Results that the work waits for at present. */
  #loans = 0

  /** `onCountChange` is called when the slot begins or ceases to count against the limit. */
  constructor(onCountChange: (change: 1 | -1) => void) {
    this.#onCountChange = onCountChange
  }

  /** Lends the slot until the returned function is called. The work then goes on, even if the limit is exceeded for a while. */
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

/** Limits how many works run at the same time. The others wait in order of arrival. */
export class WorkScheduler {
  readonly #limit: number
  readonly #batchable: boolean
  readonly #starts: StartQueue
  #running = 0
  readonly #waiting = new Fifo<(slot: Slot) => void>()

  /** `batchable`: quick works may start in batches. */
  constructor(limit: number, clock: Clock, { batchable = false }: { batchable?: boolean } = {}) {
    this.#limit = limit
    this.#batchable = batchable
    this.#starts = startQueueOf(clock)
  }

  /** Works that have a slot and do not lend it. */
  get running(): number {
    return this.#running
  }

  /** Works that wait for a slot. */
  get waiting(): number {
    return this.#waiting.size
  }

  /** Calls `start` once there is a free slot and budget in the turn, now or later. The callee must release the slot. */
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

// Deadlocks. A work may ask for other keys, and then waits for their flights. The flights and batches of this process, and
// for which others their works wait, form a graph; a caller that would close a cycle in it is rejected. The work that a
// caller belongs to is known by AsyncLocalStorage.

/** A node of the deadlock graph, such as a flight, or the work of a batch. It waits for the nodes that its work asks for. */
export interface WaitNode {
  /** The nodes that it waits for, with the number of waiting calls of its work. Written by {@link addWait}. */
  waitsFor: Map<WaitNode, number> | undefined
}

/** A work that runs. */
export interface WorkScope {
  readonly node: WaitNode
  readonly slot: Slot
}

/** The work that the present code belongs to, if any. */
export function callingWork(): WorkScope | undefined {
  return runningWork.getStore() as WorkScope | undefined
}

let running = 0

/**
 * Runs a work in its scope, and in the async context of its call. While no work runs, the AsyncLocalStorage is disabled: on
 * Node before 24 it makes every promise of the process cost twice as much.
 */
export async function runInScope<T>(
  context: AsyncContext,
  scope: WorkScope,
  work: () => T | PromiseLike<T>,
): Promise<T> {
  running++
  try {
    return await context.run(() => runningWork.run(scope, work))
  } finally {
    running--
    if (running === 0) runningWork.disable()
  }
}

/** Whether `target` waits for `caller`, directly or through others. */
export function wouldDeadlock(caller: WaitNode, target: WaitNode): boolean {
  const seen = new Set<WaitNode>()
  const pending = [target]
  for (let node = pending.pop(); node; node = pending.pop()) {
    if (node === caller) return true
    if (seen.has(node)) continue
    seen.add(node)
    for (const waitedFor of node.waitsFor?.keys() ?? []) pending.push(waitedFor)
  }
  return false
}

/** Adds that a work waits for `target`, and lends its slot. The returned function ends both. */
export function addWait({ node, slot }: WorkScope, target: WaitNode): () => void {
  node.waitsFor ??= new Map()
  const { waitsFor } = node
  waitsFor.set(target, (waitsFor.get(target) ?? 0) + 1)
  const resume = slot.lend()
  return () => {
    const left = (waitsFor.get(target) ?? 1) - 1
    if (left === 0) waitsFor.delete(target)
    else waitsFor.set(target, left)
    resume()
  }
}
