import { ClosedError, UnavailableError } from '../../errors.ts'
import { newId } from '../../kernel/keys.ts'
import type { Clock } from '../../kernel/time.ts'
import type { Member, Places } from '../context.ts'
import type { RecordKind } from '../store/store.ts'
import { PlaceCache } from './place-cache.ts'
import { rank } from './rendezvous.ts'

// Where records are, and where they are made. With one instance everything is there, and nothing is asked. With several:
//
//   find   the remembered place; else the two best instances of the name are asked; then, if none has it, all others.
//   place  1. find. If there is a record: use it there. If that is not the best instance, leave a note at the best one.
//          2. reserve the name at the second best instance for 10 s, if it answers, then at the best one for 5 s
//          3. ask all other instances again
//          4. make the record at the best one, which refuses unless the name is still reserved there
//          5. end both reservations, first that at the best one
//          If a reservation is refused, or a record has appeared: from the beginning, after a random pause.
//
// Two creators never make one name on two instances, also if one of them knows an instance more on which records are made:
// the two best instances of both lists have one in common, and that one reserves the name for one of them. Whoever is second
// finds the record in step 2, if it is on the common one, or in step 3. Step 4 begins at most 4 s after step 2, so that the
// reservation at the best instance ends before that at the second best: no record is made after the latter has ended.
// What a process does not know it cannot find: an instance is added with the option `existingOnly` first.
//
// A note is a reservation that says where the record is. While it stands, nothing is made at the best instance, so a record that
// is elsewhere, because the list has changed since it was made, is not made again while its instance is down. When all
// instances say that there is no record, the note is removed.
//
// | what fails                                      | effect                                                                |
// | ----------------------------------------------- | --------------------------------------------------------------------- |
// | the best instance is down, the record elsewhere | it is found and used                                                  |
// | the best instance is down, no record elsewhere  | UnavailableError: it may be there, or be made there by another process |
// | another instance is down                        | nothing, unless a note says that the record is there: UnavailableError |
// | the creator dies                                | its reservations end after 10 s; until then others UnavailableError   |
// | a reservation ends before step 4                | the best instance refuses: from the beginning                         |
// | an instance is lost between steps 2 and 4       | UnavailableError; what it reserved ends by itself                     |
// | the reply to step 4 is lost                     | UnavailableError; the reservation at the second best ends last        |
// | a server loses a reservation or note (restart), | if it was the common one, two creators with different lists may both  |
// | or is down for one creator and not for another  | succeed                                                               |
//
// Topics and objects are made without asking for the reservation in step 4: a creator that stands still for seconds between
// steps 3 and 4 may make one twice.

/** How long a name is reserved, ms. */
const RESERVED_AT_BEST = 5_000
const RESERVED_AT_SECOND = 10_000
/** How long a note is kept after a process has found the record, ms. */
const NOTE_TTL = 10 * 60_000
/** From the first reservation to the making of the record, ms. */
const MAX_PREPARATION = 4_000

/** The pause before another attempt, ms: random, up to a bound that doubles with each attempt. */
const MIN_PAUSE = 10
const MAX_PAUSE = 200

/** The other instances are asked after this part of the time limit, even if the best ones have not answered. */
const OTHERS_AFTER = 1 / 4
/** Their part of the time that is left. */
const OTHERS_WITHIN = 1 / 2

/** Why an answer does not count. */
const NOT_THERE = Symbol('not there')

/** The record that is looked for. */
interface Wanted {
  readonly kind: RecordKind
  readonly name: string
  /** When the time limit is over, by the clock, ms. */
  readonly end: number
}

/** What came of a search. */
interface Found {
  readonly found: Member | undefined
  /** The instances that did not answer, if it was not found. */
  readonly unanswered: ReadonlyMap<Member, Error>
}

/** The instances of a bus. */
export interface Instances {
  /** Records are made on these. */
  readonly making: readonly Member[]
  /** On these, existing records are found. */
  readonly existingOnly: readonly Member[]
}

/** The places of records on one or several instances. */
export class RendezvousPlaces implements Places {
  readonly #making: readonly Member[]
  readonly #all: readonly Member[]
  readonly #clock: Clock
  readonly #within: number
  readonly #cache: PlaceCache

