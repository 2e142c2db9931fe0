import { OverloadedError } from '../../../errors.ts'
import { ownedBytes } from '../../../kernel/codec/binary.ts'
import { DEFAULT_MAX_BYTES, MemoryBudget } from '../../../kernel/collections/memory-budget.ts'
import { sweeper } from '../../../kernel/collections/sweeper.ts'
import { newId } from '../../../kernel/ids.ts'
import type { Clock } from '../../../kernel/time/clock.ts'
import { microtask } from '../../../kernel/time/timers.ts'
import { MESSAGE_LIMIT } from '../../store/store.ts'
import {
  type Append,
  LOG_GRACE,
  type LogFollower,
  type LogStore,
  READ_BYTES,
  READ_CHUNKS,
  type Read,
  type ReadReply,
} from './log-store.ts'

/** One log. */
interface Log {
  /** Number of the first chunk that is kept. */
  first: number
  chunks: Buffer[]
  bytes: number
  /** Kept for longer than its producer needs to write on: nothing more will come. */
  complete: boolean
  /** When it was last written or read. */
  usedAt: number
  /** Whom an append tells, and where that is heard. */
  followers: Map<string, Hearing>
  expiresAt: number
}

/** Whether somebody hears a message for this nonce, and takes it. */
type Hearing = (nonce: string, tell: (follower: LogFollower) => void) => boolean

/** What a log takes beside its chunks, about, and a chunk beside its bytes. */
const LOG_BYTES = 512
const CHUNK_BYTES = 128

/** A log that was used within so long is in use, ms. */
const IN_USE = 10_000

/** Logs in this process's memory: the same as on Redis. Each user has a {@link connect} of its own. */
export class MemoryLogs {
  readonly #clock: Clock
  readonly #budget: MemoryBudget<Log>
  readonly #logs = new Map<string, Log>()
  readonly #sweepLater: () => void

  /**
   * `maxBytes`: of all logs together. Beyond it the complete one that was used longest ago is forgotten; when those in
   * use are too many by themselves, no more is written.
   */
  constructor(clock: Clock, maxBytes: number = DEFAULT_MAX_BYTES) {
    this.#clock = clock
    this.#budget = new MemoryBudget(maxBytes)
    this.#sweepLater = sweeper(clock, () => {
      for (const name of [...this.#logs.keys()]) this.find(name)
      return this.#logs.size > 0
    })
  }

  /** Number of the logs that are kept. */
  get size(): number {
    return this.#logs.size
  }

  /** A new user, with an inbox of its own. */
  connect(): LogStore {
    return new MemoryLogUser(this)
  }

