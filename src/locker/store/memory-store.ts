import { OverloadedError } from '../../errors.ts'
import { LocalCensus } from '../../kernel/census.ts'
import { ownedBytes } from '../../kernel/codec/binary.ts'
import { DEFAULT_MAX_BYTES, ExpiringMap, InMemoryHub, MemoryBudget } from '../../kernel/in-memory-store.ts'
import { MAX_PARKED } from '../../kernel/keys.ts'
import { type Clock, microtask, systemClock, wallMicros } from '../../kernel/time.ts'
import { type Client, ResourceRecord, type TransitionContext } from './record.ts'
import type {
  Claim,
  Claimer,
  GrantRef,
  InvalidateReply,
  Outcome,
  Release,
  ReleaseReply,
  RenewReply,
  Settlement,
  SettleReply,
  Snapshot,
  Store,
  StoreListener,
} from './store.ts'

/** Options of a {@link MemoryStore}. */
export interface MemoryStoreOptions {
  /**
   * Most records. Beyond it the records that were changed longest ago are evicted. Records with a lease or with parked
   * flights are never evicted.
   * @default 100_000
   */
  maxRecords?: number | undefined
  /**
   * Most bytes of all records; the chunks of streams may take as many again. Beyond it the records that were changed
   * longest ago are evicted. Records with a lease or with parked flights are never evicted: when they alone take so much,
   * new keys are rejected with OverloadedError.
   * @default 268_435_456
   */
  maxBytes?: number | undefined
  /** A clock for tests. @default the clock of the process */
  clock?: Clock | undefined
  /** Delivers a message. For tests that delay or lose messages. @default in a microtask */
  deliver?: ((message: () => void) => void) | undefined
  /** Flights that may be parked on one record. */
  maxParked?: number | undefined
}

/** What a record takes beside its bytes, and what each parked flight takes, by estimate. */
const RECORD_BYTES = 512
const PARK_BYTES = 128

interface TagRecord {
  version: number
  expiresAt: number
}

/** The registrations of one client of the store. */
interface Registrations {
  /** By nonce. */
  readonly claimers: Map<string, Claimer>
  readonly listeners: Set<StoreListener>
}

/**
 * The Locker's store in the memory of this process, with the same transitions as on Redis. Used by a locker without Redis,
 * and by tests in which several lockers behave like several processes.
 */
export class MemoryStore {
  readonly clock: Clock
  readonly maxParked: number
  readonly maxBytes: number
  /** What the lockers on this store hold and wait for. @internal */
  readonly census: LocalCensus = new LocalCensus()
  readonly #budget: MemoryBudget<ResourceRecord>
  readonly #records: ExpiringMap<ResourceRecord>
  readonly #tags: ExpiringMap<TagRecord>
  readonly #hub: InMemoryHub<Registrations>

  constructor({ clock, deliver, maxParked, maxBytes, maxRecords = 100_000 }: MemoryStoreOptions = {}) {
    this.clock = clock ?? systemClock
    this.maxParked = maxParked ?? MAX_PARKED
    this.maxBytes = maxBytes ?? DEFAULT_MAX_BYTES
    this.#budget = new MemoryBudget(this.maxBytes, maxRecords)
    this.#records = new ExpiringMap(this.clock, this.#budget)
    // Any tag may be evicted: results whose tags have no version are not served.
    this.#tags = new ExpiringMap(this.clock, new MemoryBudget(Number.POSITIVE_INFINITY, maxRecords))
    this.#hub = new InMemoryHub(deliver)
  }

  /** Number of records. */
  get size(): number {
    return this.#records.size
  }

  /** Bytes of all records, by estimate. */
  get bytes(): number {
    return this.#budget.bytes
  }

  /** Whether there is a record of a key, or room for one. */
  admits(key: string): boolean {
    return this.#budget.fits(RECORD_BYTES) || this.find(key) !== undefined
  }

  /** A new client of this store, with an inbox of its own. @internal */
  connect(): Store {
    const registrations: Registrations = { claimers: new Map(), listeners: new Set() }
    const inbox = this.#hub.connect(registrations)
    return new MemoryStoreClient(this, inbox, registrations, () => this.#hub.disconnect(inbox))
  }

  /** The record of a key, if there is one. @internal */
  find(key: string): ResourceRecord | undefined {
    return this.#records.get(key)
  }

  /** Runs a transition of a record, which is made if there is none, and deleted if it has expired then. @internal */
  apply<T>(key: string, transition: (record: ResourceRecord, at: TransitionContext) => T): T {
    const record = this.find(key) ?? new ResourceRecord()
    const reply = transition(record, this.#context(key))
    if (record.expiresAt > this.clock.now()) {
      const inUse = record.lease !== undefined || record.parks.size > 0
      this.#records.set(key, record, sizeOf(key, record), inUse)
    } else this.#records.delete(key)
    return reply
  }

  #context(key: string): TransitionContext {
    return {
      now: this.clock.now(),
      micros: this.#micros(),
      highestFence: 0,
      notify: (park, notice) =>
        this.#hub.send(park, ({ claimers }, nonce) => claimers.get(nonce)?.notice(notice)),
      broadcastInvalidation: (fence) => this.broadcastInvalidation(key, fence),
    }
  }

  /** µs since the epoch. */
  #micros(): number {
    return wallMicros(this.clock.now())
  }

