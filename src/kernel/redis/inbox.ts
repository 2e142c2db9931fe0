import { TransientMap } from '../collections/churn.ts'
import { ID_LENGTH, newId } from '../ids.ts'
import { FORMAT } from './keys.ts'

/** A message that concerns one waiter: a hint, never more trusted than its nonce. */
export interface Hint {
  /** One letter that tells what it is; the layer that sends it knows the letters. */
  kind: string
  /** Fields of the header. */
  fields: string[]
  /** What follows the header. */
  body: Buffer
}

/** Whether fields are the numbers that a message should have. Anybody may send one. */
export function areNumbers(fields: readonly (string | undefined)[]): fields is string[] {
  return fields.every((field) => field !== undefined && /^\d{1,16}$/.test(field))
}

/** Who is given every message for one nonce. */
export interface Listener {
  hint(hint: Hint): void
}

/** Length of the format version and the nonce at the head of a message. */
const NONCE_END = 1 + ID_LENGTH
const SPACE = 0x20
const NEWLINE = 0x0a
const STAR = 0x2a
const COLON = 0x3a

/**
 * Where everything that a process waits for arrives. A message names, by an unguessable nonce, the listener that it is
 * for: what nobody listens for (late, stray, forged, of another version) is dropped.
 *
 * A message is `FORMAT nonce kind [field …] LF body`, fields separated by one blank. Several for one process may come
 * as one: `FORMAT * length : message …`, each with its length in bytes and without a FORMAT of its own.
 */
export class Inbox {
  /** Names this inbox in records. */
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

  /** Gives a message to whom it concerns. */
  deliver(message: Buffer): void {
    if (message.length <= NONCE_END || message.toString('latin1', 0, 1) !== FORMAT) return
    if (message[1] === STAR) return this.#deliverBundle(message)
    this.#deliver(message)
  }

  /** Delivers each message of a bundle; what does not fit together ends it. */
  #deliverBundle(bundle: Buffer): void {
    for (let at = 2; at < bundle.length; ) {
      const colon = bundle.indexOf(COLON, at)
      const length = Number(bundle.toString('latin1', at, colon))
      const end = colon + 1 + length
      if (colon === -1 || !Number.isInteger(length) || length < NONCE_END - 1 || end > bundle.length) return
      // The colon stands where a message of its own has its format.
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
