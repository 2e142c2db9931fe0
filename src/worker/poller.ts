import { TransientMap, TransientSet } from '../kernel/collections.ts'
import { type Clock, systemClock, type Timer } from '../kernel/time.ts'
import type { HandedJob, TakeReply } from './take.ts'
import { type Ask, Turns, type TurnsOptions } from './turns.ts'

export interface PollerHooks {
  /** Asks a gateway for a job. Never rejects. */
  take(ask: Ask, signal: AbortSignal): Promise<TakeReply>
  /** Runs a job, which has a slot until the promise resolves. Never rejects. */
  run(job: HandedJob): Promise<void>
  /** Gives a job back that has arrived when no more were to be taken. Never rejects. */
  giveBack(job: HandedJob): Promise<void>
  /** No job has come for `interval` ms, and none runs. Called once until the next job. */
  onIdle(): void
}

/**
 * Asks for jobs as long as a slot is free. A request reserves a slot, so that no job arrives without one.
 *
 * | state | stop |
 * | --- | --- |
 * | polling | stopping: no more requests. Those that are `patience` ms old are aborted; jobs that arrive go back |
 * | stopping, until no request is under way and no job runs | |
 */
export class Poller {
  readonly #concurrency: number
  readonly #turns: Turns
  readonly #pause: () => number
  readonly #hooks: PollerHooks
  readonly #clock: Clock = systemClock
  readonly #asking = new TransientSet<Promise<void>>()
  readonly #running = new TransientSet<Promise<void>>()
  /** The requests that are under way: since when, by the clock, ms, and what aborts them. */
  readonly #aborters = new TransientMap<AbortController, number>()
  #state: 'polling' | 'stopping' = 'polling'
  readonly #interval: number
  /** Runs while nothing can be asked. */
  #timer: Timer | undefined
  /** Runs while no job runs, until the worker is idle. */
  #idleTimer: Timer | undefined

  /** `pause`: how long no gateway is to be asked, ms. */
  constructor(options: TurnsOptions, pause: () => number, hooks: PollerHooks) {
    this.#concurrency = options.concurrency
    this.#interval = options.interval
    this.#turns = new Turns(options)
    this.#pause = pause
    this.#hooks = hooks
  }

  /** Number of jobs that run, and of requests that wait for one. */
  get load(): { running: number; asking: number } {
    return { running: this.#running.size, asking: this.#asking.size }
  }

  start(): void {
    this.poll()
    this.#awaitIdle()
  }

  /** Asks as often as there are free slots. */
  poll(): void {
    if (this.#state !== 'polling') return
    this.#timer?.cancel()
    const now = this.#clock.now()
    const pause = this.#pause()
    if (pause > 0) return this.#pollIn(pause)
    for (let free = this.#free; free > 0; free--) {
      const ask = this.#turns.next(free, now)
      if (!ask) return this.#pollIn(this.#turns.restsUntil(now) - now)
      this.#track(this.#asking, this.#ask(ask))
    }
  }

  get #free(): number {
    return this.#concurrency - this.#running.size - this.#asking.size
  }

  #pollIn(ms: number): void {
    if (ms !== Number.POSITIVE_INFINITY) this.#timer = this.#clock.after(ms, () => this.poll())
  }

  async #ask(ask: Ask): Promise<void> {
    const aborter = new AbortController()
    this.#aborters.set(aborter, this.#clock.now())
    const reply = await this.#hooks.take(ask, aborter.signal)
    this.#aborters.delete(aborter)
    if (reply.kind === 'job') {
      this.#turns.gotJob(ask)
      if (this.#state === 'stopping') return await this.#hooks.giveBack(reply.job)
      this.#idleTimer?.cancel()
      this.#track(this.#running, this.#hooks.run(reply.job))
    } else if (reply.kind === 'none') this.#turns.gotNone(ask)
    else this.#turns.gotNoAnswer(ask, this.#clock.now() + reply.pause)
  }

  /** Counts a request or a job until it has ended. */
  #track(set: TransientSet<Promise<void>>, promise: Promise<void>): void {
    set.add(promise)
    void promise.then(() => {
      set.delete(promise)
      this.#onSlotFree(set === this.#running)
    })
  }

  #onSlotFree(wasJob: boolean): void {
    this.poll()
    if (wasJob) this.#awaitIdle()
  }

  #awaitIdle(): void {
    if (this.#state !== 'polling' || this.#running.size > 0) return
    this.#idleTimer?.cancel()
    this.#idleTimer = this.#clock.after(this.#interval, () => this.#hooks.onIdle(), true)
  }

  /**
   * Asks no more. A request is aborted when it is `patience` ms old. Resolves when no request is under way and no job runs.
   */
  async stop(patience: number): Promise<void> {
    this.#state = 'stopping'
    this.#timer?.cancel()
    this.#idleTimer?.cancel()
    const now = this.#clock.now()
    const timers = [...this.#aborters.entries()].map(([aborter, askedAt]) =>
      this.#clock.after(askedAt + patience - now, () => aborter.abort()),
    )
    await Promise.all(this.#asking)
    for (const timer of timers) timer.cancel()
    await Promise.all(this.#running)
  }
}