  /** The log of a name, if there is one. */
  find(name: string): Log | undefined {
    const log = this.#logs.get(name)
    if (!log || log.expiresAt > this.#clock.now()) return log
    this.forget(name, log)
    return undefined
  }

  /** The same, and else a new one. */
  open(name: string): Log {
    const found = this.find(name)
    if (found) return found
    const log: Log = {
      first: 0,
      chunks: [],
      bytes: LOG_BYTES,
      complete: false,
      usedAt: this.#clock.now(),
      followers: new Map(),
      expiresAt: Number.POSITIVE_INFINITY,
    }
    this.#logs.set(name, log)
    this.#count(name, log)
    this.#sweepLater()
    return log
  }

  /** Puts chunks at its end and takes those before `first` away. Throws OverloadedError when there is no room. */
  grow(name: string, log: Log, chunks: readonly Buffer[], first: number): void {
    const gone = log.chunks.splice(0, Math.max(0, first - log.first))
    log.first += gone.length
    const grown = sizeOf(chunks) + (chunks.length - gone.length) * CHUNK_BYTES - sizeOf(gone)
    if (!this.#budget.fits(grown)) this.#forgetUnused()
    if (!this.#budget.fits(grown))
      throw new OverloadedError('Too much is streamed already (`maxBytes` of the store)')
    log.chunks.push(...chunks.map(ownedBytes))
    log.bytes += grown
    this.#count(name, log)
  }

  /** Logs that ended without being kept, or whose producer has nothing to write. */
  #forgetUnused(): void {
    const before = this.#clock.now() - IN_USE
    for (const [name, log] of this.#logs) if (log.usedAt < before) this.forget(name, log)
  }

  keep(name: string, log: Log, ms: number): void {
    log.usedAt = this.#clock.now()
    const until = log.usedAt + ms
    if (log.expiresAt === Number.POSITIVE_INFINITY || log.expiresAt < until) log.expiresAt = until
    log.complete ||= ms > LOG_GRACE
    this.#count(name, log)
  }

  #count(name: string, log: Log): void {
    this.#budget.set(log, log.bytes, log.complete ? () => this.#logs.delete(name) : undefined)
  }

  forget(name: string, log: Log): void {
    this.#logs.delete(name)
    this.#budget.delete(log)
  }
}

function sizeOf(chunks: readonly Buffer[]): number {
  return chunks.reduce((sum, chunk) => sum + chunk.length, 0)
}

class MemoryLogUser implements LogStore {
  readonly subscribed = true
  readonly #id = newId()
  readonly #logs: MemoryLogs
  readonly #listeners = new Map<string, LogFollower>()

  constructor(logs: MemoryLogs) {
    this.#logs = logs
  }

  async append(
    name: string,
    { from, chunks, first, keep }: Append,
  ): Promise<{ kept: boolean; followers: number }> {
    const found = this.#logs.find(name)
    const length = found ? found.first + found.chunks.length : 0
    if (length < from) return { kept: false, followers: 0 }
    const log = this.#logs.open(name)
    this.#logs.grow(name, log, chunks.slice(length - from), first)
    this.#logs.keep(name, log, keep)
    const told = sizeOf(chunks) <= MESSAGE_LIMIT ? chunks : []
    const tell = (follower: LogFollower) =>
      follower.appended(told.length === 0 ? from + chunks.length : from, told, from + chunks.length)
    for (const [park, hear] of log.followers) {
      if (!hear(park.slice(this.#id.length), tell)) log.followers.delete(park)
    }
    return { kept: true, followers: log.followers.size }
  }

  async read(name: string, { from, follower }: Read): Promise<ReadReply> {
    if (!this.#logs.find(name) && (from > 0 || follower === undefined)) return { status: 'gone' }
    const log = this.#logs.open(name)
    if (from < log.first) return { status: 'trimmed' }
    const chunks: Buffer[] = []
    let bytes = 0
    for (const chunk of log.chunks.slice(from - log.first, from - log.first + READ_CHUNKS)) {
      if (chunks.length > 0 && bytes + chunk.length > READ_BYTES) break
      bytes += chunk.length
      chunks.push(chunk)
    }
    if (follower !== undefined) log.followers.set(this.#id + follower, this.#hear)
    this.#logs.keep(name, log, LOG_GRACE)
    return { status: 'read', chunks, more: from + chunks.length < log.first + log.chunks.length }
  }

  readonly #hear: Hearing = (nonce, tell) => {
    const listening = this.#listeners.has(nonce)
    microtask(() => {
      const follower = this.#listeners.get(nonce)
      if (follower) tell(follower)
    })
    return listening
  }

  async keep(name: string, ms: number): Promise<{ kept: boolean; followers: number }> {
    const log = this.#logs.find(name)
    if (!log) return { kept: false, followers: 0 }
    this.#logs.keep(name, log, ms)
    return { kept: true, followers: log.followers.size }
  }

  async forget(name: string, anyway: boolean): Promise<boolean> {
    const log = this.#logs.find(name)
    if (log && !anyway && log.followers.size > 0) return false
    if (log) this.#logs.forget(name, log)
    return true
  }

  async unfollow(name: string, follower: string): Promise<void> {
    this.#logs.find(name)?.followers.delete(this.#id + follower)
  }

  listen(nonce: string, follower: LogFollower): void {
    this.#listeners.set(nonce, follower)
  }

  ignore(nonce: string): void {
    this.#listeners.delete(nonce)
  }

  onLink(): () => void {
    return () => {}
  }
}
