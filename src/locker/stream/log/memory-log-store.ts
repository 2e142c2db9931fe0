import { OverloadedError } from '../../../errors.ts'
import { ownedBytes } from '../../../kernel/codec/binary.ts'
import { DEFAULT_MAX_BYTES, ExpiringMap, MemoryBudget } from '../../../kernel/in-memory-store.ts'
import { MESSAGE_LIMIT, newId } from '../../../kernel/keys.ts'
import { type Clock, microtask } from '../../../kernel/time.ts'
import {
  type Append,
  LOG_GRACE,
  type LogFollower,
  type LogStatus,
  type LogStore,
  READ_BYTES,
  READ_CHUNKS,
  type ReadReply,
  type ReadRequest,
} from './log-store.ts'

interface Log {
  /** Number of the first chunk that was not trimmed. */
  first: number
  chunks: Buffer[]
  /** What the log costs: its chunks, and what they and the log take beside. */
  bytes: number
  /** Retained for longer than a running producer asks for: no more chunks will come. */
  complete: boolean
  /** When it was last written, read or retained, by the clock. */
  usedAt: number
  /** Addresses: user id and nonce. */
  readonly followers: Set<string>
  expiresAt: number
}

/** Estimated cost of a log beside its chunks, and of a chunk beside its bytes. */
const LOG_OVERHEAD = 512
const CHUNK_OVERHEAD = 128

/** A log that was used within this time is in use, ms. */
const IN_USE = 10_000

/** Logs in the memory of this process, with the semantics of {@link LogStore}. Each user has its own {@link connect}. */
export class MemoryLogHub {
  readonly #clock: Clock
  readonly #budget: MemoryBudget<Log>
  readonly #logs: ExpiringMap<Log>
  /** By address: user id and nonce. Written by the users. */
  readonly listeners: Map<string, LogFollower> = new Map()

  /**
   * `maxBytes` limits the cost of all logs together. Beyond it, the complete log that was used longest ago is evicted, then
   * logs that are not in use. If the logs in use exceed it, appends are refused.
   */
  constructor(clock: Clock, maxBytes: number = DEFAULT_MAX_BYTES) {
    this.#clock = clock
    this.#budget = new MemoryBudget(maxBytes)
    this.#logs = new ExpiringMap(clock, this.#budget)
  }

  /** Number of logs, expired ones included until they are swept. */
  get size(): number {
    return this.#logs.size
  }

  /** A new user, with its own inbox. */
  connect(): LogStore {
    return new MemoryLogStore(this)
  }

  /** The log of this name, if it exists and has not expired. */
  find(name: string): Log | undefined {
    return this.#logs.get(name)
  }

  /** The log of this name; created if it does not exist. */
  open(name: string): Log {
    const found = this.find(name)
    if (found) return found
    const log: Log = {
      first: 0,
      chunks: [],
      bytes: LOG_OVERHEAD,
      complete: false,
      usedAt: this.#clock.now(),
      followers: new Set(),
      expiresAt: Number.POSITIVE_INFINITY,
    }
    this.#account(name, log)
    return log
  }

