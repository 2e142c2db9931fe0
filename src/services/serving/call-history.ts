import type { Queried } from '../messages.ts'
import type { IncomingCall } from './incoming-call.ts'

/** How often old calls are forgotten, ms. */
export const TICK_MS = 1000
/** Ticks for which the reply of a call is kept, for a caller that has lost it with its subscription. */
const REPLY_TICKS = 15
/** Ticks for which a call is known, so that it is not run twice. */
const KNOWN_TICKS = 600
/** Calls that are known at most, and bytes of their replies. Beyond, the oldest are forgotten. */
const MAX_KNOWN = 100_000
const MAX_REPLY_BYTES = 64 * 1024 * 1024
/** A message may have been under way for so many ticks. */
const TRANSIT_TICKS = 30
/** Calls that are disowned at most. Beyond, the oldest are forgotten. */
const MAX_DISOWNED = 10_000

interface Entry {
  readonly call: IncomingCall
  readonly tick: number
}

/**
 * The calls that this process has received: each is run once, whatever is delivered twice, and its reply can be asked for
 * again. Time is counted in ticks that pass only while the event loop runs: messages that wait while this process is frozen
 * are read before anything is forgotten.
 */
export class CallHistory {
  /** In the order in which they arrived. */
  readonly #calls = new Map<string, Entry>()
  /** Calls that are over and whose replies are kept, in the order in which they ended, with the tick of that. */
  readonly #replies = new Map<IncomingCall, number>()
  /** Calls whose callers were told that they have not arrived: up to which turn, and the tick of that. In this order. */
  readonly #disowned = new Map<string, { readonly turn: number; readonly tick: number }>()
  #replyBytes = 0
  #tick = 0
  /** The latest arrival of a call that is forgotten. */
  #forgottenUpTo = Number.NEGATIVE_INFINITY

  /** Call it every {@link TICK_MS}. Returns whether anything is left to forget. */
  advance(): boolean {
    this.#tick++
    for (const [call, endedAt] of this.#replies) {
      if (endedAt + REPLY_TICKS > this.#tick) break
      this.#dropReply(call)
    }
    for (const [id, { tick }] of this.#disowned) {
      if (tick + TRANSIT_TICKS > this.#tick) break
      this.#disowned.delete(id)
    }
    for (const [id, { call, tick }] of this.#calls) {
      if (tick + KNOWN_TICKS > this.#tick) break
      // A caller may still ask for a reply that is kept.
      if (call.over && !this.#replies.has(call)) this.#forget(id, tick)
    }
    return this.#calls.size + this.#disowned.size > 0
  }

  get(id: string): IncomingCall | undefined {
    return this.#calls.get(id)?.call
  }

  add(call: IncomingCall): void {
    this.#calls.set(call.id, { call, tick: this.#tick })
    if (this.#calls.size <= MAX_KNOWN) return
    for (const [id, entry] of this.#calls) {
      if (!entry.call.over) continue
      this.#dropReply(entry.call)
      return this.#forget(id, entry.tick)
    }
  }

  /** The call was not run: it may be dealt to this process again. */
  delete(id: string): void {
    this.#calls.delete(id)
  }

  /** Its caller is told that it has not arrived. It must not be run if it arrives after all: a cluster may reorder messages. */
  disown({ id, turn }: Queried): void {
    this.#disowned.delete(id)
    this.#disowned.set(id, { turn, tick: this.#tick })
    if (this.#disowned.size <= MAX_DISOWNED) return
    for (const oldest of this.#disowned.keys()) return void this.#disowned.delete(oldest)
  }

  isDisowned({ id, turn }: Queried): boolean {
    return turn <= (this.#disowned.get(id)?.turn ?? 0)
  }

  #forget(id: string, tick: number): void {
    this.#calls.delete(id)
    this.#forgottenUpTo = Math.max(this.#forgottenUpTo, tick)
  }

  /** The call is over, and its reply is to be kept. */
  keepReply(call: IncomingCall): void {
    this.#replies.set(call, this.#tick)
    this.#replyBytes += call.replyBytes
    for (const oldest of this.#replies.keys()) {
      if (this.#replyBytes <= MAX_REPLY_BYTES) break
      this.#dropReply(oldest)
    }
  }

  #dropReply(call: IncomingCall): void {
    if (!this.#replies.delete(call)) return
    this.#replyBytes -= call.replyBytes
    call.dropReply()
  }

  /** Whether a call that is not known, and was made at most `age` ms ago, has surely not arrived. */
  surelyNew(age: number): boolean {
    return this.#tick - age / TICK_MS - TRANSIT_TICKS > this.#forgottenUpTo
  }
}
