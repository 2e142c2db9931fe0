/**
 * The record of a persisted object. This is the specification; the Redis scripts do the same, and conformance tests compare
 * both.
 */
import type { SaveRequest, StoredObject } from './store.ts'

export class ObjectRecord {
  #stored: { version: string; readonly properties: Map<string, Buffer>; expiresAt: number } | undefined

  isEmpty(now: number): boolean {
    return !this.#stored || this.#stored.expiresAt <= now
  }

  /** Returns false, and changes nothing, if the object has another version than `base`. */
  save({ base, version, properties, ttl }: SaveRequest, now: number): boolean {
    if (this.isEmpty(now)) this.#stored = undefined
    const present = this.#stored?.version ?? ''
    // It was sent twice.
    if (present === version) return true
    if (present !== base) return false
    this.#stored ??= { version, properties: new Map(), expiresAt: 0 }
    this.#stored.version = version
    for (const [name, bytes] of properties) this.#stored.properties.set(name, bytes)
    this.#stored.expiresAt = Math.max(this.#stored.expiresAt, now + ttl)
    return true
  }

  load(now: number): StoredObject | undefined {
    if (this.isEmpty(now) || !this.#stored) return undefined
    return { version: this.#stored.version, properties: new Map(this.#stored.properties) }
  }

  renew(ttl: number, now: number): void {
    if (this.isEmpty(now) || !this.#stored) return
    this.#stored.expiresAt = Math.max(this.#stored.expiresAt, now + ttl)
  }
}
