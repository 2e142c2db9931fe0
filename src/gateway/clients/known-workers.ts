import { DEFAULT_COMMAND } from '../../kernel/names.ts'
import type { Clock } from '../../kernel/time.ts'
import type { ClientCensusItem } from '../overview/census-items.ts'

/** A worker that gives no sign of life for so long is gone, ms. */
export const SILENT_MS = 60_000

/** Workers that one gateway knows, of one queue and in all. */
export const MAX_WORKERS_PER_QUEUE = 1_000
export const MAX_WORKERS = 10_000

interface KnownWorker {
  readonly queue: string
  readonly id: string
  readonly startedAt: number
  command: string
  taken: number
  /** Jobs that went back. This gateway or another one has counted them as taken. */
  returned: number
  failed: number
  seenAt: number
  /** Its requests that wait for a job. */
  waiting: number
}

/**
 * The workers that have named themselves to this gateway, by the header X-presque-workerid.
 *
 * They are kept in the memory of each gateway, and a gateway that is asked for them asks all others by the census. In Redis
 * each take and each finish would cost one more write, only so that somebody may look; and what is lost with a gateway comes
 * back by itself, but for its counts: a worker that lives calls another gateway within its minute. A worker that signs off at
 * one gateway is remembered there as gone, so that what others have seen of it before does not count.
 */
export class KnownWorkers {
  readonly #clock: Clock
  /** Those that were seen longest ago come first, unless they wait. */
  readonly #workers = new Map<string, KnownWorker>()
  /** When a worker signed off, by the clock. */
  readonly #gone = new Map<string, { queue: string; id: string; at: number }>()
  readonly #countOf = new Map<string, number>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /**
   * Notes a sign of life. Returns the worker, to be counted for; undefined if it is new, and there are too many. Its counts stay
   * if it was known.
   */
  seen(queue: string, id: string, command?: string): KnownWorker | undefined {
    const key = keyOf(queue, id)
    const now = this.#clock.now()
    const known = this.#workers.get(key) ?? this.#add(queue, id, now)
    if (!known) return undefined
    known.seenAt = now
    known.command = command ?? known.command
    this.#workers.delete(key)
    this.#workers.set(key, known)
    return known
  }

  #add(queue: string, id: string, now: number): KnownWorker | undefined {
    this.#sweep(now)
    const count = this.#countOf.get(queue) ?? 0
    if (count >= MAX_WORKERS_PER_QUEUE || this.#workers.size >= MAX_WORKERS) return undefined
    this.#countOf.set(queue, count + 1)
    this.#gone.delete(keyOf(queue, id))
    const counts = { taken: 0, returned: 0, failed: 0, waiting: 0 }
    return { queue, id, startedAt: now, seenAt: now, command: DEFAULT_COMMAND, ...counts }
  }

  /** A worker signs off. */
  remove(queue: string, id: string): void {
    const key = keyOf(queue, id)
    const now = this.#clock.now()
    this.#sweep(now)
    this.#drop(key)
    this.#gone.delete(key)
    if (this.#gone.size < MAX_WORKERS) this.#gone.set(key, { queue, id, at: now })
  }

  /** Runs a request of a worker that waits: it lives for as long. */
  async waits<T>(worker: KnownWorker, run: () => Promise<T>): Promise<T> {
    worker.waiting++
    try {
      return await run()
    } finally {
      worker.waiting--
      worker.seenAt = this.#clock.now()
    }
  }

  #drop(key: string): void {
    const worker = this.#workers.get(key)
    if (!worker) return
    this.#workers.delete(key)
    const left = (this.#countOf.get(worker.queue) ?? 1) - 1
    if (left > 0) this.#countOf.set(worker.queue, left)
    else this.#countOf.delete(worker.queue)
  }

  /** Forgets those that are silent. */
  #sweep(now: number): void {
    for (const [key, { seenAt, waiting }] of this.#workers)
      if (waiting === 0 && now - seenAt > SILENT_MS) this.#drop(key)
    for (const [key, { at }] of this.#gone) {
      if (now - at <= SILENT_MS) return
      this.#gone.delete(key)
    }
  }

  /** What this gateway answers to a census. */
  *census(prefix: string): Generator<ClientCensusItem> {
    const now = this.#clock.now()
    this.#sweep(now)
    for (const {
      queue,
      command,
      id,
      taken,
      returned,
      failed,
      waiting,
      startedAt,
      seenAt,
    } of this.#workers.values()) {
      const silent = waiting > 0 ? 0 : now - seenAt
      const counts = { taken, returned, failed, waiting }
      yield { kind: 'worker', prefix, queue, command, id, ...counts, age: now - startedAt, silent }
    }
    for (const { queue, id, at } of this.#gone.values())
      yield { kind: 'gone', prefix, queue, id, age: now - at }
  }
}

function keyOf(queue: string, id: string): string {
  return `${queue}\0${id}`
}
