import { History, type Moment } from '../history.ts'

export type Mode = 'emit' | 'pemit' | 'notify' | 'stream' | 'broadcast'

/** How a call ended. Values and failures are identified by their content. */
export type CallEnding =
  | { kind: 'value'; identity: string }
  | { kind: 'error'; code: string; identity: string; ran: string | undefined }
  /** The caller left a stream or broadcast. */
  | { kind: 'left' }

/** A call that the store dealt to a process. */
export interface Deal extends Moment {
  process: number
  attempt: number
}

/** One call, with all its tries. Its number is its argument. */
export interface ServiceCall {
  no: number
  /** Of the caller. */
  process: number
  mode: Mode
  service: string
  /** As the store sees it; undefined before it was dispatched. */
  id: string | undefined
  /** At most; Infinity: any number. */
  tries: number
  /** It times out after this time at the earliest, ms. */
  timeout: number
  begun: Moment
  /** When it must be settled. Of a stream: the read that waits. */
  deadline: number
  /** When the caller aborts it; Infinity: never. */
  abortsAt: number
  /** When its tries were sent. */
  sent: Moment[]
  deals: Deal[]
  /** The reader of its stream pauses. */
  slow: boolean
  ended: (Moment & { ending: CallEnding }) | undefined
}

/** One run of a handler. */
export interface Run {
  no: number
  process: number
  attempt: number
  /** The registration that it belongs to. */
  registration: Registration
  begun: Moment
  /** Whether it looks at its signal. */
  watched: boolean
  aborted: Moment | undefined
  /** `over`: it has a result. `failed`; `stopped`: by its signal; `left`: nobody reads the stream any more. */
  ended: (Moment & { how: 'over' | 'failed' | 'stopped' | 'left'; identity: string }) | undefined
  /** Chunks that it has yielded. */
  chunks: number
}

/** A process that serves a service, from its registration to its end. */
export interface Registration {
  process: number
  service: string
  /** Calls that run at once. */
  capacity: number
  running: number
  /** When it began to close. */
  closing: Moment | undefined
}

/** A time in which messages or requests of a process, or of all (-1), may be late or lost. */
export interface Disturbance {
  process: number
  from: number
  until: number
}

/** Everything that happened in a run. */
export class ServicesHistory extends History {
  readonly calls: ServiceCall[] = []
  readonly runs: Run[] = []
  readonly registrations: Registration[] = []
  readonly disturbances: Disturbance[] = []
  /** Moments at which all records were lost. */
  readonly wipes: Moment[] = []
  readonly #byId = new Map<string, ServiceCall>()

  /** The store has seen the call. */
  identify(call: ServiceCall, id: string): void {
    call.id = id
    this.#byId.set(id, call)
  }

  callOf(id: string | undefined): ServiceCall | undefined {
    return id === undefined ? undefined : this.#byId.get(id)
  }

  runsOf(no: number): Run[] {
    return this.runs.filter((run) => run.no === no)
  }

  disturb(process: number, from: number, until: number): Disturbance {
    const disturbance = { process, from, until }
    this.disturbances.push(disturbance)
    return disturbance
  }

  /** The earliest time from `from` on at which nothing disturbs these processes for `ms`; Infinity if there is none. */
  quietFrom(processes: readonly number[], from: number, ms: number): number {
    const relevant = this.disturbances
      .filter(({ process }) => process === -1 || processes.includes(process))
      .sort((one, other) => one.from - other.from)
    let quiet = from
    for (const disturbance of relevant) {
      if (disturbance.from > quiet + ms) break
      if (disturbance.until >= quiet) quiet = disturbance.until + 1
    }
    return quiet
  }
}
