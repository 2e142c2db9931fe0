import { UnavailableError } from '../../errors.ts'
import type { QueueContext } from '../options.ts'
import type { TakenAttempt } from '../store/store.ts'
import { attemptOf, newSecret, type TokenContent, tokenOf } from './token.ts'
import type { UnansweredCalls } from './unanswered-calls.ts'

/** An attempt that is held by a token, and what its record says. */
export interface HeldAttempt {
  readonly token: TokenContent
  readonly id: string
  readonly fence: number
  /** Options of the submission, as stored. */
  readonly options: string
  readonly payload: string
}

/** What is due may be made ready so often for one call: another job may fall due meanwhile. */
const MAX_ROUNDS = 3

/** Takes jobs of one command that are ready, each for a token of its own. */
export class ReadyJobs {
  readonly #command: string
  readonly #context: QueueContext
  readonly #unanswered: UnansweredCalls
  readonly #processDue: () => Promise<void>

  /** `unanswered`: is told of calls without a reply. `processDue`: makes ready what is due. */
  constructor(
    command: string,
    context: QueueContext,
    unanswered: UnansweredCalls,
    processDue: () => Promise<void>,
  ) {
    this.#command = command
    this.#context = context
    this.#unanswered = unanswered
    this.#processDue = processDue
  }

  /**
   * Takes the first job that is ready, or due: undefined if there is none.
   * @throws UnavailableError, OverloadedError, ClosedError
   */
  async take(lease: number): Promise<HeldAttempt | undefined> {
    const { store, within, clock } = this.#context
    const secret = newSecret()
    const request = { command: this.#command, secret, lease: Math.ceil(lease) }
    let sentAt = clock.now()
    let isTaken = false
    try {
      let reply = await store.take(request, within)
      for (let round = 1; reply === 'due' && round < MAX_ROUNDS; round++) {
        await this.#processDue()
        sentAt = clock.now()
        reply = await store.take(request, within)
      }
      if (reply === 'due' || reply === undefined) return undefined
      isTaken = true
      const { id, fence, options } = reply
      const token = this.tokenOf(reply, secret)
      const payload = reply.payload ?? (await store.readPayload(attemptOf(token), within))
      if (payload !== undefined) return { token, id, fence, options, payload }
    } catch (error) {
      const isUnsent = error instanceof UnavailableError && !error.sent
      // What it has taken is not known, or its payload is not.
      if (isTaken || !isUnsent) await this.#unanswered.add(request, sentAt)
      throw error
    }
    // That job was cancelled, or its lease has ended, before its payload was read: the next one.
    return this.take(lease)
  }

  /** The token of an attempt that is given to its holder. */
  tokenOf({ id, fence, failures, options }: Omit<TakenAttempt, 'payload'>, secret: string): TokenContent {
    const { queue } = this.#context
    return tokenOf({ queue, command: this.#command, id, attempt: failures + 1, fence, secret }, options)
  }
}