  /** See `Store.tagVersions`. */
  tagVersions(tags: readonly string[], keepFor: number): number[] {
    return tags.map((tag) => {
      const known = this.#tags.get(tag)
      if (keepFor === 0) return known?.version ?? 0
      const record = known ?? { version: this.#micros(), expiresAt: 0 }
      record.expiresAt = Math.max(record.expiresAt, this.clock.now() + keepFor)
      this.#tags.set(tag, record, 0, false)
      return record.version
    })
  }

  /** See `Store.invalidateTag`. */
  invalidateTag(tag: string): void {
    const record = this.#tags.get(tag)
    const version = Math.max((record?.version ?? 0) + 1, this.#micros())
    if (record) record.version = version
    this.#broadcast((listener) => listener.tagInvalidated(tag, version))
  }

  /** Notifies all clients that results of a key up to a fence must not be served any more. */
  broadcastInvalidation(key: string, fence: number): void {
    this.#broadcast((listener) => listener.invalidated(key, fence))
  }

  #broadcast(notify: (listener: StoreListener) => void): void {
    this.#hub.broadcast(({ listeners }) => listeners.forEach(notify))
  }
}

/** Bytes of a record, by estimate. */
function sizeOf(key: string, { value, lease, outcome, parks }: ResourceRecord): number {
  const bytes = (value?.bytes.length ?? 0) + (outcome?.bytes?.length ?? 0) + (lease?.progress?.length ?? 0)
  return RECORD_BYTES + key.length + bytes + parks.size * PARK_BYTES
}

/** The store as one of its clients sees it. */
class MemoryStoreClient implements Store {
  readonly subscribed = true
  readonly #store: MemoryStore
  readonly #registrations: Registrations
  readonly #client: Client
  readonly #disconnect: () => void

  constructor(store: MemoryStore, inbox: string, registrations: Registrations, disconnect: () => void) {
    this.#store = store
    this.#registrations = registrations
    this.#client = { inbox, holder: `embedded:${process.pid}`, maxParked: store.maxParked }
    this.#disconnect = disconnect
  }

  claim(claim: Claim, _within: number, claimer: Claimer): void {
    claimer.sending()
    if (!this.#store.admits(claim.record)) {
      const full = new OverloadedError('Leases and waiters take all of `maxBytes` of the store')
      return microtask(() => claimer.claimFailed(full, claim.attempt))
    }
    this.#registrations.claimers.set(claim.nonce, claimer)
    const reply = this.#store.apply(claim.record, (record, at) => record.claim(claim, this.#client, at))
    microtask(() => claimer.claimed(reply, claim.attempt))
  }

  async renew(grant: GrantRef & { lease: number }): Promise<RenewReply> {
    return this.#store.apply(grant.record, (record, at) => record.renew(grant, this.#client, at))
  }

  async settle(settlement: Settlement): Promise<SettleReply> {
    const owned = { ...settlement, bytes: ownedBytes(settlement.bytes) }
    return this.#store.apply(settlement.record, (record, at) => record.settle(owned, this.#client, at))
  }

  async release(release: Release): Promise<ReleaseReply> {
    return this.#store.apply(release.record, (record, at) => record.release(release, this.#client, at))
  }

  async releaseIfUnwanted(
    grant: GrantRef & { outcomeRetention: number },
  ): Promise<'released' | 'wanted' | 'lost'> {
    return this.#store.apply(grant.record, (record, at) => record.releaseIfUnwanted(grant, this.#client, at))
  }

  async unpark(key: string, nonce: string): Promise<void> {
    this.#store.apply(key, (record, at) => record.unpark(this.#client.inbox + nonce, at))
  }

  async progress(grant: GrantRef & { bytes: Buffer }): Promise<boolean> {
    const owned = { ...grant, bytes: ownedBytes(grant.bytes) }
    return this.#store.apply(grant.record, (record, at) => record.progress(owned, this.#client, at))
  }

  async invalidate(key: string): Promise<InvalidateReply> {
    if (this.#store.find(key)) return this.#store.apply(key, (record, at) => record.invalidate(at))
    this.#store.broadcastInvalidation(key, Number.MAX_SAFE_INTEGER)
    return { invalidatedGrant: 0 }
  }

  async snapshot(key: string): Promise<Snapshot> {
    return this.#store.find(key)?.snapshot(this.#store.clock.now()) ?? { lease: undefined, value: undefined }
  }

  async readFresh(key: string, _within: number, sending?: () => void): Promise<Outcome | undefined> {
    sending?.()
    return this.#store.find(key)?.freshValue(this.#store.clock.now())
  }

  async tagVersions(tags: readonly string[], keepFor: number): Promise<number[]> {
    return this.#store.tagVersions(tags, keepFor)
  }

  async invalidateTag(tag: string): Promise<void> {
    this.#store.invalidateTag(tag)
  }

  get inbox(): string {
    return this.#client.inbox
  }

  /** All fences are granted by this store. */
  isPlausibleFence(): boolean {
    return true
  }

  ignore(nonce: string): void {
    this.#registrations.claimers.delete(nonce)
  }

  listen(listener: StoreListener): () => void {
    this.#registrations.listeners.add(listener)
    return () => this.#registrations.listeners.delete(listener)
  }

  close(): void {
    this.#disconnect()
  }
}
