import type { Clock } from '../kernel/clock.ts'
import type { CommandSender } from '../kernel/command.ts'
import type { Outcome } from './store.ts'
import { PLAIN_VALUE, readValue } from './value.ts'

/** So many hits in a row make the next one likely. */
const CONFIDENT_AFTER = 8

/** The server's time is learned anew this often (ms): a stepped server clock misleads no longer than that. */
const RELEARN_AFTER = 1000

/**
 * Decides when a plain read is worth trying before the claim script: it costs the server a tenth of it, and a claim
 * that it does not answer a round trip. So it is tried only after a run of hits, and a cold key never pays for it.
 *
 * A plain read is not told the server's time, by which freshness is judged. So that is estimated, from above: a result
 * is never served for longer than its ttl.
 */
export class ReadFirst {
  readonly #clock: Clock
  #hits = 0
  /** At most this much is the server's clock ahead of ours. */
  #ahead = 0
  #learnedAt = Number.NEGATIVE_INFINITY

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** A claim was answered, by a result or otherwise. */
  answered(byResult: boolean): void {
    this.#hits = byResult ? this.#hits + 1 : 0
  }

  /** The server said what time it is, in the reply to what went out at `sentAt`. */
  learn(serverNow: number, sentAt: number): void {
    this.#ahead = serverNow + 1 - sentAt
    this.#learnedAt = sentAt
  }

  /** Whether a plain read should be tried. */
  get promising(): boolean {
    return this.#hits >= CONFIDENT_AFTER && this.#clock.now() - this.#learnedAt < RELEARN_AFTER
  }

  /** Asks for what a plain claim of `key` is served, if it is there. */
  send(sender: CommandSender, key: string): Promise<unknown> {
    return sender.send('hget', [key, 'v'])
  }

  /** Reads the reply: the outcome, if it is fresh by all estimates. */
  parse(reply: unknown): Outcome | undefined {
    const value = reply as Buffer | null
    if (!value || value[0] !== PLAIN_VALUE) return undefined
    return readValue(value, this.#clock.now() + this.#ahead)
  }
}
