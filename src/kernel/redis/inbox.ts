import { TransientMap } from '../collections/churn.ts'
import { ID_LENGTH, newId } from '../ids.ts'
import { FORMAT } from './keys.ts'

/** A message for one listener. It is a hint: anybody who knows the nonce can send one. */
export interface Hint {
  /** One letter, defined by the layer that sends it. */
  kind: string
  /** Fields of the header. */
  fields: string[]
  /** The bytes after the header. */
  body: Buffer
}

/** Whether all fields are numbers. Anybody can send a message with others. */
export function areNumbers(fields: readonly (string | undefined)[]): fields is string[] {
  return fields.every((field) => field !== undefined && /^\d{1,16}$/.test(field))
}

/** Receives the messages for one nonce. */
export interface Listener {
  hint(hint: Hint): void
}

/** Length of the format version and the nonce at the beginning of a message. */
const NONCE_END = 1 + ID_LENGTH
const SPACE = 0x20
const NEWLINE = 0x0a
const STAR = 0x2a
const COLON = 0x3a

/**
 * Dispatches the messages to a process. A message contains the unguessable nonce of its listener. Messages without a
 * listener (late, forged, of another version) are dropped.
 *
 * Format of a message: `FORMAT nonce kind [field …] LF body`, fields separated by one blank.
 * Several messages in one: `FORMAT * length : message …`, with lengths in bytes, each message without a FORMAT.
 */
export class Inbox {
  /** The name of this inbox in records. */
  readonly id: string = newId()
  readonly #listeners = new TransientMap<string, Listener>()

  /** Listens for a nonce until {@link ignore}. */
  listen(nonce: string, listener: Listener): void {
    this.#listeners.set(nonce, listener)
  }

  /** Stops listening. */
  ignore(nonce: string): void {
    this.#listeners.delete(nonce)
  }

  /** Calls the listener of a message. */
  deliver(message: Buffer): void {
    if (message.length <= NONCE_END || message.toString('latin1', 0, 1) !== FORMAT) return
    if (message[1] === STAR) return this.#deliverBundle(message)
    this.#deliver(message)
  }

  /** Delivers each message of a bundle, up to the first that is malformed. */
  #deliverBundle(bundle: Buffer): void {
    for (let at = 2; at < bundle.length; ) {
      const colon = bundle.indexOf(COLON, at)
      const length = Number(bundle.toString('latin1', at, colon))
      const end = colon + 1 + length
      if (colon === -1 || !Number.isInteger(length) || length < NONCE_END - 1 || end > bundle.length) return
      // The colon is in the place of the FORMAT.
      this.#deliver(bundle.subarray(colon, end))
      at = end
    }
  }

  #deliver(message: Buffer): void {
    const listener = this.#listeners.get(message.toString('latin1', 1, NONCE_END))
    if (!listener) return
    const newline = message.indexOf(NEWLINE, NONCE_END)
    const headEnd = newline === -1 ? message.length : newline
    const kind = message.toString('latin1', NONCE_END, NONCE_END + 1)
    const fieldsAt = message[NONCE_END + 1] === SPACE ? NONCE_END + 2 : NONCE_END + 1
    const head = message.toString('latin1', Math.min(fieldsAt, headEnd), headEnd)
    const fields = head === '' ? [] : head.split(' ')
    listener.hint({ kind, fields, body: message.subarray(headEnd + 1) })
  }
}
