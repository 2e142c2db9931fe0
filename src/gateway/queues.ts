import { ClosedError, OverloadedError } from '../errors.ts'
import type { Clock, Timer } from '../kernel/time.ts'
import type { RedisQueue } from '../queue/index.ts'
import type { ListedQueues } from '../queue/internal.ts'

/** Most queues that are open at once. */
const MAX_OPEN = 1_000

/** Most queues that requests wait on. The rest is for requests that do not wait: those that finish and renew jobs, for instance. */
const MAX_WAITED = 900

/** How long a queue stays open after its last request, ms. */
const IDLE_MS = 60_000

interface OpenQueue {
  readonly queue: RedisQueue
  users: number
  /** Those of its users that wait. */
  waiters: number
  /** When its last user left, by the clock. Written when `users` becomes 0. */
  idleSince: number
}

/**
 * The queues of a gateway, opened by name when a request needs one. A queue that no request uses is closed after a minute, or
 * when another one needs its room.
 */
export class Queues {
  readonly #open: (name: string) => RedisQueue
  readonly #list: (limit?: number) => Promise<ListedQueues>
  readonly #clock: Clock
  /** Those whose last user left longest ago come first. */
  readonly #queues = new Map<string, OpenQueue>()
  readonly #closing = new Set<Promise<void>>()
  /** Number of queues with waiters. */
  #waited = 0
  #timer: Timer | undefined
  #isClosed = false

  /** `list`: the queues that were used lately. */
  constructor(
    open: (name: string) => RedisQueue,
    list: (limit?: number) => Promise<ListedQueues>,
    clock: Clock,
  ) {
    this.#open = open
    this.#list = list
    this.#clock = clock
  }

  /** The names of the queues that were used lately, by anybody, the last used first. */
  async names(): Promise<string[]> {
    return (await this.#list()).names
  }

  /** Those that were used last, up to `limit`, and how many there are. */
  listed(limit: number): Promise<ListedQueues> {
    return this.#list(limit)
  }

  /** Number of queues that are open. */
  get size(): number {
    return this.#queues.size
  }

  /**
   * Calls `run` with the queue of this name, which stays open until the returned promise is settled.
   * @throws OverloadedError if too many queues are in use; ClosedError after `close`; TypeError if the name is invalid.
   */
  async use<T>(name: string, run: (queue: RedisQueue) => Promise<T>): Promise<T> {
    const opened = this.#opened(name)
    opened.users++
    try {
      return await run(opened.queue)
    } finally {
      this.#leave(name, opened)
    }
  }

  /** The same as `use` for a `run` that waits: for a job or a result. @throws as `hold` */
  async wait<T>(name: string, run: (queue: RedisQueue) => Promise<T>): Promise<T> {
    const { queue, release } = this.hold(name)
    try {
      return await run(queue)
    } finally {
      release()
    }
  }

  /**
   * The queue of this name for a caller that waits, which stays open until `release` is called, once. Fewer queues may be in use
   * so, and those that do not wait have room.
   * @throws as `use`
   */
  hold(name: string): { queue: RedisQueue; release(): void } {
    const isWaited = (this.#queues.get(name)?.waiters ?? 0) > 0
    if (!isWaited && this.#waited >= MAX_WAITED) throw new OverloadedError('Too many queues are waited on')
    const opened = this.#opened(name)
    opened.users++
    if (opened.waiters++ === 0) this.#waited++
    const release = () => {
      if (--opened.waiters === 0) this.#waited--
      this.#leave(name, opened)
    }
    return { queue: opened.queue, release }
  }

  #leave(name: string, opened: OpenQueue): void {
    if (--opened.users === 0) this.#becomeIdle(name, opened)
  }

  #opened(name: string): OpenQueue {
    return this.#queues.get(name) ?? this.#add(name)
  }

  #add(name: string): OpenQueue {
    if (this.#isClosed) throw new ClosedError('The gateway is closed')
    if (this.#queues.size >= MAX_OPEN) this.#closeOldest()
    const opened = { queue: this.#open(name), users: 0, waiters: 0, idleSince: 0 }
    this.#queues.set(name, opened)
    return opened
  }

  #becomeIdle(name: string, opened: OpenQueue): void {
    if (this.#queues.get(name) !== opened) return
    opened.idleSince = this.#clock.now()
    this.#queues.delete(name)
    this.#queues.set(name, opened)
    this.#timer ??= this.#clock.after(IDLE_MS, this.#closeIdle, true)
  }

  #closeOldest(): void {
    for (const [name, opened] of this.#queues) if (opened.users === 0) return this.#close(name, opened)
    throw new OverloadedError('Too many queues are in use')
  }

  readonly #closeIdle = (): void => {
    this.#timer = undefined
    const now = this.#clock.now()
    let next = Number.POSITIVE_INFINITY
    for (const [name, opened] of this.#queues) {
      if (opened.users > 0) continue
      const left = opened.idleSince + IDLE_MS - now
      if (left <= 0) this.#close(name, opened)
      else next = Math.min(next, left)
    }
    if (next < Number.POSITIVE_INFINITY) this.#timer = this.#clock.after(next, this.#closeIdle, true)
  }

  #close(name: string, { queue }: OpenQueue): void {
    this.#queues.delete(name)
    const closing = queue.close({ grace: 0 }).finally(() => this.#closing.delete(closing))
    this.#closing.add(closing)
  }

  /** Closes all queues, used or not. */
  async close(): Promise<void> {
    this.#isClosed = true
    this.#timer?.cancel()
    for (const [name, opened] of this.#queues) this.#close(name, opened)
    await Promise.all(this.#closing)
  }
}
