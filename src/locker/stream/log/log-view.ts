import { assertTransition, type Transitions } from '../../../kernel/collections.ts'
import { digestOf, FORMAT, newId } from '../../../kernel/keys.ts'
import type { Clock, Timer } from '../../../kernel/time.ts'
import type { WaitNode } from '../../../kernel/work-scheduler.ts'
import type { StreamHost } from '../options.ts'
import { type Interruption, isShared, type StreamEnd } from '../stream-record.ts'
import { LOG_GRACE, type LogFollower, type LogStore, type ReadReply } from './log-store.ts'

/** What a process knows of a log. */
export type LogState =
  /** Messages may be missed. The next read registers this process as a follower. */
  | { readonly kind: 'unfollowed' }
  /** This process is a follower: a message announces every append. */
  | { readonly kind: 'following' }
  /** This process produces the log: its producer announces every append. */
  | { readonly kind: 'owned' }
  /** The record has accepted this end. `original`: the thrown value, in the process in which the work failed. */
  | { readonly kind: 'finished'; readonly end: StreamEnd; readonly original: unknown }
  | { readonly kind: 'interrupted'; readonly interruption: Interruption }

/**
 * | from                         | event                                      | to                           |
 * | ---------------------------- | ------------------------------------------ | ---------------------------- |
 * | unfollowed                   | a read has registered the follower         | following                    |
 * | following                    | the subscription changed, or a poll is due | unfollowed: readers are told |
 * | unfollowed, following        | a producer is attached                     | owned                        |
 * | unfollowed, following, owned | the log will never be complete             | interrupted                  |
 * | any but finished             | the record has accepted an end             | finished                     |
 *
 * A producer may have been told that its publish failed although the record accepted it; so an end replaces an
 * interruption. In each state, the view is removed when its last reader and its producer have left.
 */
const TRANSITIONS: Transitions<LogState['kind']> = {
  unfollowed: ['following', 'owned', 'interrupted', 'finished'],
  following: ['unfollowed', 'owned', 'interrupted', 'finished'],
  owned: ['interrupted', 'finished'],
  interrupted: ['finished'],
  finished: [],
}

/** The producer of a log, in the same process. */
export interface LogProducer {
  /** The wait-for edge of a reader that waits for this chunk: to the work, until the work has produced the chunk. */
  waitNodeFor(chunk: number): WaitNode
  /** A reader of this process has joined, left or advanced. */
  onReadersChanged(): void
}

/** A reader of a log, in the same process. */
export interface LogReader {
  /** Number of the chunk that it reads next. */
  readonly position: number
  /** There may be further chunks, or another state. */
  onLogChanged(): void
}

/** What views use of their locker. */
type LogViewDeps = Pick<StreamHost, 'logs' | 'clock' | 'prefix' | 'unavailableAfter'>

/** The views that one locker has of logs, shared and unshared ones. A view lives while it has a reader or a producer. */
export class LogViews {
  readonly #deps: LogViewDeps
  readonly #unsharedLogs: LogStore
  readonly #views = new Map<string, LogView>()

  constructor(deps: LogViewDeps, unsharedLogs: LogStore) {
    this.#deps = deps
    this.#unsharedLogs = unsharedLogs
  }

  /** The name of the log in its store. It holds a digest, since keys may be of any length and contain anything. */
  #nameOf(key: string, log: string): string {
    return isShared(log) ? `${this.#deps.prefix}:${FORMAT}:x/${digestOf(key)}/${log}` : log
  }

  find(key: string, log: string): LogView | undefined {
    return this.#views.get(this.#nameOf(key, log))
  }

  /** The view of a log; created if there is none. `pollInterval` is an upper bound, ms. */
  open(key: string, log: string, pollInterval: number): LogView {
    const name = this.#nameOf(key, log)
    const found = this.#views.get(name)
    if (found) return found
    const logs = isShared(log) ? this.#deps.logs : this.#unsharedLogs
    const view = new LogView(name, logs, this.#deps, pollInterval, () => {
      this.#views.delete(name)
      // No other process knows an unshared log.
      if (!isShared(log)) void logs.discard(name, true, 0)
    })
    this.#views.set(name, view)
    return view
  }
}

/** A follower polls the log after this time without a message at most, ms. */
const POLL_INTERVAL = 5_000

/** The same while the subscription is lost, ms. */
const POLL_WHILE_DISCONNECTED = 500

