import { OverloadedError } from '../../errors.ts'
import { ownedBytes } from '../../kernel/codec/binary.ts'
import { type Clock, microtask, systemClock, wallMicros } from '../../kernel/event-loop.ts'
import { newId } from '../../kernel/keys.ts'
import { DEFAULT_MAX_BYTES, MemoryBudget, sweeper } from '../../kernel/memory-budget.ts'
import { type Client, ResourceRecord, type TransitionContext } from './record.ts'
import {
  type CallLimits,
  type Claim,
  type Claimer,
  type GrantRef,
  MAX_PARKED,
  type Notice,
  type Outcome,
  type Release,
  type Settlement,
  type Snapshot,
  type Store,
  type StoreListener,
} from './store.ts'

/** Options of a {@link MemoryStore}. */
export interface MemoryStoreOptions {
  /**
   * Most records that are kept; beyond it the oldest results are forgotten. Running and waited-for ones never are.
   * @default 100_000
   */
  maxRecords?: number | undefined
  /**
   * Most bytes of all records, and as many of the chunks of streams; beyond it the oldest results are forgotten. Running
   * and waited-for ones never are: when those alone are too many, new keys are refused with OverloadedError.
   * @default 268_435_456
   */
  maxBytes?: number | undefined
  /** Another clock than the process's own: for tests. */
  clock?: Clock | undefined
  /** Carries out what a record tells: for tests that delay or lose messages. By default after the present tick. */
  deliver?: ((message: () => void) => void) | undefined
  /** Flights that may be parked on one record. */
  maxParked?: number | undefined
}

/** What a record takes beside its bytes, about, and so does each place of one who waits. */
const RECORD_BYTES = 512
const PARK_BYTES = 128

/** A tag: its epoch, and until when that is to be known. */
interface TagRecord {
  epoch: number
  until: number
}

/** One user of the memory store: what a process is to Redis. */
interface Endpoint {
  readonly claimers: Map<string, Claimer>
  readonly storeListeners: Set<StoreListener>
}

/**
 * The Locker's store in this process's memory: the embedded default, and what tests use to let several lockers behave
 * like several processes. The same state machine as on Redis.
 */
export class MemoryStore {
  readonly clock: Clock
  readonly maxParked: number
  readonly maxBytes: number
  readonly #budget: MemoryBudget<ResourceRecord>
  readonly #maxRecords: number
  readonly #deliver: (message: () => void) => void
  readonly #records = new Map<string, ResourceRecord>()
  readonly #endpoints = new Map<string, Endpoint>()
  readonly #tags = new Map<string, TagRecord>()
  readonly #sweepLater: () => void

