import { UnavailableError } from '../../errors.ts'
import { emit } from '../../kernel/telemetry.ts'
import type { Timer } from '../../kernel/time.ts'
import type { EntryNamespace } from './storage/placement.ts'

/** Invalidations that are kept for later. Beyond that the oldest are dropped. */
const MAX_PENDING = 10_000

/** Keys that are invalidated by one call. */
const BATCH_SIZE = 100

/** Time between two attempts while Redis is away, ms. */
const RETRY_MS = 1_000

/**
 * Invalidations that could not be sent because Redis was away. Until they are sent, this process must not serve what they
 * invalidate. They are retried every second, and whenever one of their keys is requested.
 */
export class UnsentInvalidations {
  readonly #namespace: Pick<EntryNamespace, 'clock' | 'invalidateWithPending'>
  /** The number of the last invalidation of each primary key, the oldest first. */
  readonly #pending = new Map<string, number>()
  #lastNumber = 0
  #sending: Promise<void> | undefined
  #timer: Timer | undefined

  constructor(namespace: Pick<EntryNamespace, 'clock' | 'invalidateWithPending'>) {
    this.#namespace = namespace
  }

  has(primaryKey: string): boolean {
    return this.#pending.size > 0 && this.#pending.has(primaryKey)
  }

  /** Invalidates keys everywhere: now, or when Redis is back. Never rejects. */
  async invalidate(keys: Iterable<string>): Promise<void> {
    for (const key of keys) {
      this.#pending.delete(key)
      this.#pending.set(key, ++this.#lastNumber)
    }
    for (const key of this.#pending.keys()) {
      if (this.#pending.size <= MAX_PENDING) break
      this.#drop(key)
    }
    // A send that is under way does not contain these keys.
    await this.#sending
    await this.send()
  }

  /** Tries once to send all that is pending. Never rejects. */
  send(): Promise<void> {
    this.#sending ??= this.#send().finally(() => (this.#sending = undefined))
    return this.#sending
  }

  async #send(): Promise<void> {
    this.#timer?.cancel()
    const pending = [...this.#pending]
    for (let from = 0; from < pending.length; from += BATCH_SIZE) {
      const batch = pending.slice(from, from + BATCH_SIZE)
      try {
        await this.#namespace.invalidateWithPending(...batch.map(([key]) => key))
        // A key that was invalidated once more meanwhile stays.
        for (const [key, number] of batch) if (this.#pending.get(key) === number) this.#pending.delete(key)
      } catch (error) {
        if (error instanceof UnavailableError) return this.#retryLater()
        for (const [key] of batch) this.#drop(key)
      }
    }
  }

  #retryLater(): void {
    this.#timer = this.#namespace.clock.after(RETRY_MS, () => void this.send(), true)
  }

  #drop(key: string): void {
    this.#pending.delete(key)
    emit('invalidationLost', { key })
  }
}
