import { FORMAT, newId } from '../../../kernel/keys.ts'
import type { CommandSender } from '../../../kernel/redis/call.ts'
import type { Connection } from '../../../kernel/redis/connection.ts'
import { atEndOfTick, microtask, type Timer } from '../../../kernel/time.ts'

/** Who watches says so this often, ms, and is believed for twice as long. */
const ANNOUNCE_INTERVAL = 5_000

/** Who may watch at a time. */
const MAX_WATCHERS = 100

/** Events of one tick go together, so many at most. */
const MAX_EVENTS_PER_MESSAGE = 100

/**
 * The events of a queue in all processes, for those who watch. Who watches broadcasts its inbox; every process that has
 * heard of it sends its events there. While nobody watches, nothing is sent.
 */
export class EventFeed {
  readonly #connection: Connection
  /** Begins what watchers of this queue broadcast. */
  readonly #announcement: string
  /** Until when watchers are believed to be there, by inbox and nonce. */
  readonly #watchers = new Map<string, number>()
  /** What ends the watching of this process. */
  readonly #watches = new Set<() => void>()
  #events: string[] = []
  readonly #unlisten: () => void

  constructor(connection: Connection, base: string) {
    this.#connection = connection
    this.#announcement = `${FORMAT}f ${base} `
    this.#unlisten = connection.listen({
      up: () => {},
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

  publish(event: string): void {
    if (this.#events.push(event) === 1) atEndOfTick(() => this.#flush())
  }

  #flush(): void {
    const events = this.#events
    this.#events = []
    const now = this.#connection.clock.now()
    const { inbox, inboxChannel } = this.#connection
    const channels = inboxChannel.slice(0, -inbox.id.length)
    for (const [watcher, until] of this.#watchers) {
      if (until < now) this.#watchers.delete(watcher)
      else {
        for (let from = 0; from < events.length; from += MAX_EVENTS_PER_MESSAGE) {
          const text = `${FORMAT}${watcher.slice(inbox.id.length)}f\n${events.slice(from, from + MAX_EVENTS_PER_MESSAGE).join('\n')}`
          this.#publish(channels + watcher.slice(0, inbox.id.length), text, 2 * ANNOUNCE_INTERVAL).catch(
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

  /** Hears the events of all processes. The returned function ends that. */
  async watch(heard: (event: string) => void, within: number): Promise<() => void> {
    const { inbox, clock, broadcastChannel } = this.#connection
    const nonce = newId()
    const word = `${this.#announcement}${inbox.id}${nonce} `
    inbox.listen(nonce, {
      hint: ({ body }) => {
        // In a tick of its own: what a listener throws is its own affair.
        for (const event of body.toString().split('\n')) microtask(() => heard(event))
      },
    })
    let timer: Timer | undefined
    const announce = () => this.#publish(broadcastChannel, `${word}+`, within)
    const goOn = () => {
      timer = clock.after(
        ANNOUNCE_INTERVAL,
        () => {
          announce().catch(() => {})
          goOn()
        },
        true,
      )
    }
    const stop = () => {
      if (!this.#watches.delete(stop)) return
      timer?.cancel()
      inbox.ignore(nonce)
      this.#publish(broadcastChannel, `${word}-`, within).catch(() => {})
    }
    this.#watches.add(stop)
    try {
      await announce()
    } catch (error) {
      stop()
      throw error
    }
    if (this.#watches.has(stop)) goOn()
    return stop
  }

  close(): void {
    for (const stop of this.#watches) stop()
    this.#unlisten()
  }
}
