import type { Call } from '../call.ts'
import type { ClaimReply, Outcome } from '../store/store.ts'
import {
  parseTagVersions,
  readTagVersions,
  type TagVersions,
  tagsUnchanged,
  tagVersionRetention,
} from './tag-versions.ts'

/** Whether the outcome and the stale value of a reply may be served, as far as their tags are concerned. */
export interface TagVerdict {
  outcome: boolean
  stale: boolean
}

/** Keeps a flight from serving results whose tags were invalidated since their work began. */
export class TagGuard {
  readonly #call: Call
  /** The versions of the flight's own tags, as they were when the last claim was sent. Written by `check`. */
  versions: TagVersions = new Map()
  #pendingRead: Promise<TagVersions> | undefined

  constructor(call: Call) {
    this.#call = call
  }

  /** Whether the flight's results have this tag. */
  has(tag: string): boolean {
    return this.#call.tags.includes(tag)
  }

  /** A claim is sent: reads the versions beside it. */
  sending(): void {
    const { tags, locker } = this.#call
    if (tags.length === 0) return
    this.#pendingRead = readTagVersions(locker.store, tags, tagVersionRetention(this.#call), this.#limits())
    // `check` awaits it, and rejects.
    this.#pendingRead.catch(() => {})
  }

  /** Whether a reply must be checked before the flight acts on it. */
  needsCheck(reply: ClaimReply): boolean {
    return Boolean(this.#pendingRead || (reply.status === 'done' && reply.outcome.tags) || reply.stale?.tags)
  }

  /** Compares the tags of a reply with their present versions. @throws UnavailableError, OverloadedError, ClosedError */
  async check(reply: ClaimReply): Promise<TagVerdict> {
    this.versions = (await this.#pendingRead) ?? new Map()
    this.#pendingRead = undefined
    const outcome = parseTagVersions(reply.status === 'done' ? reply.outcome.tags : '')
    const stale = parseTagVersions(reply.stale?.tags ?? '')
    const present = await this.#presentVersions([...outcome.keys(), ...stale.keys()])
    return { outcome: tagsUnchanged(outcome, present), stale: tagsUnchanged(stale, present) }
  }

  /** Those that were read with the claim, and the others read now. */
  async #presentVersions(tags: readonly string[]): Promise<TagVersions> {
    const others = [...new Set(tags)].filter((tag) => !this.versions.has(tag))
    const read = await readTagVersions(this.#call.locker.store, others, 0, this.#limits())
    return new Map([...this.versions, ...read])
  }

  /** Whether an outcome that a message brought may be served. Undefined: only a new claim can tell. */
  verify({ tags }: Outcome): boolean | undefined {
    const stored = parseTagVersions(tags)
    if ([...stored.keys()].some((tag) => !this.versions.has(tag))) return undefined
    return tagsUnchanged(stored, this.versions)
  }

  #limits(): { within: number } {
    return { within: this.#call.locker.unavailableAfter }
  }
}
