import { MemoryStore } from '../../../src/locker/store/memory-store.ts'
import type { ResourceRecord, TransitionContext } from '../../../src/locker/store/record.ts'
import type { Notice } from '../../../src/locker/store/store.ts'
import type { Scheduler } from '../scheduler.ts'

/** A process as the server sees it. */
export interface SimClient {
  /** Sends a notice to one of its flights. Returns whether it was received, as far as the server knows. */
  notify(nonce: string, notice: Notice): boolean
  invalidated(key: string, fence: number): void
  tagInvalidated(tag: string, version: number): void
  /** The highest fence that it has seen. */
  readonly highestFence: number
}

/** Length of the inbox id in the name of a parked flight. */
const INBOX = 22

/**
 * The store that all processes share: the memory store, on a server clock that can be set. Its messages are sent over the
 * subscriptions of the processes.
 */
export class SimServer extends MemoryStore {
  /** Replaces the context of every transition. */
  alter: (at: TransitionContext) => TransitionContext = (at) => at
  /** The server answers nothing before this time. */
  frozenUntil = 0
  readonly #scheduler: Scheduler
  readonly #skew: { ms: number }
  readonly #clients = new Set<SimClient>()
  readonly #flights = new Map<string, SimClient>()
  #acting: SimClient | undefined

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

  join(client: SimClient): void {
    this.#clients.add(client)
  }

  leave(client: SimClient): void {
    this.#clients.delete(client)
  }

  /** Runs a request of a process. `nonce`: of its flight. */
  act<T>(client: SimClient, nonce: string | undefined, run: () => T): T {
    if (nonce !== undefined) this.#flights.set(nonce, client)
    this.#acting = client
    return run()
  }

  override apply<T>(key: string, transition: (record: ResourceRecord, at: TransitionContext) => T): T {
    return super.apply(key, (record, at) => transition(record, this.#context(at)))
  }

  #context(at: TransitionContext): TransitionContext {
    return this.alter({
      ...at,
      micros: Math.floor(at.now * 1000),
      highestFence: this.#acting?.highestFence ?? 0,
      notify: (park, notice) => this.#tell(park, notice),
    })
  }

  #tell(park: string, notice: Notice): boolean {
    const nonce = park.slice(INBOX)
    return this.#flights.get(nonce)?.notify(nonce, notice) ?? false
  }

  override broadcastInvalidation(key: string, fence: number): void {
    for (const client of this.#clients) client.invalidated(key, fence)
  }

  override invalidateTag(tag: string): void {
    super.invalidateTag(tag)
    const [version = 0] = this.tagVersions([tag], 0)
    for (const client of this.#clients) client.tagInvalidated(tag, version)
  }

  /** The processes of the flights that are parked on a record; of `kind`, or all. */
  parked(key: string, kind?: 'claims' | 'waits'): (SimClient | undefined)[] {
    return [...(this.find(key)?.parks ?? [])]
      .filter(([, its]) => kind === undefined || its === kind)
      .map(([park]) => this.#flights.get(park.slice(INBOX)))
  }

  freeze(ms: number): void {
    this.frozenUntil = Math.max(this.frozenUntil, this.#scheduler.now + ms)
  }

  /** Loses a record, without a message. */
  forget(key: string): void {
    if (!this.find(key)) return
    super.apply(key, (record) => {
      record.expiresAt = 0
    })
  }

  /** Sets the server's clock forward or back. */
  step(ms: number): void {
    this.#skew.ms += ms
  }
}