  /** `within`: time limit of finding a place, ms. */
  constructor({ making, existingOnly }: Instances, clock: Clock, within: number) {
    this.#making = making
    this.#all = [...making, ...existingOnly]
    this.#clock = clock
    this.#within = within
    this.#cache = new PlaceCache(clock)
  }

  /** Where a record of this name is made. */
  bestFor(name: string): Member {
    const [best] = rankMembers(name, this.#making)
    if (!best) throw new Error('A bus has one instance at least')
    return best
  }

  async find(kind: RecordKind, name: string): Promise<Member | undefined> {
    const [only] = this.#all
    if (this.#all.length === 1) return only
    const { found, unanswered } = await this.#find({ kind, name, end: this.#clock.now() + this.#within })
    if (found) return found
    for (const member of rankMembers(name, this.#all).slice(0, 2)) {
      const error = unanswered.get(member)
      if (error) throw error
    }
    return undefined
  }

  async place<T>(
    kind: RecordKind,
    name: string,
    use: (member: Member, token: string) => Promise<T | undefined>,
  ): Promise<T> {
    const wanted = { kind, name, end: this.#clock.now() + this.#within }
    for (let bound = 2 * MIN_PAUSE; ; bound = Math.min(2 * bound, MAX_PAUSE)) {
      const result = await this.#use(wanted, use)
      if (result !== undefined) return result
      this.forget(kind, name)
      const pause = MIN_PAUSE + Math.random() * (bound - MIN_PAUSE)
      if (this.#clock.now() + pause >= wanted.end)
        throw new UnavailableError(
          'Another process is making what has this name, or it is on an instance that does not answer',
          { key: name, sent: false },
        )
      await new Promise<void>((resolve) => this.#clock.after(pause, resolve))
    }
  }

  forget(kind: RecordKind, name: string): void {
    this.#cache.delete(kind, name)
  }

  /** Resolves with undefined if the record must be looked for again. */
  async #use<T>(
    wanted: Wanted,
    use: (member: Member, token: string) => Promise<T | undefined>,
  ): Promise<T | undefined> {
    const [only] = this.#all
    if (only && this.#all.length === 1) return use(only, '')
    const { found, unanswered } = await this.#find(wanted)
    if (!found) return this.#make(wanted, unanswered.size === 0, use)
    this.#note(wanted, found)
    // With a token that has reserved nothing, nothing is made.
    return use(found, newId())
  }

  async #find(wanted: Wanted): Promise<Found> {
    const { kind, name } = wanted
    const known = this.#cache.get(kind, name)
    if (known) return { found: known, unanswered: new Map() }
    const result = await this.#search(wanted)
    if (result.found) this.#cache.set(kind, name, result.found)
    return result
  }

  /** Leaves a note at the best instance, if the record is at another one. Does not wait for it. */
  #note({ kind, name }: Wanted, found: Member): void {
    const best = this.bestFor(name)
    if (best === found) return
    best.instance.places.reserve(kind, name, noteOf(found), NOTE_TTL, this.#within).catch(() => {})
  }

  async #search(wanted: Wanted): Promise<Found> {
    const ranked = rankMembers(wanted.name, this.#all)
    const [first, ...rest] = ranked.slice(0, 2)
    const others = ranked.slice(2)
    const best = first ? [this.#ask(first, wanted, this.#left(wanted)), ...this.#askOthers(rest, wanted)] : []
    let found = others.length > 0 ? await this.#first(best, this.#left(wanted) * OTHERS_AFTER) : undefined
    if (found) return { found, unanswered: new Map() }
    const all = [...best, ...this.#askOthers(others, wanted)]
    found = await this.#first(all)
    const unanswered = new Map<Member, Error>()
    if (found) return { found, unanswered }
    for (const [index, answer] of (await Promise.allSettled(all)).entries()) {
      const member = ranked[index]
      if (answer.status === 'fulfilled' || !member) continue
      if (answer.reason instanceof ClosedError) throw answer.reason
      unanswered.set(member, answer.reason)
    }
    return { found: undefined, unanswered }
  }

  #askOthers(others: readonly Member[], wanted: Wanted): Promise<Member | undefined>[] {
    return others.map((member) => this.#ask(member, wanted, this.#left(wanted) * OTHERS_WITHIN))
  }

  /** Resolves with the instance if it has the record. */
  async #ask(member: Member, { kind, name }: Wanted, within: number): Promise<Member | undefined> {
    try {
      const exists = await member.instance.places.exists(kind, name, Math.max(1, within))
      return exists ? member : undefined
    } catch (error) {
      throw unansweredError(member, name, error)
    }
  }

  /** The first instance that has the record; undefined when none has it, or after `within` ms. */
  async #first(
    answers: readonly Promise<Member | undefined>[],
    within?: number,
  ): Promise<Member | undefined> {
    const found = answers.map(async (answer) => (await answer) ?? Promise.reject(NOT_THERE))
    const first = Promise.any(found).catch(() => undefined)
    if (within === undefined) return first
    const { promise: late, cancel } = this.#timeout(within)
    return Promise.race([first, late]).finally(cancel)
  }

  #timeout(ms: number): { promise: Promise<undefined>; cancel: () => void } {
    let cancel = () => {}
    const promise = new Promise<undefined>((resolve) => {
      const timer = this.#clock.after(ms, () => resolve(undefined), true)
      cancel = () => timer.cancel()
    })
    return { promise, cancel }
  }

  #left({ end }: Wanted): number {
    return Math.max(1, end - this.#clock.now())
  }

  /** `areAllAsked`: all instances have said that there is no record. Resolves with undefined if it must be looked for again. */
  async #make<T>(
    wanted: Wanted,
    areAllAsked: boolean,
    use: (member: Member, token: string) => Promise<T | undefined>,
  ): Promise<T | undefined> {
    const { kind, name } = wanted
    const [best, second] = rankMembers(name, this.#making)
    if (!best) return undefined
    const others = this.#all.filter((member) => member !== best && member !== second)
    const token = newId()
    const startedAt = this.#clock.now()
    const reserved: Member[] = []
    try {
      if (second) {
        const isReserved = await this.#reserve(second, wanted, token, RESERVED_AT_SECOND).catch(
          (error: Error) => {
            if (error instanceof ClosedError) throw error
            return undefined
          },
        )
        if (isReserved === false) return undefined
        if (isReserved) reserved.push(second)
      }
      if (!(await this.#reserve(best, wanted, token, RESERVED_AT_BEST))) {
        if (areAllAsked) await this.#removeNotes(best, wanted)
        return undefined
      }
      reserved.unshift(best)
      if (await this.#first(this.#askOthers(others, wanted))) return undefined
      if (this.#clock.now() - startedAt > MAX_PREPARATION) return undefined
      const result = await use(best, token)
      if (result !== undefined) this.#cache.set(kind, name, best)
      return result
    } finally {
      void this.#release(reserved, wanted, token)
    }
  }

  async #removeNotes(best: Member, { kind, name }: Wanted): Promise<void> {
    const { places } = best.instance
    const others = this.#all.filter((member) => member !== best)
    await Promise.all(others.map((member) => places.release(kind, name, noteOf(member), this.#within)))
  }

  async #reserve(member: Member, wanted: Wanted, token: string, ttl: number): Promise<boolean> {
    const { kind, name } = wanted
    try {
      const within = this.#left(wanted)
      return (await member.instance.places.reserve(kind, name, token, ttl, within)) === 'reserved'
    } catch (error) {
      throw unansweredError(member, name, error)
    }
  }

  /** Never rejects. If the best instance does not answer, a record may still be made there: the other reservation stands. */
  async #release(members: readonly Member[], { kind, name }: Wanted, token: string): Promise<void> {
    try {
      for (const { instance } of members) await instance.places.release(kind, name, token, this.#within)
    } catch {
      // They end by themselves.
    }
  }
}

/** The token by which the best instance notes that the record is elsewhere. */
function noteOf({ instance }: Member): string {
  return `at ${instance.name}`
}

function rankMembers(name: string, members: readonly Member[]): Member[] {
  return rank(name, members, ({ instance }) => instance.name)
}

function unansweredError({ instance }: Member, name: string, cause: unknown): Error {
  if (cause instanceof ClosedError) return cause
  const message = `The instance ${instance.name}, where this name may be, does not answer`
  return new UnavailableError(message, { key: name, cause, sent: false })
}
