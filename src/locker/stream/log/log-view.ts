import { newId } from '../../../kernel/ids.ts'
import type { Clock, Timer } from '../../../kernel/time/clock.ts'
import type { WaitNode } from '../../flight/deadlock.ts'
import type { StreamEnd } from '../stream-record.ts'
import { LOG_GRACE, type LogFollower, type LogStore, type ReadReply } from './log-store.ts'
import { Tail } from './tail-buffer.ts'

/** Why a log comes to no end, and whether who was delivered nothing of it may start again. */
export interface Cut {
  restart: boolean
  error(key: string): Error
}

/** What produces the log in this process. */
export interface LocalProducer {
  /** What those wait for who wait for the chunk of this number: for its work, until that has produced the chunk. */
  waitFor(chunk: number): WaitNode
}

/** One reader, as the view of its log knows it. */
export interface ViewReader {
  /** Number of the chunk that it will read next. */
  readonly position: number
  /** Something has changed: there may be more. */
  wake(): void
  /** There will be no end. */
  cut(cut: Cut): void
}

/** A reader that waits for a message looks by itself after this time at most, ms. */
const LOOK_EVERY = 5_000

/** The same while no messages arrive. */
const LOOK_WHILE_DEAF = 500

export interface LogViewOptions {
  logs: LogStore
  /** Name of the log. */
  name: string
  clock: Clock
  /** How long Redis may be silent, ms. */
  within: number
  /** It looks again at least once in so long, ms. */
  lease: number
  /** Nobody here has to do with the log any more. */
  onIdle(view: LogView): void
}

/**
 * A log as one process sees it: what its readers share. Either the process produces it, and feeds it; or it follows it,
 * and is told of what is appended.
 */
export class LogView implements LogFollower {
  readonly name: string
  readonly logs: LogStore
  /** Chunks that are known to be, or to have been, in it. */
  length = 0
  /** How it ended, as the record has accepted it. */
  end: StreamEnd | undefined
  /** The thrown value, in the process where the work failed. */
  original: unknown
  /** Set while this process produces it. */
  producer: LocalProducer | undefined
  readonly readers: Set<ViewReader> = new Set()
  /** Called when a reader has come, gone, or gone on. */
  onChange: (() => void) | undefined
  readonly #options: LogViewOptions
  readonly #nonce = newId()
  readonly #tail = new Tail()
  /** Reads that are under way, by where they begin: readers who go side by side share them. */
  readonly #reads = new Map<number, Promise<ReadReply>>()
  #cut: Cut | undefined
  /** Noted in the log, as far as is known: what is appended is told. */
  #following = false
  /** When it was last asked for, or to be kept. */
  #touchedAt = Number.NEGATIVE_INFINITY
  /** Was ever noted. */
  #noted = false
  #look: Timer | undefined
  #unlink: (() => void) | undefined

  constructor(options: LogViewOptions) {
    this.#options = options
    this.name = options.name
    this.logs = options.logs
  }

  /** The producer of this process takes it over until {@link release}. */
  own(producer: LocalProducer): void {
    this.producer = producer
    this.#stopLooking()
  }

  /** Its producer has done with it. */
  release(): void {
    this.producer = undefined
    this.#leaveIfIdle()
  }

  /** Whether it is known to come to no end. */
  get isCut(): boolean {
    return this.#cut !== undefined
  }

  join(reader: ViewReader): void {
    this.readers.add(reader)
    this.onChange?.()
  }

  leave(reader: ViewReader): void {
    if (!this.readers.delete(reader)) return
    this.onChange?.()
    this.#leaveIfIdle()
  }

  #leaveIfIdle(): void {
    if (this.producer || this.readers.size > 0) return
    this.#stopLooking()
    this.logs.ignore(this.#nonce)
    // The name in a log that is complete costs nothing more; a log that goes on would tell it for nothing.
    if (this.#noted && !this.end)
      this.logs.unfollow(this.name, this.#nonce, this.#options.within).catch(() => {})
    this.#noted = false
    this.#options.onIdle(this)
  }

  /** The chunk of this number, if it is at hand. */
  at(number: number): Buffer | undefined {
    return this.#tail.at(number)
  }

  /** Whether the chunk of this number, not at hand, is to be read; else there will be a `wake` when there is one. */
  lacks(number: number): boolean {
    if (number < this.length) return true
    return !this.producer && !this.end && !this.#following
  }

  /** Somebody takes chunks of it: a complete log is kept for whoever goes on, also while that lives on what it has read. */
  touch(): void {
    const { clock, within } = this.#options
    if (!this.end || clock.now() - this.#touchedAt < LOG_GRACE / 2) return
    this.#touchedAt = clock.now()
    this.logs.keep(this.name, LOG_GRACE, within).catch(() => {})
  }

  /** Chunks from this number on. */
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
    if (follows && !this.#unlink) {
      this.#unlink = this.logs.onLink(() => this.#relink())
      this.logs.listen(this.#nonce, this)
    }
    if (follows) this.#noted = true
    const follower = follows ? this.#nonce : undefined
    const known = this.length
    this.#touchedAt = this.#options.clock.now()
    const reply = await this.logs.read(this.name, { from, follower }, this.#options.within)
    if (reply.status !== 'read') return reply
    const end = from + reply.chunks.length
    if (follows && this.#unlink) {
      this.#following = true
      this.#lookLater()
    }
    if (!reply.more) this.#tail.add(from, reply.chunks)
    this.#grow(reply.more ? end + 1 : end)
    // What was said to be there is not: asked for again and again it would not come.
    if (!reply.more && !this.end && this.length === known) this.length = end
    return reply
  }

  appended(from: number, chunks: readonly Buffer[], length: number): void {
    if (this.#cut) return
    this.#tail.add(from, chunks)
    this.#grow(length)
  }

  #grow(length: number): void {
    if (length <= this.length) return
    this.length = length
    this.#wakeAll()
  }

  #wakeAll(): void {
    for (const reader of [...this.readers]) reader.wake()
  }

  /** Messages may have been missed, and may be. */
  #relink(): void {
    this.#following = false
    this.#wakeAll()
    this.#lookLater()
  }

  #lookLater(): void {
    this.#look?.cancel()
    if (!this.#unlink) return
    const often = this.logs.subscribed ? LOOK_EVERY : LOOK_WHILE_DEAF
    const ms = Math.min(often, this.#options.lease)
    this.#look = this.#options.clock.after(ms, () => this.#relink(), true)
  }

  #stopLooking(): void {
    this.#look?.cancel()
    this.#unlink?.()
    this.#unlink = undefined
    this.#following = false
  }

  /** The record has accepted this end. */
  finish(end: StreamEnd, original?: unknown): void {
    if (this.end) return
    // Its producer was told otherwise, if it was told at all; the record decides.
    this.#cut = undefined
    this.end = end
    this.original = original
    this.length = Math.max(this.length, end.count)
    this.#stopLooking()
    this.#wakeAll()
  }

  /** It comes to no end. */
  interrupt(cut: Cut): void {
    if (this.end || this.#cut) return
    this.#cut = cut
    for (const reader of [...this.readers]) reader.cut(cut)
  }
}
