import type { Clock, Timer } from '../../../kernel/event-loop.ts'
import { newId } from '../../../kernel/keys.ts'
import type { WaitNode } from '../../flight/deadlock.ts'
import type { StreamEnd } from '../stream-record.ts'
import { LOG_GRACE, type LogFollower, type LogStore, type ReadReply } from './log-store.ts'
import { TailBuffer } from './tail-buffer.ts'

/** A log that will never be complete. */
export interface Interruption {
  /** Whether a reader that was delivered nothing of it locates the stream once more. */
  canRestart: boolean
  /** The error of a reader that does not. */
  error(key: string): Error
}

/** The producer of a log, in the same process. */
export interface LocalProducer {
  /** The wait-for edge of a reader that waits for this chunk: to the work, until the work has produced the chunk. */
  waitNodeFor(chunk: number): WaitNode
}

/** A reader of a log, in the same process. */
export interface ViewReader {
  /** Number of the chunk that it reads next. */
  readonly position: number
  /** There may be further chunks, or the end. */
  onChange(): void
  /** The log will never be complete. */
  onInterrupted(interruption: Interruption): void
}

/** A follower polls the log after this time without a message at most, ms. */
const POLL_INTERVAL = 5_000

/** The same while the subscription is lost, ms. */
const POLL_WHILE_DISCONNECTED = 500

export interface LogViewOptions {
  logs: LogStore
  /** Name of the log. */
  name: string
  clock: Clock
  /** Longest silence of Redis, ms. */
  unavailableAfter: number
  /** Upper bound of the poll interval, ms. */
  lease: number
  /** The last reader and the producer have left. */
  onIdle(view: LogView): void
}

/**
 * The view that one process has of a log; all its readers share it. The process either produces the log, and its producer
 * passes the chunks on, or it follows the log, and receives messages and reads.
 */
export class LogView implements LogFollower {
  readonly name: string
  readonly logs: LogStore
  /** Number of chunks that were appended, as far as this process knows. */
  length = 0
  /** The end that the record has accepted. */
  end: StreamEnd | undefined
  /** The thrown value, in the process in which the work failed. */
  original: unknown
  /** Set while this process produces the log. */
  producer: LocalProducer | undefined
  readonly readers: Set<ViewReader> = new Set()
  /** Called when a reader has joined, left or advanced. Set by the producer. */
  onReadersChanged: (() => void) | undefined
  readonly #options: LogViewOptions
  readonly #nonce = newId()
  readonly #tailBuffer = new TailBuffer()
  /** Reads that are under way, by their first chunk. Readers at the same position share one. */
  readonly #reads = new Map<number, Promise<ReadReply>>()
  #interruption: Interruption | undefined
  /** This process is a follower, and messages arrive. False after the subscription changed, until the next read. */
  #following = false
  /** When the log was last read or retained from here, by the clock. */
  #retainedAt = Number.NEGATIVE_INFINITY
  /** A read has registered this process as a follower. */
  #registered = false
  #pollTimer: Timer | undefined
  /** Stops watching the subscription. Set from the first read until {@link #stopFollowing}. */
  #unwatch: (() => void) | undefined

  constructor(options: LogViewOptions) {
    this.#options = options
    this.name = options.name
    this.logs = options.logs
  }

  /** This process produces the log until {@link detachProducer}. */
  attachProducer(producer: LocalProducer): void {
    this.producer = producer
    this.#stopFollowing()
  }

  /** The producer has ended. */
  detachProducer(): void {
    this.producer = undefined
    this.#leaveIfIdle()
  }

  get isInterrupted(): boolean {
    return this.#interruption !== undefined
  }

  join(reader: ViewReader): void {
    this.readers.add(reader)
    this.onReadersChanged?.()
  }

  leave(reader: ViewReader): void {
    if (!this.readers.delete(reader)) return
    this.onReadersChanged?.()
    this.#leaveIfIdle()
  }

