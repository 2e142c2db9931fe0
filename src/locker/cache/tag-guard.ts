import type { Call } from '../flight/waiter.ts'
import type { ClaimReply, Outcome } from '../store/store.ts'
import {
  parseTagVersions,
  readTagVersions,
  type TagVersions,
  tagsUnchanged,
  tagVersionRetention,
} from './tag-versions.ts'

/** Whether what a claim brought may be served, by its tags. */
export interface TagVerdict {
  outcome: boolean
  stale: boolean
}

/** The tags of one flight: what has one that has begun a new epoch is not served. */
export class TagGuard {
  readonly #call: Call
  /** As they were when the last claim went out. */
  versions: TagVersions = new Map()
  #pendingRead: Promise<TagVersions> | undefined

  constructor(call: Call) {
    this.#call = call
  }

  /** Whether its results have this tag. */
  has(tag: string): boolean {
    return this.#call.tags.includes(tag)
  }

  /** A claim goes out: so does the question for the epochs. */
  sending(): void {
    const { tags, locker } = this.#call
    if (tags.length === 0) return
    this.#pendingRead = readTagVersions(locker.store, tags, tagVersionRetention(this.#call), this.#limits())
    // Awaited with the reply.
    this.#pendingRead.catch(() => {})
  }

  /** Whether a reply is to be checked before it is acted upon. */
  needsCheck(reply: ClaimReply): boolean {
    return Boolean(this.#pendingRead || (reply.status === 'done' && reply.outcome.tags) || reply.stale?.tags)
  }

  /** @throws UnavailableError and the like: then nothing is known. */
  async check(reply: ClaimReply): Promise<TagVerdict> {
    this.versions = (await this.#pendingRead) ?? new Map()
    this.#pendingRead = undefined
    const outcome = parseTagVersions(reply.status === 'done' ? reply.outcome.tags : '')
    const offer = parseTagVersions(reply.stale?.tags ?? '')
    const known = await this.#currentVersions([...outcome.keys(), ...offer.keys()])
    return { outcome: tagsUnchanged(outcome, known), stale: tagsUnchanged(offer, known) }
  }

  /** The epochs of tags: those that were read with the claim, and the others now. */
  async #currentVersions(tags: readonly string[]): Promise<TagVersions> {
    const others = [...new Set(tags)].filter((tag) => !this.versions.has(tag))
    const read = await readTagVersions(this.#call.locker.store, others, 0, this.#limits())
    return new Map([...this.versions, ...read])
  }

  /** What a message brought, to one who claimed before: undefined when that must be asked. */
  verify({ tags }: Outcome): boolean | undefined {
    const note = parseTagVersions(tags)
    if ([...note.keys()].some((tag) => !this.versions.has(tag))) return undefined
    return tagsUnchanged(note, this.versions)
  }

  #limits(): { within: number } {
    return { within: this.#call.locker.unavailableAfter }
  }
}
