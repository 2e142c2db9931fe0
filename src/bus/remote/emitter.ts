import { reportUncaught } from './timers.ts'

interface Listener {
  // biome-ignore lint/suspicious/noExplicitAny: of any event
  (...args: any[]): void
  /** The one that was given, of one that is called once. */
  readonly listener?: unknown
}

/** Typed events, as those of an EventEmitter, where there is none. Nothing emits 'error'. */
export class Emitter<Events extends { [Name in keyof Events]: unknown[] }> {
  readonly #listeners = new Map<keyof Events, Listener[]>()

  on<Name extends keyof Events>(name: Name, listener: (...args: Events[Name]) => void): this {
    this.#listeners.set(name, [...(this.#listeners.get(name) ?? []), listener])
    return this
  }

  once<Name extends keyof Events>(name: Name, listener: (...args: Events[Name]) => void): this {
    const once = (...args: Events[Name]) => {
      this.off(name, once)
      listener(...args)
    }
    return this.on(name, Object.assign(once, { listener }))
  }

  off<Name extends keyof Events>(name: Name, listener: (...args: Events[Name]) => void): this {
    const all = this.#listeners.get(name) ?? []
    const index = all.findLastIndex((each) => each === listener || each.listener === listener)
    if (index >= 0) this.#listeners.set(name, all.toSpliced(index, 1))
    return this
  }

  /** The same as {@link on}. */
  addListener<Name extends keyof Events>(name: Name, listener: (...args: Events[Name]) => void): this {
    return this.on(name, listener)
  }

  /** The same as {@link off}. */
  removeListener<Name extends keyof Events>(name: Name, listener: (...args: Events[Name]) => void): this {
    return this.off(name, listener)
  }

  /** Removes the listeners of one event, or of all. */
  removeAllListeners(name?: keyof Events): this {
    if (name === undefined) this.#listeners.clear()
    else this.#listeners.delete(name)
    return this
  }

  listenerCount(name: keyof Events): number {
    return this.#listeners.get(name)?.length ?? 0
  }

  /** Calls the listeners. What one throws concerns no other: it is reported as uncaught. @internal */
  protected emit<Name extends keyof Events>(name: Name, ...args: Events[Name]): void {
    for (const listener of this.#listeners.get(name) ?? []) {
      try {
        listener(...args)
      } catch (error) {
        reportUncaught(error)
      }
    }
  }
}
