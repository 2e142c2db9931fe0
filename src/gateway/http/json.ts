import type { z } from 'zod'
import { JsonText } from '../../kernel/codec/json-text.ts'
import { MESSAGE_LIMIT } from '../../kernel/keys.ts'
import { readText } from '../body.ts'
import type { GatewayDeps } from '../deps.ts'
import type { RouteContext } from '../env.ts'
import { Problem } from '../problem.ts'

// The JSON of requests. It is kept byte for byte, and parsed only to check it.

/** Deepest nesting, as everywhere in the library: many parsers of other languages allow no more. */
const MAX_DEPTH = 1000

/** Reads the body of a request as JSON. @throws Problem as `readText`; 400 if it is not JSON; undefined if it is empty. */
export async function readJson(c: RouteContext, deps: GatewayDeps): Promise<JsonText | undefined> {
  const text = await readText(c, deps)
  return text === '' ? undefined : parseJson(text)
}

/** @throws Problem 400 if the text is not JSON, or is nested too deeply. */
export function parseJson(text: string): JsonText {
  if (isTooDeep(text))
    throw new Problem(400, 'json is too deep', { detail: `The deepest nesting is ${MAX_DEPTH}` })
  try {
    return JsonText.parse(text)
  } catch (error) {
    throw new Problem(400, 'invalid json', { cause: error })
  }
}

/**
 * The members of a body that must be an object of this schema, and their texts. An empty body has none.
 * @throws Problem as {@link readJson}; 400 if it is another value.
 */
export async function readMembers<T>(
  c: RouteContext,
  deps: GatewayDeps,
  schema: z.ZodType<T>,
): Promise<{ values: T; texts: ReadonlyMap<string, string> }> {
  const json = await readJson(c, deps)
  const texts = json ? memberTexts(json.text) : new Map<string, string>()
  if (!texts) throw new Problem(400, 'invalid json', { detail: 'Expected an object' })
  const parsed = schema.safeParse(json?.value ?? {})
  if (parsed.success) return { values: parsed.data, texts }
  throw new Problem(400, 'invalid json', { detail: issueText(parsed.error) })
}

/** What a schema says of a value that does not match it, and where. */
export function issueText({ issues: [issue] }: z.ZodError): string {
  const at = issue?.path.length ? ` at \`${issue.path.join('.')}\`` : ''
  return `${issue?.message}${at}`
}

/** Progress travels in a message. @throws Problem 413 if it is too large for that. */
export function checkProgress(text: string | undefined): void {
  if (text === undefined || Buffer.byteLength(text) < MESSAGE_LIMIT) return
  throw new Problem(413, 'progress is too large', { detail: `It must have less than ${MESSAGE_LIMIT} bytes` })
}

/** A value of a queue or locker as JSON: those that this gateway opens return JsonText. */
export function textOf(value: unknown): string {
  return value instanceof JsonText ? value.text : (JSON.stringify(value) ?? 'null')
}

/** An object from names and the texts of their values. A member without a text is left out. */
export function objectText(members: Readonly<Record<string, string | undefined>>): string {
  const given = Object.entries(members).filter(([, text]) => text !== undefined)
  return `{${given.map(([name, text]) => `${JSON.stringify(name)}:${text}`).join(',')}}`
}

/** The texts of the elements of an array; undefined if the text is that of another value. `text` must be JSON. */
export function elementTexts(text: string): string[] | undefined {
  const scanner = new Scanner(text)
  if (!scanner.enters('[')) return undefined
  const elements: string[] = []
  while (!scanner.leaves(']')) elements.push(scanner.value())
  return elements
}

/** The texts of the members of an object, the last of each name; undefined if the text is that of another value. */
export function memberTexts(text: string): Map<string, string> | undefined {
  const scanner = new Scanner(text)
  if (!scanner.enters('{')) return undefined
  const members = new Map<string, string>()
  while (!scanner.leaves('}')) {
    const name = JSON.parse(scanner.value()) as string
    members.set(name, scanner.value())
  }
  return members
}

/** Reads the parts of a text that is known to be JSON. */
class Scanner {
  readonly #text: string
  #at = 0

  constructor(text: string) {
    this.#text = text
  }

  /** Enters an array or object, unless the next value is another one. */
  enters(bracket: '[' | '{'): boolean {
    this.#skipBetween()
    if (this.#text[this.#at] !== bracket) return false
    this.#at++
    return true
  }

  /** Whether the array or object ends here, and no value follows. */
  leaves(bracket: ']' | '}'): boolean {
    this.#skipBetween()
    return this.#text[this.#at] === bracket
  }

  /** The text of the next value. */
  value(): string {
    this.#skipBetween()
    const start = this.#at
    let depth = 0
    do {
      const character = this.#text[this.#at] ?? ''
      if (character === '"') this.#at = stringEnd(this.#text, this.#at)
      else {
        depth += depthChange(character)
        this.#at++
        if (depth === 0 && !OPENING.includes(character) && !CLOSING.includes(character)) this.#skipScalar()
      }
    } while (depth > 0)
    return this.#text.slice(start, this.#at)
  }

  /** Skips blanks, commas and colons. */
  #skipBetween(): void {
    while (BETWEEN.includes(this.#text[this.#at] ?? '"')) this.#at++
  }

  /** Skips the rest of a number or literal. */
  #skipScalar(): void {
    while (!END_OF_SCALAR.includes(this.#text[this.#at] ?? ',')) this.#at++
  }
}

const OPENING = '[{'
const CLOSING = ']}'
const BETWEEN = ' \t\n\r,:'
const END_OF_SCALAR = BETWEEN + CLOSING

function depthChange(character: string): number {
  if (OPENING.includes(character)) return 1
  return CLOSING.includes(character) ? -1 : 0
}

/** Where the string ends that begins at `start`: behind its closing quote. If it has none, at the end of the text. */
function stringEnd(text: string, start: number): number {
  for (let quote = text.indexOf('"', start + 1); quote >= 0; quote = text.indexOf('"', quote + 1)) {
    let escapes = 0
    while (text[quote - 1 - escapes] === '\\') escapes++
    if (escapes % 2 === 0) return quote + 1
  }
  return text.length
}

/** Tells without a parser, because not every parser bears any depth. The text may not be JSON. */
function isTooDeep(text: string): boolean {
  if (text.length <= MAX_DEPTH) return false
  let depth = 0
  for (let at = 0; at < text.length; ) {
    const character = text[at] ?? ''
    if (character === '"') at = stringEnd(text, at)
    else {
      depth += depthChange(character)
      if (depth > MAX_DEPTH) return true
      at++
    }
  }
  return false
}