  #leaveIfIdle(): void {
    if (this.producer || this.readers.size > 0) return
    this.#stopFollowing()
    this.logs.ignore(this.#nonce)
    // A complete log sends no messages, so the follower may stay registered in it.
    if (this.#registered && !this.end)
      this.logs.unfollow(this.name, this.#nonce, this.#options.unavailableAfter).catch(() => {})
    this.#registered = false
    this.#options.onIdle(this)
  }

  /** The chunk of this number, if it is buffered. */
  chunkAt(number: number): Buffer | undefined {
    return this.#tailBuffer.chunkAt(number)
  }

  /** Whether a chunk that is not buffered must be read. Otherwise `onChange` announces it. */
  mustRead(number: number): boolean {
    if (number < this.length) return true
    return !this.producer && !this.end && !this.#following
  }

  /** Keeps a complete log from expiring while a reader takes chunks, also out of a buffer. */
  retain(): void {
    const { clock, unavailableAfter } = this.#options
    if (!this.end || clock.now() - this.#retainedAt < LOG_GRACE / 2) return
    this.#retainedAt = clock.now()
    this.logs.retain(this.name, LOG_GRACE, unavailableAfter).catch(() => {})
  }

  /** Reads chunks from this number on, and registers this process as a follower unless it produces the log. */
  read(from: number): Promise<ReadReply> {
    let read = this.#reads.get(from)
    if (!read) {
      read = this.#read(from).finally(() => this.#reads.delete(from))
      this.#reads.set(from, read)
    }
    return read
  }

  async #read(from: number): Promise<ReadReply> {
    const follows = !this.producer && !this.end
    if (follows && !this.#unwatch) {
      this.#unwatch = this.logs.onSubscriptionChange(() => this.#refollow())
      this.logs.listen(this.#nonce, this)
    }
    if (follows) this.#registered = true
    const request = { from, followerNonce: follows ? this.#nonce : undefined }
    const known = this.length
    this.#retainedAt = this.#options.clock.now()
    const reply = await this.logs.read(this.name, request, this.#options.unavailableAfter)
    if (reply.status !== 'read') return reply
    const end = from + reply.chunks.length
    if (follows && this.#unwatch) {
      this.#following = true
      this.#schedulePoll()
    }
    if (!reply.more) this.#tailBuffer.add(from, reply.chunks)
    this.#grow(reply.more ? end + 1 : end)
    // A forged message announced chunks that do not exist. Reading for them again and again would not end.
    if (!reply.more && !this.end && this.length === known) this.length = end
    return reply
  }

  onAppended(from: number, chunks: readonly Buffer[], length: number): void {
    if (this.#interruption) return
    this.#tailBuffer.add(from, chunks)
    this.#grow(length)
  }

  #grow(length: number): void {
    if (length <= this.length) return
    this.length = length
    this.#notifyReaders()
  }

  #notifyReaders(): void {
    for (const reader of [...this.readers]) reader.onChange()
  }

  /** Messages may have been lost: has the readers read once more. */
  #refollow(): void {
    this.#following = false
    this.#notifyReaders()
    this.#schedulePoll()
  }

  #schedulePoll(): void {
    this.#pollTimer?.cancel()
    if (!this.#unwatch) return
    const interval = this.logs.subscribed ? POLL_INTERVAL : POLL_WHILE_DISCONNECTED
    const ms = Math.min(interval, this.#options.lease)
    this.#pollTimer = this.#options.clock.after(ms, () => this.#refollow(), true)
  }

  #stopFollowing(): void {
    this.#pollTimer?.cancel()
    this.#unwatch?.()
    this.#unwatch = undefined
    this.#following = false
  }

  /** The record has accepted this end. */
  finish(end: StreamEnd, original?: unknown): void {
    if (this.end) return
    // The producer may have been told that its publish failed. The record decides.
    this.#interruption = undefined
    this.end = end
    this.original = original
    this.length = Math.max(this.length, end.count)
    this.#stopFollowing()
    this.#notifyReaders()
  }

  /** The log will never be complete. */
  interrupt(interruption: Interruption): void {
    if (this.end || this.#interruption) return
    this.#interruption = interruption
    for (const reader of [...this.readers]) reader.onInterrupted(interruption)
  }
}
