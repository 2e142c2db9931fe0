import { ID_LENGTH, newId } from './keys.ts'
import { type Clock, microtask } from './time.ts'

// What the in-memory stores share: a budget of bytes, entries that expire, clients with inboxes and the messages to them.

/**
 * Bounds the bytes and entries of an in-memory store. Over the bound it evicts unused entries, the least recently changed
 * first. Entries in use are never evicted: the store must check {@link fits} before it admits new ones.
 */
export class MemoryBudget<Entry extends object> {
  readonly #maxBytes: number
  readonly #maxEntries: number
  readonly #sizes = new Map<Entry, number>()
  /** Unused entries with their evict callbacks, in the order of their last change. */
  readonly #idle = new Map<Entry, () => void>()
  #bytes = 0
  #idleBytes = 0

  constructor(maxBytes: number, maxEntries: number = Number.POSITIVE_INFINITY) {
    this.#maxBytes = maxBytes
    this.#maxEntries = maxEntries
  }

  /** Bytes of all entries. */
  get bytes(): number {
    return this.#bytes
  }

  /** Whether `bytes` more fit beside the entries in use. */
  fits(bytes: number): boolean {
    return this.#bytes - this.#idleBytes + bytes <= this.#maxBytes
  }

  /** Records an entry that is new or has changed. `evict` removes it from the store; undefined while it is in use. */
  set(entry: Entry, bytes: number, evict: (() => void) | undefined): void {
    this.delete(entry)
    // It would evict all others first, then itself.
    if (evict && bytes > this.#maxBytes) return evict()
    this.#sizes.set(entry, bytes)
    this.#bytes += bytes
    if (evict) {
      this.#idle.set(entry, evict)
      this.#idleBytes += bytes
    }
    this.#evict()
  }

  /** Forgets an entry that the store has removed. */
  delete(entry: Entry): void {
    const bytes = this.#sizes.get(entry) ?? 0
    this.#sizes.delete(entry)
    this.#bytes -= bytes
    if (this.#idle.delete(entry)) this.#idleBytes -= bytes
  }

  #evict(): void {
    for (const [entry, evict] of this.#idle) {
      if (this.#bytes <= this.#maxBytes && this.#sizes.size <= this.#maxEntries) return
      this.delete(entry)
      evict()
    }
  }
}

/** Default bound of an in-memory store, bytes. */
export const DEFAULT_MAX_BYTES: number = 256 * 1024 * 1024

/**
 * The clients of an in-memory store, each with an inbox. A client stands for a process, and the hub for Redis pub/sub: it
 * delivers messages in a microtask, and tells the sender whether the inbox exists.
 */
export class InMemoryHub<Client> {
  readonly #clients = new Map<string, Client>()
  readonly #deliver: (message: () => void) => void

  /** `deliver`: calls a message at once or later. For tests that delay or lose messages. */
  constructor(deliver: (message: () => void) => void = microtask) {
    this.#deliver = deliver
  }

  /** Adds a client. Returns the id of its inbox. */
  connect(client: Client): string {
    const inbox = newId()
    this.#clients.set(inbox, client)
    return inbox
  }

  /** Messages that are under way to this inbox are not delivered any more. */
  disconnect(inbox: string): void {
    this.#clients.delete(inbox)
  }

  /** The clients that are connected. */
  get clients(): readonly Client[] {
    return [...this.#clients.values()]
  }

  /** Sends a message to an inbox and a nonce, written one after the other. Returns whether the inbox exists. */
  send(address: string, receive: (client: Client, nonce: string) => void): boolean {
    const inbox = address.slice(0, ID_LENGTH)
    if (!this.#clients.has(inbox)) return false
    this.#deliver(() => {
      const client = this.#clients.get(inbox)
      if (client) receive(client, address.slice(ID_LENGTH))
    })
    return true
  }

  /** Sends a message to all clients. */
  broadcast(receive: (client: Client) => void): void {
    for (const client of this.#clients.values()) this.#deliver(() => receive(client))
  }
}

/**
 * Entries by name that expire at their `expiresAt`, ms by the clock. An expired entry is removed when it is looked up, or by
 * a sweep within a second. Without entries there is no timer.
 */
export class ExpiringMap<Entry extends { readonly expiresAt: number }> {
  readonly #clock: Clock
  readonly #budget: Pick<MemoryBudget<Entry>, 'set' | 'delete'>
  readonly #entries = new Map<string, Entry>()
  readonly #scheduleSweep: () => void

  /** `budget` may count other entries as well. */
  constructor(
    clock: Clock,
    budget: Pick<MemoryBudget<Entry>, 'set' | 'delete'> = new MemoryBudget<Entry>(Number.POSITIVE_INFINITY),
  ) {
    this.#clock = clock
    this.#budget = budget
    this.#scheduleSweep = sweeper(clock, () => {
      for (const name of [...this.#entries.keys()]) this.get(name)
      return this.#entries.size > 0
    })
  }

  /** Number of entries, expired ones included until they are removed. */
  get size(): number {
    return this.#entries.size
  }

  [Symbol.iterator](): IterableIterator<[string, Entry]> {
    return this.#entries[Symbol.iterator]()
  }

  get(name: string): Entry | undefined {
    const entry = this.#entries.get(name)
    if (!entry || entry.expiresAt > this.#clock.now()) return entry
    this.delete(name)
    return undefined
  }

  /** Adds an entry, or counts one anew that has changed. The budget may evict it unless it is in use. */
  set(name: string, entry: Entry, bytes: number, inUse: boolean): void {
    const known = this.#entries.get(name)
    if (known !== entry) {
      if (known) this.#budget.delete(known)
      this.#entries.set(name, entry)
    }
    this.#budget.set(entry, bytes, inUse ? undefined : () => this.#entries.delete(name))
    this.#scheduleSweep()
  }

  delete(name: string): void {
    const entry = this.#entries.get(name)
    if (entry) this.#budget.delete(entry)
    this.#entries.delete(name)
  }
}

const SWEEP_INTERVAL_MS = 1000

/**
 * Calls `sweep`, which removes expired entries, every second while it returns true: entries are left. The returned function
 * resumes that; call it when an entry is added.
 */
export function sweeper(clock: Clock, sweep: () => boolean): () => void {
  let pending = false
  const sweepLater = (): void => {
    if (pending) return
    pending = true
    clock.after(SWEEP_INTERVAL_MS, fired, true)
  }
  const fired = (): void => {
    pending = false
    if (sweep()) sweepLater()
  }
  return sweepLater
}
