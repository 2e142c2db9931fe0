import type { Call } from '../flight/waiter.ts'
import { tagVersionRetention } from '../processor/held-lease.ts'
import type { ClaimReply, Outcome } from '../store/store.ts'
import { type Epochs, readEpochs, readNote, stillHolds } from './tag-versions.ts'

/** Whether what a claim brought may be served, by its tags. */
export interface TagVerdict {
  outcome: boolean
  offer: boolean
}

/** The tags of one flight: what has one that has begun a new epoch is not served. */
export class TagCheck {
  readonly #call: Call
  /** As they were when the last claim went out. */
  epochs: Epochs = new Map()
  #reading: Promise<Epochs> | undefined

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
    this.#reading = readEpochs(locker.store, tags, tagVersionRetention(this.#call), this.#limits())
    // Awaited with the reply.
    this.#reading.catch(() => {})
  }

  /** Whether a reply is to be checked before it is acted upon. */
  concerns(reply: ClaimReply): boolean {
    return Boolean(this.#reading || (reply.status === 'done' && reply.outcome.tags) || reply.stale?.tags)
  }

  /** @throws UnavailableError and the like: then nothing is known. */
  async check(reply: ClaimReply): Promise<TagVerdict> {
    this.epochs = (await this.#reading) ?? new Map()
    this.#reading = undefined
    const outcome = readNote(reply.status === 'done' ? reply.outcome.tags : '')
    const offer = readNote(reply.stale?.tags ?? '')
    const known = await this.#known([...outcome.keys(), ...offer.keys()])
    return { outcome: stillHolds(outcome, known), offer: stillHolds(offer, known) }
  }

  /** The epochs of tags: those that were read with the claim, and the others now. */
  async #known(tags: readonly string[]): Promise<Epochs> {
    const others = [...new Set(tags)].filter((tag) => !this.epochs.has(tag))
    const read = await readEpochs(this.#call.locker.store, others, 0, this.#limits())
    return new Map([...this.epochs, ...read])
  }

  /** What a message brought, to one who claimed before: undefined when that must be asked. */
  judge({ tags }: Outcome): boolean | undefined {
    const note = readNote(tags)
    if ([...note.keys()].some((tag) => !this.epochs.has(tag))) return undefined
    return stillHolds(note, this.epochs)
  }

  #limits(): { within: number } {
    return { within: this.#call.locker.unavailableAfter }
  }
}
