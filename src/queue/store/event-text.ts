import { hostname } from 'node:os'
import { MESSAGE_LIMIT } from '../../kernel/keys.ts'
import type { AttemptRef } from './attempts.ts'

/** Name of this process in events. */
const PROCESS = `${hostname().slice(0, 48)}:${process.pid}`

/** An event of this process, as watchers get it. @throws TypeError if its details cannot be JSON. */
export function eventText(event: string, details: object): string {
  return JSON.stringify({ event, process: PROCESS, ...details })
}

/** The event that lines were appended to the log of a job. It has the last ones of them, as far as there is room, in bytes. */
export function logEventText(
  { id, fence, worker: { command } }: AttemptRef,
  lines: readonly string[],
  room: number = MESSAGE_LIMIT,
): string {
  const most = Math.min(room, MESSAGE_LIMIT)
  let first = lines.length
  let bytes = 0
  while (first > 0) {
    bytes += Buffer.byteLength(JSON.stringify(lines[first - 1]))
    if (bytes >= most) break
    first--
  }
  return eventText('log', { id, command, fence, lines: lines.slice(first), skipped: first })
}
