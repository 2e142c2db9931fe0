import { useEffect, useState } from 'preact/hooks'

/** A value that tells when it changes. */
export class Signal<T> {
  #value: T
  readonly #listeners = new Set<() => void>()

  constructor(value: T) {
    this.#value = value
  }

  get value(): T {
    return this.#value
  }

  set value(value: T) {
    if (Object.is(value, this.#value)) return
    this.#value = value
    for (const listener of this.#listeners) listener()
  }

  /** Calls the listener after each change, until the returned function is called. */
  subscribe(listener: () => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }
}

/** The value of a signal, with which the component is rendered again when it changes. */
export function useSignal<T>(signal: Signal<T>): T {
  const [, render] = useState({})
  const { value } = signal
  // `value` is that of the first rendering.
  useEffect(() => {
    // It may have changed before this effect.
    if (!Object.is(value, signal.value)) render({})
    return signal.subscribe(() => render({}))
  }, [signal])
  return value
}
