import { reportUncaught } from './timers.ts'

// biome-ignore lint/suspicious/noExplicitAny: of any event
type Listener = (...args: any[]) => void

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
    return this.on(name, once)
  }

  off<Name extends keyof Events>(name: Name, listener: (...args: Events[Name]) => void): this {
    const all = this.#listeners.get(name) ?? []
    const index = all.lastIndexOf(listener)
    if (index >= 0) this.#listeners.set(name, all.toSpliced(index, 1))
    return this
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