/** The view that one process has of a log. All its readers in this process share it. */
export class LogView implements LogFollower {
  /** Name of the log in its store. */
  readonly name: string
  readonly logs: LogStore
  readonly readers: Set<LogReader> = new Set()
  readonly #clock: Clock
  readonly #unavailableAfter: number
  readonly #pollInterval: number
  readonly #onIdle: () => void
  #state: LogState = { kind: 'unfollowed' }
  /** Set while a producer is attached. */
  #producer: LogProducer | undefined
  /** Number of chunks that were appended, as far as this process knows. */
  #length = 0
  readonly #tailBuffer = new TailBuffer()
  /** Reads that are under way, by their first chunk. Readers at the same position share one. */
  readonly #reads = new Map<number, Promise<ReadReply>>()
  readonly #nonce = newId()
  /** Set from the first read that registers this process as a follower, until it does not follow any more. */
  #subscription: { unwatch: () => void; poll: Timer | undefined } | undefined
  /** When the log was last read or retained from here, by the clock. */
  #retainedAt = Number.NEGATIVE_INFINITY

  /** Calls `onIdle` when the last reader and the producer have left. */
  constructor(name: string, logs: LogStore, deps: LogViewDeps, pollInterval: number, onIdle: () => void) {
    this.name = name
    this.logs = logs
    this.#clock = deps.clock
    this.#unavailableAfter = deps.unavailableAfter
    this.#pollInterval = pollInterval
    this.#onIdle = onIdle
  }

  get state(): LogState {
    return this.#state
  }

  #enter(state: LogState): void {
    assertTransition('log view', TRANSITIONS, this.#state.kind, state.kind)
    this.#state = state
  }

  /** This process produces the log. The producer stays attached until {@link detachProducer}, also in later states. */
  attachProducer(producer: LogProducer): void {
    this.#enter({ kind: 'owned' })
    this.#unsubscribe()
    this.#producer = producer
  }

  detachProducer(): void {
    this.#producer = undefined
    this.#leaveIfIdle()
  }

  join(reader: LogReader): void {
    this.readers.add(reader)
    this.#producer?.onReadersChanged()
  }

  leave(reader: LogReader): void {
    if (!this.readers.delete(reader)) return
    this.#producer?.onReadersChanged()
    this.#leaveIfIdle()
  }

  /** The position of a reader has changed. */
  readerAdvanced(): void {
    this.#producer?.onReadersChanged()
  }

  /** The wait-for edge of a reader that waits for this chunk, if the producer is in this process. */
  waitNodeFor(chunk: number): WaitNode | undefined {
    return this.#producer?.waitNodeFor(chunk)
  }

