import type { CallLimits } from '../../kernel/limits.ts'
import { microtask } from '../../kernel/time.ts'
import type { Call } from '../call.ts'
import type { Store } from '../store/store.ts'

/**
 * Versions of tags, by the name of the tag's record. `invalidateTag` gives a tag a new version. A writer stores the
 * versions beside its value, as they were when it claimed; a reader serves the value only if none has changed since.
 */
export type TagVersions = ReadonlyMap<string, number>

/** The versions as a writer stores them beside its value. Names of records contain no blanks. */
export function serializeTagVersions(versions: TagVersions): string {
  return [...versions].map(([tag, version]) => `${version} ${tag}`).join('\n')
}

/** Parses stored versions. Malformed ones match no present version. */
export function parseTagVersions(text: string): TagVersions {
  const lines = text === '' ? [] : text.split('\n')
  return new Map(
    lines.map((line) => {
      const blank = line.indexOf(' ')
      return [line.slice(blank + 1), Number(line.slice(0, blank))]
    }),
  )
}

/** Whether no stored version is older than the present one. A tag without a present version counts as changed. */
export function tagsUnchanged(stored: TagVersions, present: TagVersions): boolean {
  return [...stored].every(([tag, version]) => {
    const current = present.get(tag) ?? 0
    return current > 0 && version >= current
  })
}

/** The reads of this microtask, by store and then by arguments: claims that are sent together read the same versions. */
const pendingReads = new WeakMap<Store, Map<string, Promise<TagVersions>>>()

/** The present versions of tags. With `keepFor` (ms), missing versions are made, and all are kept at least so long. */
export function readTagVersions(
  store: Store,
  tags: readonly string[],
  keepFor: number,
  limits: CallLimits,
): Promise<TagVersions> {
  if (tags.length === 0) return Promise.resolve(new Map())
  const reads = pendingReads.get(store) ?? new Map<string, Promise<TagVersions>>()
  pendingReads.set(store, reads)
  const id = [keepFor, limits.within, ...tags].join(' ')
  const pending = reads.get(id)
  if (pending) return pending
  const read = store
    .tagVersions(tags, keepFor, limits)
    .then((versions) => new Map(tags.map((tag, index) => [tag, versions[index] ?? 0])))
  reads.set(id, read)
  microtask(() => reads.delete(id))
  return read
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
