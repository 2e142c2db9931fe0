import { microtask } from '../../kernel/time.ts'
import type { ClaimReply, Outcome, Store } from '../store/store.ts'

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
  within: number,
): Promise<TagVersions> {
  if (tags.length === 0) return Promise.resolve(new Map())
  const reads = pendingReads.get(store) ?? new Map<string, Promise<TagVersions>>()
  pendingReads.set(store, reads)
  const id = [keepFor, within, ...tags].join(' ')
  const pending = reads.get(id)
  if (pending) return pending
  const read = store
    .tagVersions(tags, keepFor, within)
    .then((versions) => new Map(tags.map((tag, index) => [tag, versions[index] ?? 0])))
  reads.set(id, read)
  microtask(() => reads.delete(id))
  return read
}

/** How long the versions of tags are known beyond the results that carry them, ms. */
const RETENTION_GRACE = 60_000

/** A call whose results have tags. */
export interface TaggedCall {
  readonly tags: readonly string[]
  /** How long its results are fresh, and kept beyond that, ms. */
  readonly ttl: number
  readonly keepStale: number
  readonly locker: { readonly store: Store; readonly unavailableAfter: number }
}

/** How long the versions of a call's tags must be known, ms. */
export function tagVersionRetention({ ttl, keepStale }: Pick<TaggedCall, 'ttl' | 'keepStale'>): number {
  return Math.ceil(ttl) + keepStale + RETENTION_GRACE
}

/**
 * Keeps the versions of a call's tags as long as its result, which is kept for `ms`, if that is longer than the call said:
 * a result whose tags have no version is not served. Best effort.
 */
export function extendTagVersions({ locker, ttl, tags, keepStale }: TaggedCall, ms: number): void {
  if (ms <= ttl + keepStale) return
  locker.store.tagVersions(tags, ms + RETENTION_GRACE, locker.unavailableAfter).catch(() => {})
}

/** Keeps a flight from serving results whose tags were invalidated since their work began. */
export class TagGuard {
  readonly #call: TaggedCall
  /** The versions of the flight's own tags, as they were when the last claim was sent. Written by `check`. */
  versions: TagVersions = new Map()
  #pendingRead: Promise<TagVersions> | undefined

  constructor(call: TaggedCall) {
    this.#call = call
  }

  /** The versions of the flight's own tags are being read: the reply must be checked, whatever it is. */
  get isReading(): boolean {
    return this.#pendingRead !== undefined
  }

  /** A claim is sent: reads the versions beside it. */
  onSent(): void {
    const { tags, locker } = this.#call
    if (tags.length === 0) return
    this.#pendingRead = readTagVersions(
      locker.store,
      tags,
      tagVersionRetention(this.#call),
      this.#call.locker.unavailableAfter,
    )
    // `check` awaits it, and rejects.
    this.#pendingRead.catch(() => {})
  }

  /**
   * Takes out of a reply what has tags of another version than at present. `outdatedFence`: that was the answer itself; no
   * result of a grant up to this fence may be served. @throws UnavailableError, OverloadedError, ClosedError
   */
  async check(reply: ClaimReply): Promise<ClaimReply | { outdatedFence: number }> {
    const read = this.#pendingRead
    const versions = (await read) ?? new Map()
    // Another claim may have been sent meanwhile: then its versions count, and nobody waits for this reply.
    if (this.#pendingRead === read) {
      this.versions = versions
      this.#pendingRead = undefined
    }
    const outcome = parseTagVersions(reply.status === 'done' ? reply.outcome.tags : '')
    const stale = parseTagVersions(reply.stale?.tags ?? '')
    const present = await this.#presentVersions([...outcome.keys(), ...stale.keys()])
    if (reply.status === 'done' && !tagsUnchanged(outcome, present))
      return { outdatedFence: reply.outcome.fence }
    if (tagsUnchanged(stale, present)) return reply
    if (reply.status === 'stale') return { outdatedFence: reply.stale.fence }
    return { ...reply, stale: undefined }
  }

  /** Those that were read with the claim, and the others read now. */
  async #presentVersions(tags: readonly string[]): Promise<TagVersions> {
    const others = [...new Set(tags)].filter((tag) => !this.versions.has(tag))
    const read = await readTagVersions(this.#call.locker.store, others, 0, this.#call.locker.unavailableAfter)
    return new Map([...this.versions, ...read])
  }

  /** Whether an outcome that a message brought may be served. Undefined: only a new claim can tell. */
  verify({ tags }: Outcome): boolean | undefined {
    const stored = parseTagVersions(tags)
    if ([...stored.keys()].some((tag) => !this.versions.has(tag))) return undefined
    return tagsUnchanged(stored, this.versions)
  }
}
