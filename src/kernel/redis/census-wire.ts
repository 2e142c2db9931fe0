import {
  type CensusQuestion,
  MAX_CENSUS_ITEMS,
  MAX_CENSUS_PAGES,
  PROCESS_NAME_LENGTH,
  type ProcessIdentity,
} from '../census.ts'
import { FORMAT, ID_LENGTH, MESSAGE_LIMIT } from '../keys.ts'
import type { Hint } from './subscription.ts'

// The messages of a census:
//
//   broadcast   FORMAT c inbox nonce JSON                     the question; the JSON is an Asked
//   message     nonce c process page isLast isComplete        a page of an answer; the body is JSON: host, pid, since, items
//
// The address of the asker is in the question. No other address is in any message.

/** Longest time that an answer is sent for, ms. */
const MAX_ANSWER_MS = 10_000

/** Longest name of a layer, and of a host. */
const MAX_NAME = 255

/** The question, as it is sent. */
export interface Asked extends CensusQuestion {
  readonly maxItems: number
  /** How long the asker waits, ms. */
  readonly within: number
}

/** A page of an answer. */
export interface Page {
  readonly identity: ProcessIdentity
  readonly index: number
  readonly isLast: boolean
  /** Whether the pages are all that the layer has. */
  readonly isComplete: boolean
  readonly items: readonly object[]
  /** Length of its JSON. */
  readonly bytes: number
}

export function questionMessage(inbox: string, nonce: string, asked: Asked): string {
  return `${FORMAT}c ${inbox}${nonce} ${JSON.stringify(asked)}`
}

const LETTER_C = 0x63

/** Whether a broadcast is meant to be a question: the other ones have another letter. */
export function isQuestion(message: Buffer): boolean {
  return message[1] === LETTER_C
}

const QUESTION = new RegExp(`^${FORMAT}c ([\\w-]{${ID_LENGTH}})([\\w-]{${ID_LENGTH}}) (.+)$`, 's')

/** A question with its sender's address; undefined for anything else: anybody may publish to a channel. */
export function parseQuestion(message: Buffer): { inbox: string; nonce: string; asked: Asked } | undefined {
  if (message.length > MESSAGE_LIMIT) return undefined
  const [, inbox = '', nonce = '', text = ''] = QUESTION.exec(message.toString()) ?? []
  const { layer, filter, maxItems, within } = objectOf(text) ?? {}
  if (typeof layer !== 'string' || layer.length > MAX_NAME) return undefined
  if (filter !== undefined && typeof filter !== 'string') return undefined
  if (typeof maxItems !== 'number' || typeof within !== 'number') return undefined
  const most = Math.min(maxItems, MAX_CENSUS_ITEMS)
  return { inbox, nonce, asked: { layer, filter, maxItems: most, within: Math.min(within, MAX_ANSWER_MS) } }
}

/** `items` is JSON of each. */
export function pageMessage(
  nonce: string,
  page: Omit<Page, 'items' | 'bytes'>,
  items: readonly string[],
): string {
  const { process, ...origin } = page.identity
  const fields = `${process} ${page.index} ${Number(page.isLast)} ${Number(page.isComplete)}`
  return `${FORMAT}${nonce}c ${fields}\n${JSON.stringify(origin).slice(0, -1)},"items":[${items.join(',')}]}`
}

const PROCESS = new RegExp(`^[\\w-]{${PROCESS_NAME_LENGTH}}$`)
const PAGE_FIELDS = /^\d{1,4} [01] [01]$/

/** Undefined for anything but a page of an answer. */
export function parsePage({ kind, fields, body }: Hint): Page | undefined {
  const [process = '', ...numbers] = fields
  if (kind !== 'c' || body.length > MESSAGE_LIMIT) return undefined
  if (!PROCESS.test(process) || !PAGE_FIELDS.test(numbers.join(' '))) return undefined
  const [index = 0, isLast, isComplete] = numbers.map(Number)
  const { host, pid, since, items } = objectOf(body.toString()) ?? {}
  if (typeof host !== 'string' || host.length > MAX_NAME) return undefined
  if (!isCount(pid) || !isCount(since) || index >= MAX_CENSUS_PAGES) return undefined
  if (!Array.isArray(items) || !items.every(isObject)) return undefined
  const identity = { process, host, pid, since }
  return { identity, index, isLast: isLast === 1, isComplete: isComplete === 1, items, bytes: body.length }
}

function objectOf(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text)
    return isObject(value) ? value : undefined
  } catch {
    return undefined
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && Number(value) >= 0
}