  constructor(options: MemoryStoreOptions = {}) {
    this.clock = options.clock ?? systemClock
    this.maxParked = options.maxParked ?? MAX_PARKED
    this.#maxRecords = options.maxRecords ?? 100_000
    this.maxBytes = options.maxBytes ?? DEFAULT_MAX_BYTES
    this.#budget = new MemoryBudget(this.maxBytes, this.#maxRecords)
    this.#deliver = options.deliver ?? microtask
    this.#sweepLater = sweeper(this.clock, () => {
      for (const key of [...this.#records.keys()]) this.find(key)
      for (const tag of [...this.#tags.keys()]) this.#tag(tag)
      return this.#records.size + this.#tags.size > 0
    })
  }

  /** Number of records that are kept. */
  get size(): number {
    return this.#records.size
  }

  /** Bytes of all records, about. */
  get bytes(): number {
    return this.#budget.bytes
  }

  /** Whether there is room for a record of a key, or one already. */
  admits(key: string): boolean {
    return this.#budget.fits(RECORD_BYTES) || this.find(key) !== undefined
  }

  /** A new user of this store, with an inbox of its own. */
  connect(): Store {
    const id = newId()
    const endpoint: Endpoint = { claimers: new Map(), storeListeners: new Set() }
    this.#endpoints.set(id, endpoint)
    return new MemoryEndpoint(this, id, endpoint, () => this.#endpoints.delete(id))
  }

  /** The record of a key, if there is one. */
  find(key: string): ResourceRecord | undefined {
    const record = this.#records.get(key)
    if (!record || record.expiresAt > this.clock.now()) return record
    this.#forget(key, record)
    return undefined
  }

  #forget(key: string, record: ResourceRecord): void {
    this.#records.delete(key)
    this.#budget.delete(record)
  }

  /** Runs a transition that may begin a record, and forgets the record if nothing is left of it. */
  change<T>(key: string, transition: (record: ResourceRecord, at: TransitionContext) => T): T {
    const record = this.find(key) ?? new ResourceRecord()
    const reply = transition(record, this.#surroundings(key))
    if (record.expiresAt > this.clock.now()) {
      this.#records.set(key, record)
      const inUse = record.lease !== undefined || record.parks.size > 0
      this.#budget.set(record, sizeOf(key, record), inUse ? undefined : () => this.#records.delete(key))
    } else this.#forget(key, record)
    this.#sweepLater()
    return reply
  }

  #surroundings(key: string): TransitionContext {
    return {
      now: this.clock.now(),
      micros: this.#micros(),
      highestFence: 0,
      notify: (park, notice) => this.#tell(park, notice),
      broadcastInvalidation: (fence) => this.drop(key, fence),
    }
  }

  /** µs since the epoch. */
  #micros(): number {
    return wallMicros(this.clock.now())
  }

  /** The epochs of tags; 0: it has none. With `keepFor` (ms), each has one, and keeps it at least that long. */
  tagVersions(tags: readonly string[], keepFor: number): number[] {
    const now = this.clock.now()
    return tags.map((tag) => {
      const known = this.#tag(tag)
      if (keepFor === 0) return known?.epoch ?? 0
      const record = {
        epoch: known?.epoch ?? this.#micros(),
        until: Math.max(known?.until ?? 0, now + keepFor),
      }
      this.#tags.delete(tag)
      this.#tags.set(tag, record)
      this.#evictTag()
      this.#sweepLater()
      return record.epoch
    })
  }

  /** What has no epoch matches nothing: the oldest can be forgotten. */
  #evictTag(): void {
    const [oldest] = this.#tags.keys()
    if (oldest !== undefined && this.#tags.size > this.#maxRecords) this.#tags.delete(oldest)
  }

  #tag(tag: string): TagRecord | undefined {
    const record = this.#tags.get(tag)
    if (!record || record.until > this.clock.now()) return record
    this.#tags.delete(tag)
    return undefined
  }

  /** Begins a new epoch of a tag. */
  invalidateTag(tag: string): void {
    const record = this.#tag(tag)
    const epoch = Math.max((record?.epoch ?? 0) + 1, this.#micros())
    if (record) record.epoch = epoch
    this.#broadcast((listener) => listener.tagInvalidated(tag, epoch))
  }

  #tell(park: string, notice: Notice): boolean {
    const half = park.length / 2
    const endpoint = this.#endpoints.get(park.slice(0, half))
    this.#deliver(() => endpoint?.claimers.get(park.slice(half))?.notice(notice))
    return endpoint !== undefined
  }

  /** Tells every user that what was kept for a key up to a fence is no longer to be served. */
  drop(key: string, fence: number): void {
    this.#broadcast((listener) => listener.invalidated(key, fence))
  }

  #broadcast(tell: (listener: StoreListener) => void): void {
    for (const { storeListeners } of this.#endpoints.values())
      this.#deliver(() => storeListeners.forEach(tell))
  }
}

/** Bytes of a record, about. */
function sizeOf(key: string, { value, lease, outcome, parks }: ResourceRecord): number {
  const kept = (value?.bytes.length ?? 0) + (outcome?.bytes?.length ?? 0) + (lease?.progress?.length ?? 0)
  return RECORD_BYTES + key.length + kept + parks.size * PARK_BYTES
}

