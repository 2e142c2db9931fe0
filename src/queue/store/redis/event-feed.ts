import { FORMAT, newId } from '../../../kernel/keys.ts'
import type { CommandSender } from '../../../kernel/redis/call.ts'
import type { Connection } from '../../../kernel/redis/connection.ts'
import { atEndOfTurn, microtask, type Timer } from '../../../kernel/time.ts'

/** How often a watcher announces itself, ms. Other processes send events to it for twice as long. */
const ANNOUNCE_INTERVAL = 5_000

/** Most watchers that a process sends events to. */
const MAX_WATCHERS = 100

/**
 * Most bytes of log lines that a process tells watchers in a second. Redis closes the subscription of a process that reads too
 * slowly, and all else that it waits for comes by the same one.
 */
const MAX_LOG_BYTES = 1024 * 1024
const SECOND = 1_000

/** Most events of one message. The events of one turn are sent together. */
const MAX_EVENTS_PER_MESSAGE = 100

/**
 * Publishes the events of a queue to watchers in all processes. A watcher broadcasts its inbox, and every process sends its
 * events there. Without watchers nothing is sent. Best effort.
 *
 *   broadcast   f base address +       a watcher announces itself; '-': it stops
 *   message     nonce f, then one event per line
 */
export class EventFeed {
  readonly #connection: Connection
  /** Prefix of the broadcasts of watchers of this queue. */
  readonly #announcement: string
  /** The watchers in all processes by inbox and nonce, and until when events are sent to them. */
  readonly #watchers = new Map<string, number>()
  /** The watches of this process: what stops each, and what announces it. */
  readonly #watches = new Map<() => void, () => Promise<unknown>>()
  #events: string[] = []
  /** When the second began in which log lines are counted, by the clock, ms, and their bytes. */
  #logged = { since: Number.NEGATIVE_INFINITY, bytes: 0 }
  readonly #unlisten: () => void

  constructor(connection: Connection, base: string) {
    this.#connection = connection
    this.#announcement = `${FORMAT}f ${base} `
    this.#unlisten = connection.listen({
      // Other processes may have come meanwhile, or have forgotten the watchers.
      up: () => {
        for (const announce of this.#watches.values()) announce().catch(() => {})
      },
      down: () => {},
      broadcast: (message) => this.#onBroadcast(message.toString()),
    })
  }

  get hasWatchers(): boolean {
    return this.#watchers.size > 0
  }

  #onBroadcast(message: string): void {
    if (!message.startsWith(this.#announcement)) return
    const [, watcher, sign] = /^([\w-]{44}) ([+-])$/.exec(message.slice(this.#announcement.length)) ?? []
    if (watcher === undefined) return
    if (sign === '-') this.#watchers.delete(watcher)
    else if (this.#watchers.size < MAX_WATCHERS || this.#watchers.has(watcher)) {
      this.#watchers.set(watcher, this.#connection.clock.now() + 2 * ANNOUNCE_INTERVAL)
    }
  }

  /** Bytes of log lines that may be told now. */
  get logRoom(): number {
    const now = this.#connection.clock.now()
    if (now - this.#logged.since >= SECOND) this.#logged = { since: now, bytes: 0 }
    return Math.max(0, MAX_LOG_BYTES - this.#logged.bytes)
  }

  /** Publishes an event of log lines. */
  publishLog(event: string): void {
    this.#logged.bytes += Buffer.byteLength(event)
    this.publish(event)
  }

  publish(event: string): void {
    if (this.#events.push(event) === 1) atEndOfTurn(() => this.#flush())
  }

  #flush(): void {
    const events = this.#events
    this.#events = []
    const now = this.#connection.clock.now()
    const { inbox, inboxPrefix } = this.#connection
    for (const [watcher, until] of this.#watchers) {
      if (until < now) this.#watchers.delete(watcher)
      else {
        for (let from = 0; from < events.length; from += MAX_EVENTS_PER_MESSAGE) {
          const text = `${FORMAT}${watcher.slice(inbox.id.length)}f\n${events.slice(from, from + MAX_EVENTS_PER_MESSAGE).join('\n')}`
          this.#publish(inboxPrefix + watcher.slice(0, inbox.id.length), text, 2 * ANNOUNCE_INTERVAL).catch(
            () => {},
          )
        }
      }
    }
  }

  #publish(channel: string, message: string, within: number): Promise<unknown> {
    const request = { send: (sender: CommandSender) => sender.send('publish', [channel, message]) }
    return this.#connection.call(request, within)
  }

  /** Calls `onEvent` with the events of all processes until the returned function is called. */
  async watch(onEvent: (event: string) => void, within: number): Promise<() => void> {
    const { inbox, clock, broadcastChannel } = this.#connection
    const nonce = newId()
    const announcement = `${this.#announcement}${inbox.id}${nonce} `
    inbox.listen(nonce, {
      hint: ({ body }) => {
        // In a microtask each, so that an error of a listener does not reach the inbox.
        for (const event of body.toString().split('\n')) microtask(() => onEvent(event))
      },
    })
    let timer: Timer | undefined
    const announce = () => this.#publish(broadcastChannel, `${announcement}+`, within)
    const announceLater = () => {
      timer = clock.after(
        ANNOUNCE_INTERVAL,
        () => {
          announce().catch(() => {})
          announceLater()
        },
        true,
      )
    }
    const stop = () => {
      if (!this.#watches.delete(stop)) return
      timer?.cancel()
      inbox.ignore(nonce)
      this.#publish(broadcastChannel, `${announcement}-`, within).catch(() => {})
    }
    this.#watches.set(stop, announce)
    try {
      await announce()
    } catch (error) {
      stop()
      throw error
    }
    if (this.#watches.has(stop)) announceLater()
    return stop
  }

  close(): void {
    for (const stop of this.#watches.keys()) stop()
    this.#unlisten()
  }
}
