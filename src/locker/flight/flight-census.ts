import { decodeWith } from '../../kernel/codec/codec.ts'
import { JsonText } from '../../kernel/codec/json-text.ts'
import { masked } from '../../secrets.ts'
import type { HeldLease } from '../processor/held-lease.ts'
import type { Grant } from '../processor/lease-state.ts'
import type { Flight } from './flight.ts'

/** A key that a process holds, or waits for, as the locker answers a census. Times in ms, when it was answered. */
export type LockerCensusItem = {
  /** Without credentials of URLs. In the place of a key of more than 1,024 characters stands its record. */
  readonly key: string
  /** Name of the record in Redis: begins with the prefix of the locker, and tells keys apart. */
  readonly record: string
  /** held: this process is the processor. waiting: another process is, or the store has been asked. */
  readonly state: 'held' | 'waiting'
  /** Of the grant. While waiting: of the grant that is waited for; 0 when none is known yet. */
  readonly fence: number
  /** How long it has been held, or waited for. */
  readonly age: number
  /** Callers of this process that wait for the outcome. */
  readonly waiters: number
  /** Of what is held: whether other processes receive the outcome. See `Grant`. */
  readonly mode?: Grant['mode']
  /** Of a shared lease: how long until it counts as lost unless it is renewed. Absent when it is lost. */
  readonly leaseLeft?: number
  /** Of a shared lease: how long it is from each renewal. */
  readonly lease?: number
  /** What the work has shown last, unless it is large or has no JSON. */
  readonly progress?: unknown
}

/** Longest key that is looked through for credentials: that takes time. */
const MAX_SHOWN_KEY = 1024

/** Largest progress that is told, encoded, in bytes. */
const MAX_PROGRESS = 1024

/** What flights hold and wait for. `filter`: of one key alone. */
export function* censusOf(
  flights: Iterable<Flight>,
  filter: string | undefined,
  now: number,
): Generator<LockerCensusItem> {
  for (const flight of flights) {
    const item = filter === undefined || filter === flight.key ? itemOf(flight, now) : undefined
    if (item) yield item
  }
}

function itemOf(
  { key, record, held, waiters, awaitedFence }: Flight,
  now: number,
): LockerCensusItem | undefined {
  const shown = key.length > MAX_SHOWN_KEY ? record : masked(key)
  const common = { key: shown, record, fence: awaitedFence, waiters: waiters.size }
  if (!held) {
    const { first } = waiters
    return first && { ...common, state: 'waiting', age: now - first.since }
  }
  const { grant, timer } = held
  const leaseLeft = Math.max(0, timer.expiresAt - now)
  const lease = Number.isFinite(leaseLeft) ? { leaseLeft, lease: grant.lease } : undefined
  return {
    ...{ ...common, state: 'held', age: now - grant.sentAt, mode: grant.mode, ...lease },
    progress: progressOf(held, waiters.lastProgress),
  }
}

/** The last progress as JSON has it. Undefined also if the codec refuses it: its errors are not those of a census. */
function progressOf({ call }: HeldLease, bytes: Buffer | undefined): unknown {
  if (!bytes || bytes.length > MAX_PROGRESS) return undefined
  try {
    const value = decodeWith(call.codec, bytes, call.key)
    const text = value instanceof JsonText ? value.text : (JSON.stringify(value) ?? 'null')
    return text.length > MAX_PROGRESS ? undefined : (JSON.parse(text) as unknown)
  } catch {
    return undefined
  }
}
