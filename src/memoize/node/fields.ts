import type { IncomingMessage } from 'node:http'
import { type HeaderFields, unflat } from '../http/index.ts'

/**
 * The fields of a request as they are by now: what stands before may have taken some away, or have put others in their
 * place, and the client's own are not to come back. Fields that came in several lines stay apart where nobody has.
 */
export function presentFields({ rawHeaders, headers }: IncomingMessage): HeaderFields {
  const raw = unflat(rawHeaders)
  // fromEntries defines its fields: none of them is a prototype.
  return Object.fromEntries(
    Object.entries(headers).flatMap(([name, value]) => {
      if (value === undefined) return []
      const lines = Object.hasOwn(raw, name) ? raw[name] : undefined
      return [[name, isUntouched(name, lines, value) ? lines : value]]
    }),
  )
}

/** Whether a value is what Node has made of these lines. Of several Host fields it takes the first. */
function isUntouched(name: string, lines: string | string[] | undefined, value: string | string[]): boolean {
  if (!Array.isArray(lines) || Array.isArray(value)) return false
  if (name === 'host') return value === lines[0]
  return value === lines.join(name === 'cookie' ? '; ' : ', ')
}