  /** Trims chunks before `trimBefore` and appends `chunks`. @throws OverloadedError when they exceed `maxBytes` */
  append(name: string, log: Log, chunks: readonly Buffer[], trimBefore: number): void {
    const trimmed = log.chunks.splice(0, Math.max(0, trimBefore - log.first))
    log.first += trimmed.length
    const growth = sizeOf(chunks) - sizeOf(trimmed) + (chunks.length - trimmed.length) * CHUNK_OVERHEAD
    if (!this.#budget.fits(growth)) this.#discardUnused()
    if (!this.#budget.fits(growth))
      throw new OverloadedError('The logs of streams exceed `maxBytes` of the store')
    log.chunks.push(...chunks.map(ownedBytes))
    log.bytes += growth
    this.#account(name, log)
  }

  /** Logs that ended without being kept, or whose producer has nothing to write. */
  #discardUnused(): void {
    const before = this.#clock.now() - IN_USE
    for (const [name, log] of this.#logs) if (log.usedAt < before) this.discard(name)
  }

  /** Keeps the log from expiring for `ms`. */
  retain(name: string, log: Log, ms: number): void {
    log.usedAt = this.#clock.now()
    const until = log.usedAt + ms
    if (log.expiresAt === Number.POSITIVE_INFINITY || log.expiresAt < until) log.expiresAt = until
    log.complete ||= ms > LOG_GRACE
    this.#account(name, log)
  }

  /** Only complete logs may be evicted. */
  #account(name: string, log: Log): void {
    this.#logs.set(name, log, log.bytes, !log.complete)
  }

  discard(name: string): void {
    this.#logs.delete(name)
  }

  /** Delivers a message to the followers of a log, in a microtask. Removes followers that listen no longer. */
  notify(log: Log, deliver: (follower: LogFollower) => void): void {
    for (const address of log.followers) {
      if (!this.listeners.has(address)) log.followers.delete(address)
      microtask(() => {
        const follower = this.listeners.get(address)
        if (follower) deliver(follower)
      })
    }
  }
}

function sizeOf(chunks: readonly Buffer[]): number {
  return chunks.reduce((sum, chunk) => sum + chunk.length, 0)
}

/** One user of a hub. */
class MemoryLogStore implements LogStore {
  readonly subscribed = true
  readonly #id = newId()
  readonly #hub: MemoryLogHub

  constructor(hub: MemoryLogHub) {
    this.#hub = hub
  }

  async append(name: string, { from, chunks, trimBefore, retainFor }: Append): Promise<LogStatus> {
    const found = this.#hub.find(name)
    const length = found ? found.first + found.chunks.length : 0
    if (length < from) return { intact: false, followers: 0 }
    const log = this.#hub.open(name)
    this.#hub.append(name, log, chunks.slice(length - from), trimBefore)
    this.#hub.retain(name, log, retainFor)
    const newLength = from + chunks.length
    const fits = sizeOf(chunks) <= MESSAGE_LIMIT
    this.#hub.notify(log, (follower) => {
      if (fits) follower.onAppended(from, chunks, newLength)
      else follower.onAppended(newLength, [], newLength)
    })
    return { intact: true, followers: log.followers.size }
  }

  async read(name: string, { from, followerNonce }: ReadRequest): Promise<ReadReply> {
    if (!this.#hub.find(name) && (from > 0 || followerNonce === undefined)) return { status: 'missing' }
    const log = this.#hub.open(name)
    if (from < log.first) return { status: 'trimmed' }
    const chunks: Buffer[] = []
    let bytes = 0
    for (const chunk of log.chunks.slice(from - log.first, from - log.first + READ_CHUNKS)) {
      if (chunks.length > 0 && bytes + chunk.length > READ_BYTES) break
      bytes += chunk.length
      chunks.push(chunk)
    }
    if (followerNonce !== undefined) log.followers.add(this.#id + followerNonce)
    this.#hub.retain(name, log, LOG_GRACE)
    return { status: 'read', chunks, more: from + chunks.length < log.first + log.chunks.length }
  }

  async retain(name: string, ms: number): Promise<LogStatus> {
    const log = this.#hub.find(name)
    if (!log) return { intact: false, followers: 0 }
    this.#hub.retain(name, log, ms)
    return { intact: true, followers: log.followers.size }
  }

  async discard(name: string, force: boolean): Promise<boolean> {
    const log = this.#hub.find(name)
    if (log && !force && log.followers.size > 0) return false
    if (log) this.#hub.discard(name)
    return true
  }

  async unfollow(name: string, followerNonce: string): Promise<void> {
    this.#hub.find(name)?.followers.delete(this.#id + followerNonce)
  }

  listen(nonce: string, follower: LogFollower): void {
    this.#hub.listeners.set(this.#id + nonce, follower)
  }

  ignore(nonce: string): void {
    this.#hub.listeners.delete(this.#id + nonce)
  }

  onSubscriptionChange(): () => void {
    return () => {}
  }
}
