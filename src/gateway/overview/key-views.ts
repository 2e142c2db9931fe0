import { FORMAT } from '../../kernel/keys.ts'
import type { Peek } from '../../locker/index.ts'
import { inSeconds } from '../duration.ts'
import type { Answers, Told } from './census-items.ts'
import type { KeyView, ProcessView } from './overview.ts'
import { type KeyHolder, whyKey } from './why.ts'

/** What has been told of one key. Times in ms. */
export interface KeyFacts {
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
export function keyFacts(answers: Answers, prefix: string): KeyFacts[] {
  const base = `${prefix}:${FORMAT}:`
  // The name of another prefix may begin with this one.
  const isOurs = (record: string) =>
    record.startsWith(base) && /^[a-z]{1,2}\//.test(record.slice(base.length))
  const found = new Map<string, KeyFacts>()
  const factsOf = (key: string, record: string): KeyFacts => {
    const known = found.get(record)
    if (known) return known
    const unknown = { holder: NONE, fence: 0, age: 0, left: undefined, lease: undefined, progress: undefined }
    const facts: KeyFacts = { key, record, ...unknown, waiting: [], awaited: { fence: 0, age: 0 } }
    found.set(record, facts)
    return facts
  }
  for (const telling of answers.gateway) {
    const { item } = telling
    if (item.kind !== 'key' || !isOurs(item.record)) continue
    const { fence, age, left, lease, progress } = item
    const facts = factsOf(item.key, item.record)
    if (fence < facts.fence) continue
    Object.assign(facts, {
      holder: { kind: 'client', process: processOf(telling) },
      fence,
      age,
      left,
      lease,
      progress,
    })
  }
  for (const telling of answers.locker) {
    if (!isOurs(telling.item.record)) continue
    addFlight(factsOf(telling.item.key, telling.item.record), telling)
  }
  for (const facts of found.values()) dropSuperseded(facts)
  return [...found.values()]
}

/** Whoever holds a fence below that which is waited for has lost its lease to another. */
function dropSuperseded(facts: KeyFacts): void {
  const { holder, fence, awaited } = facts
  if (holder.kind === 'alone' || (holder.kind !== 'none' && fence >= awaited.fence)) return
  const unknown = { left: undefined, lease: undefined, progress: undefined }
  Object.assign(facts, { holder: NONE, ...awaited, ...unknown })
}

/** Adds what one process has told of a key. The holder is that of the highest fence. */
function addFlight(facts: KeyFacts, telling: Answers['locker'][number]): void {
  const { item } = telling
  const { fence, age, waiters } = item
  const process = processOf(telling)
  if (item.state === 'held') {
    const isAlone = item.mode !== undefined && item.mode !== 'shared'
    if (waiters > 0) facts.waiting.push({ ...process, waiters })
    // A work of that process alone says nothing about who has the lease.
    if (facts.holder.kind !== 'none' && (isAlone || fence <= facts.fence)) return
    const held = { age, left: item.leaseLeft, lease: item.lease, progress: item.progress }
    Object.assign(facts, { holder: { kind: isAlone ? 'alone' : 'process', process }, fence, ...held })
    return
  }
  facts.waiting.push({ ...process, waiters })
  facts.awaited = { fence: Math.max(facts.awaited.fence, fence), age: Math.max(facts.awaited.age, age) }
}

/** Adds what the store has of a key whose holder has not answered. */
export function addStored(facts: KeyFacts, lock: Peek['lock']): void {
  if (!lock || facts.holder.kind !== 'none') return
  const colon = lock.holder.lastIndexOf(':')
  const process = {
    process: '',
    host: lock.holder.slice(0, Math.max(0, colon)),
    pid: Number(lock.holder.slice(colon + 1)) || 0,
  }
  Object.assign(facts, { holder: { kind: 'silent', process }, fence: lock.fence, left: lock.leaseLeft })
}

export function keyView(facts: KeyFacts): KeyView {
  const { key, holder, fence, age, left, lease, progress, waiting } = facts
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

function processOf({ process, host, pid }: Told<unknown>): ProcessView {
  return { process, host, pid }
}

/** One key, if it is held or awaited. `lock`: what the store has of it, which is newer than the answers. */
export function lockView(
  answers: Answers,
  prefix: string,
  record: string,
  lock: Peek['lock'],
): KeyView | undefined {
  const facts = keyFacts(answers, prefix).find((each) => each.record === record)
  if (!facts) return undefined
  if (facts.fence !== lock?.fence && facts.holder.kind !== 'alone') facts.holder = NONE
  addStored(facts, lock)
  return keyView(facts)
}
