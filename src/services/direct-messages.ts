import { TimeoutError } from '../errors.ts'
import { decodeWith } from '../kernel/codec/codec.ts'
import { isAddress, newId } from '../kernel/keys.ts'
import { encodeLimited } from './encoding.ts'
import { parsePing, pingMessage, pongMessage, userMessage } from './messages.ts'
import type { ServicesContext } from './options.ts'
import type { Message } from './store/store.ts'

/** How long the answer to a ping is awaited, ms. */
const PING_TIMEOUT = 5_000

/** Messages between Services objects, by id. */
export class DirectMessages {
  readonly #context: ServicesContext
  readonly #onMessage: (from: string, message: unknown) => void
  /** What resolves a ping, by its id. */
  readonly #pings = new Map<string, () => void>()

  constructor(context: ServicesContext, onMessage: (from: string, message: unknown) => void) {
    this.#context = context
    this.#onMessage = onMessage
  }

  /** Resolves with false if nobody heard it. @throws TypeError, CodecError, TooLargeError, UnavailableError. */
  async send(id: string, message: unknown): Promise<boolean> {
    checkId(id)
    const { store, within, options } = this.#context
    const bytes = encodeLimited(options, message, 'The message has')
    return store.send(id, userMessage(store.address, bytes), within)
  }

  /** Resolves with the time that the other takes to answer, ms. @throws TypeError, TimeoutError, UnavailableError. */
  async ping(id: string): Promise<number> {
    checkId(id)
    const { store, within, clock } = this.#context
    const nonce = newId()
    const since = clock.now()
    const answered = new Promise<boolean>((resolve) => {
      const timer = clock.after(PING_TIMEOUT, () => resolve(false))
      this.#pings.set(nonce, () => {
        timer.cancel()
        resolve(true)
      })
    })
    try {
      const heard = await store.send(id, pingMessage(nonce, store.address), within)
      if (!heard || !(await answered)) throw new TimeoutError('The process does not answer')
      return clock.now() - since
    } finally {
      this.#pings.get(nonce)?.()
      this.#pings.delete(nonce)
    }
  }

  /** Returns whether it was such a message. */
  onMessage(message: Message): boolean {
    const { kind, fields } = message
    if (kind === 'o') this.#pings.get(fields[0] ?? '')?.()
    else if (kind === 'i') this.#onPing(message)
    else if (kind === 'm') this.#onUserMessage(message)
    else return false
    return true
  }

  #onPing(message: Message): void {
    const ping = parsePing(message)
    const { store, within } = this.#context
    if (ping) store.send(ping.from, pongMessage(ping.id), within).catch(() => {})
  }

  #onUserMessage({ fields: [from], body }: Message): void {
    if (!isAddress(from)) return
    let value: unknown
    try {
      value = decodeWith(this.#context.options.codec, body, 'message')
    } catch {
      // Anybody can send one.
      return
    }
    this.#onMessage(from, value)
  }
}

function checkId(id: unknown): void {
  if (!isAddress(id)) throw new TypeError('Expected `id` to be the id of a Services object')
}
