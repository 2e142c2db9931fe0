import { z } from 'zod'
import { isPrintableName, MAX_NAME } from '../../kernel/names.ts'
import { shownValue } from '../../kernel/options.ts'
import { type DurationBounds, parseDuration } from '../duration.ts'
import { Problem } from '../problem.ts'
import { invalidParameter, isKey, MAX_KEY } from './names.ts'

// The parameters of a query: each route declares a schema, which checks them, and describes them in /openapi.json. The message
// of an issue says what was expected.

/** The schema of a parameter: its text is parsed to a `T`, undefined if it is absent. */
export type Parameter<T> = z.ZodType<T | undefined, string | undefined>

/** A parameter whose text `parse` reads, undefined if it is invalid. `schema`: JSON schema of the value for its readers. */
function parameter<T>(
  expected: string,
  parse: (text: string) => T | undefined,
  schema: Record<string, unknown>,
): Parameter<T> {
  return z
    .string()
    .transform((text, context) => {
      const value = parse(text)
      if (value !== undefined) return value
      context.addIssue({ code: 'custom', message: expected })
      return z.NEVER
    })
    .optional()
    .meta(schema)
}

/** A duration, in ms. */
export function duration(description: string, bounds: DurationBounds): Parameter<number> {
  const { min = 0, max } = bounds
  return parameter(
    `seconds, or a number with ms, s, m, h or d, from ${min} ms to ${max} ms`,
    (text) => parseDuration(text, bounds),
    { description, examples: ['30', '500ms'] },
  )
}

/** A whole number. */
export function count(description: string, minimum: number, maximum: number): Parameter<number> {
  return parameter(
    `a whole number from ${minimum} to ${maximum}`,
    (text) => {
      const value = /^\d{1,10}$/.test(text) ? Number(text) : Number.NaN
      return value >= minimum && value <= maximum ? value : undefined
    },
    { description, type: 'integer', minimum, maximum },
  )
}

/** A switch: `?x`, `1`, `true` are on; `0`, `false` are off. */
export function flag(description: string): Parameter<boolean> {
  return parameter('1 or 0', (text) => (OFF.includes(text) ? false : ON.includes(text) ? true : undefined), {
    description,
    enum: [...ON, ...OFF],
  })
}

const ON = ['', '1', 'true']
const OFF = ['0', 'false']

/** One of some words. */
export function word<const Word extends string>(
  description: string,
  words: readonly [Word, ...Word[]],
): Parameter<Word> {
  return parameter(words.join(' or '), (text) => words.find((known) => known === text), {
    description,
    enum: words,
  })
}

/** Any text of this length at most. */
export function text(description: string, maxLength: number): Parameter<string> {
  const isValid = (value: string) => value.length <= maxLength && value.isWellFormed()
  return parameter(`at most ${maxLength} characters`, (value) => (isValid(value) ? value : undefined), {
    description,
    maxLength,
  })
}

/** A key of the client's choice. */
export function key(description: string): Parameter<string> {
  return parameter(`1 to ${MAX_KEY} characters`, (value) => (isKey(value) ? value : undefined), {
    description,
    minLength: 1,
    maxLength: MAX_KEY,
  })
}

/** The name of a queue or of a command. */
export function name(description: string): Parameter<string> {
  const expected = `1 to ${MAX_NAME} characters without control characters`
  return parameter(expected, (value) => (isPrintableName(value) ? value : undefined), {
    description,
    minLength: 1,
    maxLength: MAX_NAME,
  })
}

/** The command of the jobs that a request is about. */
export const command: Parameter<string> = name('Command of the jobs; `job` if it is absent.')

/** The parameters of a route. */
export type Parameters = Readonly<Record<string, Parameter<unknown>>>

export type ParameterValues<P extends Parameters> = { [Name in keyof P]?: z.output<P[Name]> }

/** Most queries that a route remembers, and the longest URL whose query it remembers: the query keeps its URL in memory. */
const MAX_KNOWN = 100
const MAX_KNOWN_URL = 500

/** Reads the parameters of a route from URLs by their schema. The same queries come again and again: those are remembered. */
export class ParameterReader<P extends Parameters> {
  readonly #schema: z.ZodType
  readonly #known = new Map<string, ParameterValues<P>>()

  constructor(schema: z.ZodType) {
    this.#schema = schema
  }

  /** @throws Problem 400 for a parameter that is unknown, repeated or invalid. */
  read(url: string): ParameterValues<P> {
    const start = url.indexOf('?')
    const query = start < 0 ? '' : url.slice(start)
    const known = this.#known.get(query)
    if (known) return known
    const values = Object.freeze(readQuery<P>(query, this.#schema))
    if (url.length > MAX_KNOWN_URL) return values
    if (this.#known.size >= MAX_KNOWN) this.#known.clear()
    this.#known.set(query, values)
    return values
  }
}

function readQuery<P extends Parameters>(query: string, schema: z.ZodType): ParameterValues<P> {
  const texts: Record<string, string> = Object.create(null)
  for (const [name, value] of new URLSearchParams(query)) {
    if (Object.hasOwn(texts, name)) throw invalid(`The parameter ${shownValue(name)} is repeated`)
    texts[name] = value
  }
  const parsed = schema.safeParse(texts)
  if (parsed.success) return parsed.data as ParameterValues<P>
  const [issue] = parsed.error.issues
  if (issue?.code === 'unrecognized_keys')
    throw invalid(`Unknown parameter ${shownValue(issue.keys[0])}: see /docs for those of this route`)
  const at = String(issue?.path[0])
  throw invalidParameter(at, issue?.message ?? '', texts[at] ?? '')
}

function invalid(detail: string): Problem {
  return new Problem(400, 'invalid parameter', { detail })
}