  #leaveIfIdle(): void {
    if (this.#producer || this.readers.size > 0) return
    // A complete log sends no messages, so the follower may stay registered in it.
    if (this.#subscription) this.logs.unfollow(this.name, this.#nonce, this.#unavailableAfter).catch(() => {})
    this.#unsubscribe()
    this.logs.ignore(this.#nonce)
    this.#onIdle()
  }

  chunkAt(number: number): Buffer | undefined {
    return this.#tailBuffer.chunkAt(number)
  }

  /** Whether a chunk that is not buffered must be read. Otherwise `onLogChanged` announces it. */
  mustRead(number: number): boolean {
    return number < this.#length || this.#state.kind === 'unfollowed'
  }

  /** Keeps a complete log from expiring while a reader takes chunks, also out of a buffer. */
  retain(): void {
    if (this.#state.kind !== 'finished') return
    const now = this.#clock.now()
    if (now - this.#retainedAt < LOG_GRACE / 2) return
    this.#retainedAt = now
    this.logs.retain(this.name, LOG_GRACE, this.#unavailableAfter).catch(() => {})
  }

  /** Reads chunks from this number on. Registers this process as a follower, unless it produces the log. */
  read(from: number): Promise<ReadReply> {
    let read = this.#reads.get(from)
    if (!read) {
      read = this.#read(from).finally(() => this.#reads.delete(from))
      this.#reads.set(from, read)
    }
    return read
  }

  async #read(from: number): Promise<ReadReply> {
    const follows = this.#state.kind === 'unfollowed' || this.#state.kind === 'following'
    if (follows) this.#subscribe()
    const request = { from, followerNonce: follows ? this.#nonce : undefined }
    const known = this.#length
    this.#retainedAt = this.#clock.now()
    const reply = await this.logs.read(this.name, request, this.#unavailableAfter)
    if (reply.status !== 'read') return reply
    const end = from + reply.chunks.length
    if (follows) this.#onRegistered()
    // The reader begins behind what is known. That the log has so many chunks is not said.
    if (reply.chunks.length === 0 && !reply.more && from > this.#length) return reply
    if (!reply.more) this.#tailBuffer.add(from, reply.chunks)
    this.#grow(reply.more ? end + 1 : end)
    // A forged message announced chunks that do not exist. Reading for them again and again would not end.
    if (!reply.more && this.#state.kind !== 'finished' && this.#length === known) this.#length = end
    return reply
  }

  #subscribe(): void {
    if (this.#subscription) return
    const unwatch = this.logs.onSubscriptionChange(() => this.#refollow())
    this.#subscription = { unwatch, poll: undefined }
    this.logs.listen(this.#nonce, this)
  }

  #onRegistered(): void {
    if (!this.#subscription) return
    if (this.#state.kind === 'unfollowed') this.#enter({ kind: 'following' })
    this.#schedulePoll()
  }

  /** Messages may have been lost: has the readers read once more. */
  #refollow(): void {
    if (this.#state.kind === 'following') this.#enter({ kind: 'unfollowed' })
    this.#notifyReaders()
    this.#schedulePoll()
  }

  #schedulePoll(): void {
    const subscription = this.#subscription
    if (!subscription) return
    const interval = this.logs.subscribed ? POLL_INTERVAL : POLL_WHILE_DISCONNECTED
    const ms = Math.min(interval, this.#pollInterval)
    subscription.poll?.cancel()
    subscription.poll = this.#clock.after(ms, () => this.#refollow(), true)
  }

  #unsubscribe(): void {
    this.#subscription?.poll?.cancel()
    this.#subscription?.unwatch()
    this.#subscription = undefined
  }

  onAppended(from: number, chunks: readonly Buffer[], length: number): void {
    if (this.#state.kind === 'interrupted') return
    this.#tailBuffer.add(from, chunks)
    this.#grow(length)
  }

  #grow(length: number): void {
    if (length <= this.#length) return
    this.#length = length
    this.#notifyReaders()
  }

  #notifyReaders(): void {
    for (const reader of [...this.readers]) reader.onLogChanged()
  }

  /** The record has accepted this end. */
  finish(end: StreamEnd, original?: unknown): void {
    if (this.#state.kind === 'finished') return
    this.#enter({ kind: 'finished', end, original })
    this.#length = Math.max(this.#length, end.count)
    this.#unsubscribe()
    this.#notifyReaders()
  }

  /** The log will never be complete. Ignored when it is, or was interrupted before. */
  interrupt(interruption: Interruption): void {
    if (this.#state.kind === 'finished' || this.#state.kind === 'interrupted') return
    this.#enter({ kind: 'interrupted', interruption })
    this.#notifyReaders()
  }
}

/** A process buffers at least this many of the newest bytes and chunks of one log for its readers, and up to twice as many. */
const MAX_BUFFERED_BYTES = 256 * 1024
const MAX_BUFFERED_CHUNKS = 1024

/** The newest chunks of a log, without a gap. Its size is bounded, whatever the position of the slowest reader. */
export class TailBuffer {
  /** Number of the first chunk, and of the one after the last. */
  #first = 0
  #end = 0
  #chunks: Buffer[] = []
  #bytes = 0

  chunkAt(number: number): Buffer | undefined {
    return this.#chunks[number - this.#first]
  }

  /** Adds chunks from number `from` on. Ignores chunks that it has. A gap drops what came before it. */
  add(from: number, chunks: readonly Buffer[]): void {
    const end = from + chunks.length
    if (end <= this.#end) return
    if (from > this.#end) this.#resetTo(from)
    for (let number = this.#end; number < end; number++) {
      const chunk = chunks[number - from] as Buffer
      this.#chunks.push(chunk)
      this.#bytes += chunk.length
    }
    this.#end = end
    // Trims half of it at a time: slicing for every chunk would cost the square.
    if (this.#bytes > 2 * MAX_BUFFERED_BYTES || this.#chunks.length > 2 * MAX_BUFFERED_CHUNKS) this.#trim()
  }

  #resetTo(from: number): void {
    this.#first = from
    this.#end = from
    this.#chunks = []
    this.#bytes = 0
  }

  #trim(): void {
    let trimmed = 0
    while (this.#bytes > MAX_BUFFERED_BYTES || this.#chunks.length - trimmed > MAX_BUFFERED_CHUNKS)
      this.#bytes -= this.#chunks[trimmed++]?.length ?? 0
    this.#chunks = this.#chunks.slice(trimmed)
    this.#first += trimmed
  }
}
