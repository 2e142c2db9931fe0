import type { Clock, Timer } from '../../kernel/time.ts'

/** Commands of queues that are waited for at once, at most: each has a worker. */
export const MAX_WAITED_COMMANDS = 10_000
/** Workers that have no taker and are kept, at most. */
export const MAX_IDLE_WORKERS = 1_000
/** How long they are kept, ms. Most takers come again at once. */
const IDLE_TIMEOUT = 60_000

/** A worker, as its room has it. */
export interface RoomWorker {
  /** Takes no more jobs. It is in its room no longer. */
  drop(): void
}

/**
 * The room for workers of takers. The queue objects of one connection, or of one memory store, share it: a client chooses the
 * names of queues and commands, and there is a worker for each pair of them that is waited on.
 *
 * | state | `use` | `release` | a newer one needs its room, or its time has passed | `remove` |
 * | --- | --- | --- | --- | --- |
 * | not in the room | used | | | |
 * | used | | idle | | not in the room |
 * | idle | used | idle, as the newest | not in the room: `drop` | not in the room |
 */
export class WorkerRoom {
  readonly #clock: Clock
  readonly #used = new Set<RoomWorker>()
  /** Since when they are idle, by the clock, ms. In the order of their last use. */
  readonly #idle = new Map<RoomWorker, number>()
  #timer: Timer | undefined

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** Whether no worker may be added. One that is idle may still be used. */
  get isFull(): boolean {
    return this.#used.size >= MAX_WAITED_COMMANDS
  }

  /** A worker has a taker. */
  use(worker: RoomWorker): void {
    this.#idle.delete(worker)
    this.#used.add(worker)
  }

  /** A worker has no taker any more. */
  release(worker: RoomWorker): void {
    this.#used.delete(worker)
    this.#idle.delete(worker)
    this.#idle.set(worker, this.#clock.now())
    const [oldest] = this.#idle.keys()
    if (oldest && this.#idle.size > MAX_IDLE_WORKERS) this.#drop(oldest)
    this.#timer ??= this.#clock.after(IDLE_TIMEOUT, this.#dropIdle, true)
  }

  #drop(worker: RoomWorker): void {
    this.#idle.delete(worker)
    worker.drop()
  }

  readonly #dropIdle = (): void => {
    this.#timer = undefined
    for (const [worker, since] of this.#idle) {
      const left = since + IDLE_TIMEOUT - this.#clock.now()
      if (left > 0) {
        this.#timer = this.#clock.after(left, this.#dropIdle, true)
        return
      }
      this.#drop(worker)
    }
  }

  remove(worker: RoomWorker): void {
    this.#used.delete(worker)
    this.#idle.delete(worker)
    if (this.#idle.size > 0) return
    this.#timer?.cancel()
    this.#timer = undefined
  }
}

const rooms = new WeakMap<object, WorkerRoom>()

/** The room of a connection or a memory store. */
export function roomOf(owner: object, clock: Clock): WorkerRoom {
  const room = rooms.get(owner) ?? new WorkerRoom(clock)
  rooms.set(owner, room)
  return room
}
