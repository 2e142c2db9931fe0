import { type Payload, payloadOf, sumOf } from '../queues/payload.ts'
import { now } from '../statistics.ts'

/** Strings of 1 KB, and objects that have 1 KB as JSON. */
export const KINDS = ['strings', 'objects'] as const
export type Kind = (typeof KINDS)[number]

/** Every message carries its number. The messages of a route are numbered from 0. */
export type Message = string | Payload

const BYTES = 1_000
const DIGITS = 10
const TEXT = 'A line of text, as it stands in a log or in a note. '.repeat(20).slice(0, BYTES - DIGITS)

const FIRST = payloadOf(0, BYTES)
const QUANTITIES = sumOf(FIRST)

export function messageOf(kind: Kind, n: number): Message {
  return kind === 'strings' ? String(n).padStart(DIGITS, '0') + TEXT : payloadOf(n, BYTES)
}

/** The number of a message that arrived as it was sent; NaN for any other. A full comparison would cost as much as its way here. */
function numberOf(kind: Kind, message: unknown): number {
  if (kind === 'strings') {
    const intact = typeof message === 'string' && message.length === BYTES && message.endsWith(TEXT)
    return intact ? Number(message.slice(0, DIGITS)) : Number.NaN
  }
  if (typeof message !== 'object' || message === null) return Number.NaN
  const { n, lines, note } = message as Payload
  // The note is the shorter, the more digits the number has.
  const intact =
    lines.length === FIRST.lines.length &&
    sumOf({ n, lines, note }) === n + QUANTITIES &&
    note.length + String(n).length === FIRST.note.length + 1
  return intact ? n : Number.NaN
}

/** What one receiver has heard of the messages of a route, since it opened. */
export interface Heard {
  received: number
  /** With another content than was sent. */
  wrong: number
  /** Not the successor of the one before: something is missing, comes twice or comes early. */
  disordered: number
  /** When the last one came, ms on the clock of the machine. */
  lastAt: number
}

/** Counts and checks the messages of a route. */
export class Tally implements Heard {
  received = 0
  wrong = 0
  disordered = 0
  lastAt = 0
  readonly #kind: Kind
  #next = 0

  constructor(kind: Kind) {
    this.#kind = kind
  }

  hear(message: unknown): void {
    this.received++
    this.lastAt = now()
    const n = numberOf(this.#kind, message)
    if (Number.isNaN(n)) this.wrong++
    else if (n !== this.#next) this.disordered++
    this.#next = Number.isNaN(n) ? this.#next + 1 : n + 1
  }
}
