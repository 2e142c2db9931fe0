import { OverloadedError } from '../errors.ts'
import { decodeWith } from '../kernel/codec/codec.ts'
import { callHook } from '../kernel/hooks.ts'
import { checkWellFormedName } from '../kernel/names.ts'
import { checkFunction } from '../kernel/options.ts'
import { AsyncContext } from '../kernel/time.ts'
import { encodeLimited } from './encoding.ts'
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
export class Settings {
  readonly #service: string
  readonly #deps: SettingsDeps

  constructor(service: string, deps: SettingsDeps) {
    this.#service = service
    this.#deps = deps
  }

  async get(name: string): Promise<unknown> {
    this.#check(name)
    const { store, storeTimeout, options } = this.#deps
    const bytes = await store.readSetting(this.#service, name, storeTimeout)
    return bytes === undefined ? undefined : decodeWith(options.codec, bytes, name)
  }

  async set(name: string, value: unknown): Promise<void> {
    this.#check(name)
    const { store, storeTimeout, options } = this.#deps
    const bytes = encodeLimited(options, value, 'The setting has', { key: name })
    if (!(await store.writeSetting(this.#service, name, bytes, storeTimeout)))
      throw new OverloadedError(`The service has ${MAX_SETTINGS} settings`, { key: name })
  }

  async remove(name: string): Promise<void> {
    this.#check(name)
    const { store, storeTimeout } = this.#deps
    await store.writeSetting(this.#service, name, undefined, storeTimeout)
  }

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
