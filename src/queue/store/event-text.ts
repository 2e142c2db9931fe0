import { hostname } from 'node:os'
import { MESSAGE_LIMIT } from '../../kernel/keys.ts'
import type { AttemptRef } from './attempts.ts'

/** Name of this process in events. */
const PROCESS = `${hostname().slice(0, 48)}:${process.pid}`

/** An event of this process, as watchers get it. @throws TypeError if its details cannot be JSON. */
export function eventText(event: string, details: object): string {
  return JSON.stringify({ event, process: PROCESS, ...details })
}

/** The event that lines were appended to the log of a job. It has the last ones of them, as far as a message has room. */
export function logEventText(
  { id, fence, worker: { command } }: AttemptRef,
  lines: readonly string[],
): string {
  let first = lines.length
  let bytes = 0
  while (first > 0) {
    bytes += Buffer.byteLength(JSON.stringify(lines[first - 1]))
    if (bytes >= MESSAGE_LIMIT) break
    first--
  }
  return eventText('log', { id, command, fence, lines: lines.slice(first), skipped: first })
}
