import { TimeoutError } from '../errors.ts'
import { decodeWith } from '../kernel/codec/codec.ts'
import { encodeLimited } from '../kernel/codec/limit.ts'
import { isAddress, newId } from '../kernel/keys.ts'
import { parsePing, parseUserMessage, pingMessage, pongMessage, userMessage } from './messages.ts'
import type { ServicesContext } from './options.ts'
import type { Message } from './store/store.ts'
import type { SubscriptionWait } from './subscription-wait.ts'

/** How long the answer to a ping is awaited, ms. */
const PING_TIMEOUT = 5_000

/**
 * Messages between Services objects, by id. Each is answered. The number of receivers does not tell enough: that the process
 * listens, but not whether the object is closed; on a cluster, nothing.
 */
export class DirectMessages {
  readonly #context: ServicesContext
  readonly #subscription: SubscriptionWait
  readonly #onMessage: (from: string, message: unknown) => void
  /** What resolves the wait for an answer, by the id of the message. */
  readonly #unanswered = new Map<string, () => void>()

  constructor(
    context: ServicesContext,
    subscription: SubscriptionWait,
    onMessage: (from: string, message: unknown) => void,
  ) {
    this.#context = context
    this.#subscription = subscription
    this.#onMessage = onMessage
  }

  /** Resolves with whether it was received. @throws TypeError, CodecError, TooLargeError, UnavailableError. */
  async send(to: string, message: unknown): Promise<boolean> {
    checkId(to)
    const { store, storeTimeout, options } = this.#context
    const bytes = encodeLimited(options, message, 'The message has')
    await this.#subscription.subscribed()
    const outcome = await this.#ask(to, (id) => userMessage(id, store.address, bytes), storeTimeout)
    // Without a subscription, no answer arrives. Somebody listens: more is not known.
    return outcome === 'answered' || (outcome === 'silent' && !store.subscribed)
  }

  /** Resolves with the time that the other takes to answer, ms. @throws TypeError, TimeoutError, UnavailableError. */
  async ping(to: string): Promise<number> {
    checkId(to)
    const { store, clock } = this.#context
    await this.#subscription.subscribed()
    const since = clock.now()
    const outcome = await this.#ask(to, (id) => pingMessage(id, store.address), PING_TIMEOUT)
    if (outcome !== 'answered') throw new TimeoutError('The process does not answer')
    return clock.now() - since
  }

  /** `unheard`: nobody listens. `silent`: no answer has come within `timeout` ms. */
  async #ask(
    to: string,
    make: (id: string) => Message,
    timeout: number,
  ): Promise<'answered' | 'unheard' | 'silent'> {
    const { store, storeTimeout, clock } = this.#context
    const id = newId()
    const answered = new Promise<boolean>((resolve) => {
      const timer = clock.after(timeout, () => resolve(false))
      this.#unanswered.set(id, () => {
        timer.cancel()
        resolve(true)
      })
    })
    try {
      if (!(await store.send(to, make(id), storeTimeout))) return 'unheard'
      return (await answered) ? 'answered' : 'silent'
    } finally {
      this.#unanswered.get(id)?.()
      this.#unanswered.delete(id)
    }
  }

  /** Returns whether it was such a message. */
  onMessage(message: Message): boolean {
    const { kind, fields } = message
    if (kind === 'o') this.#unanswered.get(fields[0] ?? '')?.()
    else if (kind === 'i') this.#answer(parsePing(message))
    else if (kind === 'm') this.#onUserMessage(message)
    else return false
    return true
  }

  #answer(asked: { id: string; from: string } | undefined): void {
    const { store, storeTimeout } = this.#context
    if (asked) store.send(asked.from, pongMessage(asked.id), storeTimeout).catch(() => {})
  }

  #onUserMessage(message: Message): void {
    const asked = parseUserMessage(message)
    if (!asked) return
    let value: unknown
    try {
      value = decodeWith(this.#context.options.codec, message.body, 'message')
    } catch {
      // Anybody can send one.
      return
    }
    this.#answer(asked)
    this.#onMessage(asked.from, value)
  }
}

function checkId(id: unknown): void {
  if (!isAddress(id)) throw new TypeError('Expected `id` to be the id of a Services object')
}
