import { type RecordContext, ServiceRecord } from '../../../src/services/store/service-record.ts'
import type { Announcement, Message } from '../../../src/services/store/store.ts'
import type { Scheduler } from '../scheduler.ts'

/** A process, as the server sees it. */
export interface ServicesPeer {
  readonly process: number
  /** Sends it a message. Returns whether it is received, as far as the server knows. */
  receive(message: Message): boolean
  hear(announcement: Announcement): void
}

/** The server that all processes share: the records of services, and the messages between processes. */
export class ServicesServer {
  /** Creates a record. */
  createRecord: (service: string) => ServiceRecord = (service) => new ServiceRecord(service)
  /** The server answers nothing before this time. */
  frozenUntil = 0
  readonly #scheduler: Scheduler
  readonly #onFrozen: (until: number) => void
  readonly #peers = new Map<string, ServicesPeer>()
  readonly #records = new Map<string, ServiceRecord>()
  /** Replies of requests that may be sent twice. */
  readonly #replies = new Map<string, unknown>()

  constructor(scheduler: Scheduler, onFrozen: (until: number) => void) {
    this.#scheduler = scheduler
    this.#onFrozen = onFrozen
  }

  get now(): number {
    return this.#scheduler.now + 1e9
  }

  get records(): ReadonlyMap<string, ServiceRecord> {
    return this.#records
  }

  join(address: string, peer: ServicesPeer): void {
    this.#peers.set(address, peer)
  }

  leave(address: string): void {
    this.#peers.delete(address)
  }

  peer(address: string): ServicesPeer | undefined {
    return this.#peers.get(address)
  }

  /** Runs a request; if it was run before, returns its reply. */
  once<T>(request: string, run: () => T): T {
    if (!this.#replies.has(request)) this.#replies.set(request, run())
    return this.#replies.get(request) as T
  }

  apply<T>(service: string, transition: (record: ServiceRecord, context: RecordContext) => T): T {
    const record = this.#records.get(service) ?? this.createRecord(service)
    const result = transition(record, this.#context())
    if (record.isEmpty) this.#records.delete(service)
    else this.#records.set(service, record)
    return result
  }

  #context(): RecordContext {
    return {
      now: this.now,
      send: (to, messages) => {
        const sent = messages.map((message) => this.send(to, message))
        return !sent.includes(false)
      },
      announce: (announcement) => this.announce(announcement),
    }
  }

  send(to: string, message: Message): boolean {
    return this.#peers.get(to)?.receive(message) ?? false
  }

  announce(announcement: Announcement): void {
    for (const peer of this.#peers.values()) peer.hear(announcement)
  }

  freeze(ms: number): void {
    this.frozenUntil = Math.max(this.frozenUntil, this.#scheduler.now + ms)
    this.#onFrozen(this.frozenUntil)
  }

  /** Loses all records, without a message. */
  wipe(): void {
    this.#records.clear()
    this.#replies.clear()
  }
}
