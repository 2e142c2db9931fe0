import { UnavailableError } from '../../errors.ts'
import { emit } from '../../kernel/telemetry.ts'
import type { Timer } from '../../kernel/time/clock.ts'
import type { KeptSpace } from './storage/placement.ts'

/** Changes that are remembered at most. */
const MOST = 10_000

/** Changes that are told in one go. */
const AT_ONCE = 100

/** How long until it is tried again to tell them, ms. */
const AGAIN_AFTER = 1_000

/**
 * Changes that could not be told, because Redis was away. What they have made wrong must not be served by this process
 * until they are. It is tried again every second, and whenever one of them is asked for.
 */
export class Unsent {
  readonly #space: Pick<KeptSpace, 'clock' | 'invalidateWithPending'>
  /** Numbers of the last changes by primary key, the oldest first. */
  readonly #changes = new Map<string, number>()
  #last = 0
  #sending: Promise<void> | undefined
  #timer: Timer | undefined

  constructor(space: Pick<KeptSpace, 'clock' | 'invalidateWithPending'>) {
    this.#space = space
  }

  has(primary: string): boolean {
    return this.#changes.size > 0 && this.#changes.has(primary)
  }

  /** Tells of a change, now or later. */
  async tell(keys: Iterable<string>): Promise<void> {
    for (const key of keys) {
      this.#changes.delete(key)
      this.#changes.set(key, ++this.#last)
    }
    for (const key of this.#changes.keys()) {
      if (this.#changes.size <= MOST) break
      this.#giveUp(key)
    }
    // What goes out already does not hold these; what goes out next does.
    await this.#sending
    await this.send()
  }

  /** Tries once to tell what there is by now. Never rejects. */
  send(): Promise<void> {
    this.#sending ??= this.#send().finally(() => (this.#sending = undefined))
    return this.#sending
  }

  async #send(): Promise<void> {
    this.#timer?.cancel()
    const changes = [...this.#changes]
    for (let from = 0; from < changes.length; from += AT_ONCE) {
      const some = changes.slice(from, from + AT_ONCE)
      try {
        await this.#space.invalidateWithPending(...some.map(([key]) => key))
        // What has changed once more meanwhile is still to be told.
        for (const [key, change] of some) if (this.#changes.get(key) === change) this.#changes.delete(key)
      } catch (error) {
        if (error instanceof UnavailableError) return this.#later()
        for (const [key] of some) this.#giveUp(key)
      }
    }
  }

  #later(): void {
    this.#timer = this.#space.clock.after(AGAIN_AFTER, () => void this.send(), true)
  }

  #giveUp(key: string): void {
    this.#changes.delete(key)
    emit('invalidationLost', { key })
  }
}
