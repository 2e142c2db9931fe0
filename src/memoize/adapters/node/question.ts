import type { IncomingHttpHeaders, IncomingMessage } from 'node:http'
import { fromRawHeaders, type HeaderFields, type OriginRequest } from '../../engine/index.ts'
import { linesOf } from '../../policy/fields.ts'
import { dataProperty, type Face } from './face.ts'
import { isSameField } from './fields.ts'

/** Properties of a client's request that are others while it asks for all who may have the answer. */
export const ASKING = [
  'method',
  'httpVersion',
  'httpVersionMajor',
  'httpVersionMinor',
  'headers',
  'headersDistinct',
  'rawHeaders',
] as const

/** A client's request as it asks for all: see `question`. `judged`: its fields as they were judged. */
export function askingFace(request: IncomingMessage, judged: HeaderFields, asked: OriginRequest): Face {
  const headers = headersAsked(request, judged, asked)
  const raw = rawOf(request, headers)
  const values: Record<(typeof ASKING)[number], unknown> = {
    method: asked.method,
    // Whatever version the one client speaks, the answer is for all.
    httpVersion: '1.1',
    httpVersionMajor: 1,
    httpVersionMinor: 1,
    headers,
    headersDistinct: distinct(raw),
    rawHeaders: raw,
  }
  return new Map(ASKING.map((name) => [name, dataProperty(values[name])]))
}

/** The very values that are there, but for those that the question has otherwise. */
function headersAsked(
  request: IncomingMessage,
  judged: HeaderFields,
  { method, headers: asked }: OriginRequest,
): IncomingHttpHeaders {
  const headers: [string, string | string[] | undefined][] = []
  const missing = new Set(Object.keys(asked))
  for (const [given, value] of Object.entries(request.headers)) {
    const name = given.toLowerCase()
    // By this, parsers know that there is a body.
    const frames = name === 'transfer-encoding' && method !== 'GET'
    if (frames || isSameField(asked[name], judged[name])) headers.push([given, value])
    else if (asked[name] !== undefined) headers.push([given, joined(name, asked[name])])
    missing.delete(name)
  }
  for (const name of missing) headers.push([name, joined(name, asked[name])])
  // fromEntries defines its fields: none of them is a prototype.
  return Object.fromEntries(headers)
}

function joined(name: string, value: HeaderFields[string]): string | undefined {
  return Array.isArray(value) ? value.join(name === 'cookie' ? '; ' : ', ') : value
}

/** The fields in lines, as they came where nobody has changed them. */
function rawOf({ rawHeaders }: IncomingMessage, headers: IncomingHttpHeaders): string[] {
  const came = fromRawHeaders(rawHeaders)
  return Object.entries(headers).flatMap(([name, value]) => {
    const lines = isUntouched(name, came[name], value) ? linesOf(came, name) : [value ?? []].flat()
    return lines.flatMap((line) => [name, String(line)])
  })
}

/** Whether a value is what Node has made of these lines. */
function isUntouched(
  name: string,
  lines: HeaderFields[string],
  value: string | string[] | undefined,
): boolean {
  return lines !== undefined && !Array.isArray(value) && value === joined(name, lines)
}

function distinct(raw: readonly string[]): NodeJS.Dict<string[]> {
  const fields = fromRawHeaders(raw)
  return Object.fromEntries(Object.keys(fields).map((name) => [name, [...linesOf(fields, name)]]))
}
