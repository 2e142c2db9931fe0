import { microtask } from '../../kernel/time/timers.ts'
import type { Call } from '../flight/waiter.ts'
import type { CallLimits, Store } from '../store/store.ts'

/** Epochs of tags, by the name of the tag's record. */
export type TagVersions = ReadonlyMap<string, number>

/** Epochs as a writer notes them beside its value. Names of records hold no blanks. */
export function serializeTagVersions(epochs: TagVersions): string {
  return [...epochs].map(([tag, epoch]) => `${epoch} ${tag}`).join('\n')
}

/** Reads what a writer noted. What is none of that matches nothing. */
export function parseTagVersions(note: string): TagVersions {
  const lines = note === '' ? [] : note.split('\n')
  return new Map(
    lines.map((line) => {
      const blank = line.indexOf(' ')
      return [line.slice(blank + 1), Number(line.slice(0, blank))]
    }),
  )
}

/** Whether no tag of a note has begun a new epoch, as far as `known` tells. A tag without an epoch matches nothing. */
export function tagsUnchanged(note: TagVersions, known: TagVersions): boolean {
  return [...note].every(([tag, epoch]) => {
    const current = known.get(tag) ?? 0
    return current > 0 && epoch >= current
  })
}

/** What is being asked in this very step of the program, by store: many claims that go out together ask the same. */
const pendingReads = new WeakMap<Store, Map<string, Promise<TagVersions>>>()

/** The present epochs of tags. With `keepFor` (ms), each has one, and keeps it at least that long. */
export function readTagVersions(
  store: Store,
  tags: readonly string[],
  keepFor: number,
  limits: CallLimits,
): Promise<TagVersions> {
  if (tags.length === 0) return Promise.resolve(new Map())
  const questions = pendingReads.get(store) ?? new Map<string, Promise<TagVersions>>()
  pendingReads.set(store, questions)
  const question = [keepFor, limits.within, ...tags].join(' ')
  const known = questions.get(question)
  if (known) return known
  const answer = store
    .tagVersions(tags, keepFor, limits)
    .then((epochs) => new Map(tags.map((tag, index) => [tag, epochs[index] ?? 0])))
  questions.set(question, answer)
  microtask(() => questions.delete(question))
  return answer
}

/** How long the versions of tags are known beyond the results that carry them, ms. */
const RETENTION_GRACE = 60_000

/** How long the versions of a call's tags must be known, ms. */
export function tagVersionRetention(call: Call): number {
  return Math.ceil(call.ttl) + call.keepStale + RETENTION_GRACE
}

/**
 * Keeps the versions of a call's tags for as long as its result, which is kept for `ms`, if that is longer than the call
 * said: a result whose tags have no version is not served. Best effort.
 */
export function extendTagVersions({ locker, ttl, tags, keepStale }: Call, ms: number): void {
  if (ms <= ttl + keepStale) return
  const limits = { within: locker.unavailableAfter }
  locker.store.tagVersions(tags, ms + RETENTION_GRACE, limits).catch(() => {})
}
