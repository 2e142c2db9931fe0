import { History, type Moment } from '../history.ts'

export type Mode = 'default' | 'reliable' | 'exclusive' | 'reader'

/** How a call ended. `sent`: whether a call that failed may have been executed. */
export type CallEnding =
  | { kind: 'value'; value: number }
  | { kind: 'error'; code: string; message: string; sent: boolean }

/** A call of a method of a queue object. */
export interface BusCall {
  no: number
  process: number
  name: string
  begun: Moment
  /** When it must be settled; Infinity: not yet known. */
  deadline: number
  ended: (Moment & { ending: CallEnding }) | undefined
}

/** A push. The number of the call is its message. */
export interface PushCall extends BusCall {
  queue: string
  /** Numbers the queue objects of a run: their pushes are in order. */
  member: number
  key: string
  /** For room, ms. */
  wait: number
}

/** How a message was removed from a queue. */
export type Removal =
  /** Its consumer has acknowledged it, or, if not reliable, handed it over. */
  | 'acked'
  /** Its consumer was not reliable, and its lease was over, or it was detached. */
  | 'lost'
  | 'discarded'
  | 'flushed'
  | 'closed'
  | 'expired'
  | 'wiped'

/** A message in a queue. */
export interface Entry {
  readonly queue: string
  readonly life: string
  readonly id: number
  readonly value: number
  readonly key: string
  readonly pushed: Moment
  /** How often a consumer was given it, and the position of the last time in the order of all. */
  given: number
  givenAs: number
  /** Whether a consumer that is not reliable was given it. */
  givenToDefault: boolean
  readonly deliveries: Delivery[]
  /** When an acknowledgement of it was confirmed. */
  acked: Moment | undefined
  removed: (Moment & { how: Removal; process: number | undefined }) | undefined
}

/** A message that was handed over to a consumer. */
export interface Delivery extends Moment {
  process: number
  mode: Mode
  redelivered: number
}

/** A message of a topic. */
export interface Publication extends Moment {
  readonly topic: string
  readonly life: string
  readonly number: number
  readonly value: number
}

/** A time in which requests of a process, or of all (-1), may be late or lost. */
export interface Disturbance {
  process: number
  from: number
  until: number
}

/** Everything that happened in a run. */
export class BusHistory extends History {
  readonly calls: BusCall[] = []
  readonly pushes: PushCall[] = []
  readonly entries: Entry[] = []
  readonly disturbances: Disturbance[] = []
  /** Numbers of what was checked. */
  readonly counts = {
    acks: 0,
    redelivered: 0,
    exclusive: 0,
    detached: 0,
    stoodStill: 0,
    topicMessages: 0,
    gaps: 0,
  }
  /** Number of calls that were made. */
  made = 0
  /** Number of consumptions. */
  consumptions = 0
  readonly #byValue = new Map<number, Entry[]>()
  readonly #published = new Map<number, Publication[]>()
  readonly #byId = new Map<string, Entry>()

  disturb(process: number, from: number, until: number): Disturbance {
    const disturbance = { process, from, until }
    this.disturbances.push(disturbance)
    return disturbance
  }

  /** Whether requests of this process may have been late or lost in that time. */
  isDisturbed(process: number, from: number, until: number): boolean {
    return this.disturbances.some(
      (one) => (one.process === -1 || one.process === process) && one.from <= until && one.until >= from,
    )
  }

  addPublication(publication: Publication): void {
    this.#published.set(publication.value, [...this.publicationsOf(publication.value), publication])
  }

  publicationsOf(value: number): readonly Publication[] {
    return this.#published.get(value) ?? []
  }

  addEntry(entry: Entry): void {
    this.entries.push(entry)
    this.#byValue.set(entry.value, [...this.entriesOf(entry.value), entry])
    this.#byId.set(`${entry.queue} ${entry.life} ${entry.id}`, entry)
  }

  /** The entries of a message: one in each life of the queue, if its reply was lost with the server. */
  entriesOf(value: number): readonly Entry[] {
    return this.#byValue.get(value) ?? []
  }

  entryAt(queue: string, life: string, id: number): Entry | undefined {
    return this.#byId.get(`${queue} ${life} ${id}`)
  }
}
