import { MemoryStore } from '../../../src/locker/store/memory-store.ts'
import type { ResourceRecord, TransitionContext } from '../../../src/locker/store/record.ts'
import type { Notice } from '../../../src/locker/store/store.ts'
import type { Scheduler } from './scheduler.ts'

/** A process, as the server knows it. */
export interface Party {
  /** Sends a notice to one of its flights: whether somebody received it, as far as the server can tell. */
  tell(nonce: string, notice: Notice): boolean
  drop(key: string, fence: number): void
  dropTag(tag: string, epoch: number): void
  /** The highest fence that it has seen. */
  readonly seen: number
}

/** Characters of the inbox in the name of a parked flight. */
const INBOX = 22

/**
 * The one store that all processes use. Its transitions are the memory adapter's own; its clock is the server's, which
 * may be set, and its messages go out over the processes' subscriptions.
 */
export class SimServer extends MemoryStore {
  /** Replaces the surroundings of every transition. */
  alter: (at: TransitionContext) => TransitionContext = (at) => at
  /** Nothing is answered before. */
  frozenUntil = 0
  readonly #scheduler: Scheduler
  readonly #skew: { ms: number }
  readonly #parties = new Set<Party>()
  readonly #flights = new Map<string, Party>()
  #acting: Party | undefined

  constructor(scheduler: Scheduler, maxRecords: number) {
    const skew = { ms: 1e9 }
    super({
      maxRecords,
      clock: {
        now: () => scheduler.now + skew.ms,
        after: (ms, run) => {
          const entry = scheduler.after(ms, run)
          return {
            cancel: () => {
              entry.run = undefined
            },
          }
        },
      },
    })
    this.#skew = skew
    this.#scheduler = scheduler
  }

  join(party: Party): void {
    this.#parties.add(party)
  }

  leave(party: Party): void {
    this.#parties.delete(party)
  }

  /** Runs a request of a process; `nonce`: of the flight that it is about. */
  act<T>(party: Party, nonce: string | undefined, run: () => T): T {
    if (nonce !== undefined) this.#flights.set(nonce, party)
    this.#acting = party
    return run()
  }

  override apply<T>(key: string, transition: (record: ResourceRecord, at: TransitionContext) => T): T {
    return super.apply(key, (record, at) => transition(record, this.#surroundings(at)))
  }

  #surroundings(at: TransitionContext): TransitionContext {
    return this.alter({
      ...at,
      micros: Math.floor(at.now * 1000),
      highestFence: this.#acting?.seen ?? 0,
      notify: (park, notice) => this.#tell(park, notice),
    })
  }

  #tell(park: string, notice: Notice): boolean {
    const nonce = park.slice(INBOX)
    return this.#flights.get(nonce)?.tell(nonce, notice) ?? false
  }

  override broadcastInvalidation(key: string, fence: number): void {
    for (const party of this.#parties) party.drop(key, fence)
  }

  override invalidateTag(tag: string): void {
    super.invalidateTag(tag)
    const [epoch = 0] = this.tagVersions([tag], 0)
    for (const party of this.#parties) party.dropTag(tag, epoch)
  }

  /** The flights that are parked on a record, by the process that they are of. */
  parked(key: string): (Party | undefined)[] {
    return [...(this.find(key)?.parks ?? [])].map((park) => this.#flights.get(park.slice(INBOX)))
  }

  freeze(ms: number): void {
    this.frozenUntil = Math.max(this.frozenUntil, this.#scheduler.now + ms)
  }

  /** The record is lost, and nobody is told. */
  forget(key: string): void {
    if (!this.find(key)) return
    super.apply(key, (record) => {
      record.expiresAt = 0
    })
  }

  /** Sets the clock of the server forward, or back. */
  step(ms: number): void {
    this.#skew.ms += ms
  }
}
