import { FORMAT } from '../../kernel/keys.ts'
import type { Peek } from '../../locker/index.ts'
import { inSeconds } from '../duration.ts'
import type { Answers, CensusEntry } from './census-items.ts'
import type { KeyView, ProcessView } from './overview.ts'
import { type KeyHolder, whyKey } from './why.ts'

/** One key, by what processes and clients have answered. Times in ms. */
export interface KeyState {
  readonly key: string
  readonly record: string
  holder: KeyHolder
  fence: number
  /** How long it has been held. */
  age: number
  left: number | undefined
  lease: number | undefined
  progress: unknown
  readonly waiting: (ProcessView & { readonly waiters: number })[]
  /** The highest fence whose outcome is waited for; how long the first has waited. */
  awaited: { readonly fence: number; readonly age: number }
}

const NONE: KeyHolder = { kind: 'none' }

/** The keys of a prefix that processes, or clients of gateways, hold or wait for. */
export function keyStates(answers: Answers, prefix: string): KeyState[] {
  const base = `${prefix}:${FORMAT}:`
  // The name of another prefix may begin with this one.
  const isOurs = (record: string) =>
    record.startsWith(base) && /^[a-z]{1,2}\//.test(record.slice(base.length))
  const found = new Map<string, KeyState>()
  const stateOf = (key: string, record: string): KeyState => {
    const known = found.get(record)
    if (known) return known
    const unknown = { holder: NONE, fence: 0, age: 0, left: undefined, lease: undefined, progress: undefined }
    const state: KeyState = { key, record, ...unknown, waiting: [], awaited: { fence: 0, age: 0 } }
    found.set(record, state)
    return state
  }
  for (const entry of answers.gateway) {
    const { item } = entry
    if (item.kind !== 'key' || !isOurs(item.record)) continue
    const { fence, age, left, lease, progress } = item
    const state = stateOf(item.key, item.record)
    if (fence < state.fence) continue
    Object.assign(state, {
      holder: { kind: 'client', process: processOf(entry) },
      fence,
      age,
      left,
      lease,
      progress,
    })
  }
  for (const entry of answers.locker) {
    if (!isOurs(entry.item.record)) continue
    addFlight(stateOf(entry.item.key, entry.item.record), entry)
  }
  for (const state of found.values()) dropSuperseded(state)
  return [...found.values()]
}

/** Whoever holds a fence below that which is waited for has lost its lease to another. */
function dropSuperseded(state: KeyState): void {
  const { holder, fence, awaited } = state
  if (holder.kind === 'alone' || (holder.kind !== 'none' && fence >= awaited.fence)) return
  const unknown = { left: undefined, lease: undefined, progress: undefined }
  Object.assign(state, { holder: NONE, ...awaited, ...unknown })
}

/** Adds what one process has answered of a key. The holder is that of the highest fence. */
function addFlight(state: KeyState, entry: Answers['locker'][number]): void {
  const { item } = entry
  const { fence, age, waiters } = item
  const process = processOf(entry)
  if (item.state === 'held') {
    const isAlone = item.mode !== undefined && item.mode !== 'shared'
    if (waiters > 0) state.waiting.push({ ...process, waiters })
    // A work of that process alone says nothing about who has the lease.
    if (state.holder.kind !== 'none' && (isAlone || fence <= state.fence)) return
    const held = { age, left: item.leaseLeft, lease: item.lease, progress: item.progress }
    Object.assign(state, { holder: { kind: isAlone ? 'alone' : 'process', process }, fence, ...held })
    return
  }
  state.waiting.push({ ...process, waiters })
  state.awaited = { fence: Math.max(state.awaited.fence, fence), age: Math.max(state.awaited.age, age) }
}

/** Adds what the store has of a key whose holder has not answered. */
export function addStored(state: KeyState, lock: Peek['lock']): void {
  if (!lock || state.holder.kind !== 'none') return
  const colon = lock.holder.lastIndexOf(':')
  const process = {
    process: '',
    host: lock.holder.slice(0, Math.max(0, colon)),
    pid: Number(lock.holder.slice(colon + 1)) || 0,
  }
  Object.assign(state, { holder: { kind: 'silent', process }, fence: lock.fence, left: lock.leaseLeft })
}

export function keyView(state: KeyState): KeyView {
  const { key, holder, fence, age, left, lease, progress, waiting } = state
  const waiters = waiting.reduce((sum, process) => sum + process.waiters, 0)
  return {
    ...{ key, fence, waiters, waiting },
    holder: holder.kind === 'none' ? null : holder.process,
    age: inSeconds(age),
    left: left === undefined ? null : inSeconds(left),
    lease: lease === undefined ? null : inSeconds(lease),
    progress: progress ?? null,
    why: whyKey({ key, holder, age, left, waiters }),
  }
}

function processOf({ process, host, pid }: CensusEntry<unknown>): ProcessView {
  return { process, host, pid }
}

/** One key, if it is held or awaited. `lock`: what the store has of it, which is newer than the answers. */
export function lockView(
  answers: Answers,
  prefix: string,
  record: string,
  lock: Peek['lock'],
): KeyView | undefined {
  const state = keyStates(answers, prefix).find((each) => each.record === record)
  if (!state) return undefined
  if (state.fence !== lock?.fence && state.holder.kind !== 'alone') state.holder = NONE
  addStored(state, lock)
  return keyView(state)
}
