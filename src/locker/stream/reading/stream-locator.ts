import type { SoloflightError } from '../../../errors.ts'
import { outsideWork } from '../../../kernel/work/user-code.ts'
import type { Grant, StreamSpace } from '../stream-host.ts'
import type { StreamNote } from '../stream-record.ts'

/** What comes of asking. */
export interface InquiryEvents {
  /** Somebody produces, and says where to read. */
  told(note: StreamNote): void
  /** Whoever asked is the producer. */
  granted(lease: Grant): void
  /** The record has accepted the end of a stream. */
  complete(note: StreamNote): void
  refused(error: SoloflightError): void
}

/** A request waits for what is new, as long as its reader does: what is over names a log that may be gone. */
const PATIENT = {
  timeout: Number.POSITIVE_INFINITY,
  softTimeout: Number.POSITIVE_INFINITY,
  staleWhileRevalidate: 0,
  staleIfError: 0,
} as const

/** Asks the record of a stream who produces it. One question at a time; what comes of an earlier one is not heard. */
export class Inquiry {
  readonly #space: StreamSpace
  readonly #key: string
  readonly #lease: number
  readonly #events: InquiryEvents
  #asking: AbortController | undefined

  constructor(space: StreamSpace, key: string, lease: number, events: InquiryEvents) {
    this.#space = space
    this.#key = key
    this.#lease = lease
    this.#events = events
  }

  /** Whether there is no answer yet. */
  get pending(): boolean {
    return this.#asking !== undefined
  }

  /** Asks; only what was begun under a grant above `afterFence` is wanted. */
  ask(afterFence: number, onUnavailable: 'fail' | 'local'): void {
    const asking = new AbortController()
    this.#asking = asking
    const { signal } = asking
    const onProgress = (note: unknown) => {
      if (this.#asking === asking) this.#events.told(note as StreamNote)
    }
    const options = { ...PATIENT, signal, lease: this.#lease, afterFence, onUnavailable, onProgress }
    // A work that reads waits for a chunk, and only while it asks for one.
    outsideWork(() => this.#space.request(this.#key, options)).then(
      (ticket) => {
        const isHeard = this.#ends(asking)
        if (ticket.status === 'done') return isHeard && this.#events.complete(ticket.result.value)
        if (isHeard) this.#events.granted(ticket)
        else ticket.release().catch(() => {})
      },
      (error: SoloflightError) => this.#ends(asking) && this.#events.refused(error),
    )
  }

  #ends(asking: AbortController): boolean {
    if (this.#asking !== asking) return false
    this.#asking = undefined
    return true
  }

  /** Gives up the place at the record. */
  stop(): void {
    const asking = this.#asking
    this.#asking = undefined
    asking?.abort()
  }
}
