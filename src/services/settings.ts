import { OverloadedError } from '../errors.ts'
import { decodeWith } from '../kernel/codec/codec.ts'
import { encodeLimited } from '../kernel/codec/limit.ts'
import { callHook } from '../kernel/hooks.ts'
import { checkWellFormedName } from '../kernel/names.ts'
import { checkFunction } from '../kernel/options.ts'
import { AsyncContext } from '../kernel/time.ts'
import type { ServicesContext } from './options.ts'
import { MAX_SETTINGS } from './store/store.ts'

/** What settings need of their Services object. */
export interface SettingsDeps extends ServicesContext {
  /** @throws ClosedError */
  assertOpen(): void
  /** Calls `changed` when a setting of the service may have changed. The returned function cancels that. */
  onSetting(service: string, name: string, changed: () => void): () => void
}

/**
 * The settings of one service: small values by name, the same in all processes. On Redis they outlive the processes by a
 * week; in memory they live as long as the MemoryServices.
 */
export abstract class ServiceSettings {
  readonly #service: string
  readonly #deps: SettingsDeps

  protected constructor(service: string, deps: SettingsDeps) {
    this.#service = service
    this.#deps = deps
  }

  /**
   * Returns a setting of the service; undefined if it is not set.
   * @throws UnavailableError, OverloadedError, CodecError, ClosedError, TypeError.
   */
  async get(name: string): Promise<unknown> {
    this.#check(name)
    const { store, storeTimeout, options } = this.#deps
    const bytes = await store.readSetting(this.#service, name, storeTimeout)
    return bytes === undefined ? undefined : decodeWith(options.codec, bytes, name)
  }

  /**
   * Sets a setting of the service, for all its processes and callers.
   * @throws OverloadedError if the service has 1,000, or too many commands wait; TooLargeError above `maxMessage`;
   * UnavailableError, CodecError, ClosedError, TypeError.
   */
  async set(name: string, value: unknown): Promise<void> {
    this.#check(name)
    const { store, storeTimeout, options } = this.#deps
    const bytes = encodeLimited(options, value, 'The setting has', { key: name })
    if (!(await store.writeSetting(this.#service, name, bytes, storeTimeout)))
      throw new OverloadedError(`The service has ${MAX_SETTINGS} settings`, { key: name })
  }

  /** Removes a setting of the service. @throws UnavailableError, OverloadedError, ClosedError, TypeError. */
  async remove(name: string): Promise<void> {
    this.#check(name)
    const { store, storeTimeout } = this.#deps
    await store.writeSetting(this.#service, name, undefined, storeTimeout)
  }

  /**
   * Calls `heard` with the value of a setting when it has changed, until the returned function is called.
   * @throws UnavailableError, OverloadedError, ClosedError, TypeError.
   */
  async watch(name: string, heard: (value: unknown) => void): Promise<() => void> {
    this.#check(name)
    checkFunction('heard', heard)
    const context = new AsyncContext()
    const { store, storeTimeout, options } = this.#deps
    const read = () => store.readSetting(this.#service, name, storeTimeout)
    // Listens first, so that no change is missed.
    let last: Promise<Buffer | undefined> = Promise.resolve(undefined)
    const changed = async (before: Promise<Buffer | undefined>) => {
      const known = await before
      const bytes = await read().catch(() => known)
      const same = bytes === undefined ? known === undefined : known?.equals(bytes)
      if (!same) callHook(context, 'watch', heard, bytes && decodeWith(options.codec, bytes, name))
      return bytes
    }
    const stop = this.#deps.onSetting(this.#service, name, () => {
      last = changed(last).catch(() => undefined)
    })
    try {
      const first = read()
      last = first.catch(() => undefined)
      await first
      return stop
    } catch (error) {
      stop()
      throw error
    }
  }

  #check(name: string): void {
    this.#deps.assertOpen()
    checkWellFormedName('name', name)
  }
}