class MemoryEndpoint implements Store {
  readonly subscribed = true
  readonly #store: MemoryStore
  readonly #endpoint: Endpoint
  readonly #party: Client
  readonly #leave: () => void

  constructor(store: MemoryStore, id: string, endpoint: Endpoint, leave: () => void) {
    this.#store = store
    this.#endpoint = endpoint
    this.#party = { inbox: id, holder: `embedded:${process.pid}`, maxParked: store.maxParked }
    this.#leave = leave
  }

  claim(claim: Claim, _within: number, claimer: Claimer): void {
    claimer.sending()
    if (!this.#store.admits(claim.key)) {
      const full = new OverloadedError(
        'Too much is computed and waited for already (`maxBytes` of the store)',
      )
      return microtask(() => claimer.claimFailed(full, claim.attempt))
    }
    this.#endpoint.claimers.set(claim.nonce, claimer)
    const reply = this.#store.change(claim.key, (record, at) => record.claim(claim, this.#party, at))
    microtask(() => claimer.claimed(reply, claim.attempt))
  }

  async renew(grant: GrantRef & { lease: number }): Promise<{ held: boolean; invalidated: boolean }> {
    return this.#store.change(grant.key, (record, at) => record.renew(grant, this.#party, at))
  }

  async settle(settlement: Settlement): Promise<{ accepted: boolean; invalidated: boolean }> {
    const kept = { ...settlement, bytes: ownedBytes(settlement.bytes) }
    return this.#store.change(settlement.key, (record, at) => record.settle(kept, this.#party, at))
  }

  async release(release: Release): Promise<{ released: boolean; fence: number | undefined }> {
    return this.#store.change(release.key, (record, at) => record.release(release, this.#party, at))
  }

  async releaseIfUnwanted(
    grant: GrantRef & { outcomeRetention: number },
  ): Promise<'released' | 'wanted' | 'lost'> {
    return this.#store.change(grant.key, (record, at) => record.releaseIfUnwanted(grant, this.#party, at))
  }

  async unpark(key: string, nonce: string): Promise<void> {
    this.#store.change(key, (record, at) => record.unpark(this.#party.inbox + nonce, at))
  }

  async progress(grant: GrantRef & { bytes: Buffer }): Promise<void> {
    const kept = { ...grant, bytes: ownedBytes(grant.bytes) }
    this.#store.change(grant.key, (record, at) => record.progress(kept, this.#party, at))
  }

  async invalidate(key: string): Promise<{ invalidatedGrant: number }> {
    if (this.#store.find(key)) return this.#store.change(key, (record, at) => record.invalidate(at))
    this.#store.drop(key, Number.MAX_SAFE_INTEGER)
    return { invalidatedGrant: 0 }
  }

  async snapshot(key: string): Promise<Snapshot> {
    return this.#store.find(key)?.snapshot(this.#store.clock.now()) ?? { lease: undefined, value: undefined }
  }

  async readFresh(key: string, _limits: CallLimits, sending?: () => void): Promise<Outcome | undefined> {
    sending?.()
    return this.#store.find(key)?.freshValue(this.#store.clock.now())
  }

  async tagVersions(tags: readonly string[], keepFor: number): Promise<number[]> {
    return this.#store.tagVersions(tags, keepFor)
  }

  async invalidateTag(tag: string): Promise<void> {
    this.#store.invalidateTag(tag)
  }

  /** Nobody else writes here. */
  isPlausibleFence(): boolean {
    return true
  }

  ignore(nonce: string): void {
    this.#endpoint.claimers.delete(nonce)
  }

  listen(listener: StoreListener): () => void {
    this.#endpoint.storeListeners.add(listener)
    return () => this.#endpoint.storeListeners.delete(listener)
  }

  close(): void {
    this.#leave()
  }
}
