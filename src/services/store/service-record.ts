/**
 * The record of one service: which processes serve it, with which load, and its settings. This is the specification; the
 * Redis scripts do the same, and conformance tests compare both.
 *
 * | transition    | changes                                                                   | announces          |
 * | ------------- | ------------------------------------------------------------------------- | ------------------ |
 * | register      | adds the process, or renews its lease and corrects its load               | up, if it is added |
 * | unregister    | removes the process                                                       | down               |
 * | dispatch      | the least loaded process with room has one more call                      |                    |
 * | dispatchAll   | each process has one more call                                            |                    |
 * | report        | the process has fewer calls                                               |                    |
 * | strike        | removes a process whose lease is over, or that does not listen            | down               |
 *
 * dispatch, dispatchAll, check, prune and register first strike off up to {@link MAX_STRUCK} processes whose lease is over.
 */
import type { Addressed, Announcement, Dispatch, DispatchReply, Health, Load, Message } from './store.ts'
import { MAX_SETTINGS } from './store.ts'

/** Processes that one transition strikes off at most, because their leases are over. */
export const MAX_STRUCK = 10

/** One process of a service. */
export interface ProcessEntry {
  leaseEndsAt: number
  /** Calls that were dealt to it, and those of them that are over. */
  dealt: number
  finished: number
  limit: number
  /** When its load last changed, ms: among equal loads, the process that has had nothing to do for longest is chosen. */
  changedAt: number
  info: string
}

/**
 * What a call adds to the place of its process in the order, above every time of a change, µs: times are counted from anew after so long. Then one process
 * comes too early or too late once.
 */
export const LOAD_STEP: number = 2 ** 33

/** What a transition is given, and how it speaks to processes. */
export interface RecordContext {
  /** ms. */
  readonly now: number
  /** Sends messages to one process, in order. Returns whether it listens. */
  send(to: string, messages: readonly Message[]): boolean
  announce(announcement: Announcement): void
}

export class ServiceRecord {
  readonly processes: Map<string, ProcessEntry> = new Map()
  readonly settings: Map<string, Buffer> = new Map()
  readonly #service: string

  constructor(service: string) {
    this.#service = service
  }

  get isEmpty(): boolean {
    return this.processes.size === 0 && this.settings.size === 0
  }

  register(
    process: string,
    { limit, lease, info, load }: { limit: number; lease: number; info: string; load: Load },
    context: RecordContext,
  ): void {
    this.#strikeExpired(context)
    const known = this.processes.get(process)
    const leaseEndsAt = context.now + lease
    if (!known) {
      const { received, finished } = load
      this.processes.set(process, {
        leaseEndsAt,
        dealt: received,
        finished,
        limit,
        changedAt: context.now,
        info,
      })
      context.announce({ kind: 'up', service: this.#service, process, info })
      return
    }
    Object.assign(known, { leaseEndsAt, limit, info })
    this.#setLoad(known, load, context)
  }

  /** A process that has received more calls than were dealt to it was registered anew meanwhile: its count is right. */
  #setLoad(entry: ProcessEntry, { received, finished }: Load, { now }: RecordContext): void {
    entry.dealt = Math.max(entry.dealt, received)
    entry.finished = Math.max(entry.finished, finished)
    entry.changedAt = now
  }

  unregister(process: string, message: Message, context: RecordContext): void {
    const entry = this.processes.get(process)
    if (entry) this.#strike(process, entry, context)
    context.send(process, [message])
  }

  mark(process: string, { kind, fields, body }: Message, context: RecordContext): void {
    const dealt = this.processes.get(process)?.dealt ?? 0
    context.send(process, [{ kind, fields: [String(dealt), ...fields], body }])
  }

  #strike(process: string, { info }: ProcessEntry, context: RecordContext): void {
    this.processes.delete(process)
    context.announce({ kind: 'down', service: this.#service, process, info })
  }

  #strikeExpired(context: RecordContext): string[] {
    const expired = this.#byLease()
      .filter(([, { leaseEndsAt }]) => leaseEndsAt <= context.now)
      .slice(0, MAX_STRUCK)
    for (const [process, entry] of expired) this.#strike(process, entry, context)
    return expired.map(([process]) => process)
  }

  /** In the order in which their leases end. */
  #byLease(): [string, ProcessEntry][] {
    return [...this.processes].sort(
      ([one, a], [other, b]) => a.leaseEndsAt - b.leaseEndsAt || compare(one, other),
    )
  }

  /** Deals calls, in order. Each process gets its calls in one message; if it does not listen, others get them. */
  dispatch(dispatches: readonly Dispatch[], context: RecordContext): DispatchReply[] {
    this.#strikeExpired(context)
    const replies: DispatchReply[] = []
    let undealt = dispatches.map((dispatch, index) => ({ dispatch, index }))
    while (undealt.length > 0) {
      const dealt = new Map<string, { index: number; dispatch: Dispatch; message: Message }[]>()
      for (const { dispatch, index } of undealt) {
        const chosen = this.#choose(dispatch)
        if (chosen === undefined) {
          replies[index] = { kind: this.processes.size === 0 ? 'none' : 'full' }
          continue
        }
        const [process, entry] = chosen
        const message = this.#deal(entry, dispatch.message, context)
        const items = dealt.get(process) ?? []
        dealt.set(process, items)
        items.push({ index, dispatch, message })
        replies[index] = { kind: 'dealt', process, leaseLeft: entry.leaseEndsAt - context.now }
      }
      undealt = []
      for (const [process, items] of dealt) {
        const messages = items.map(({ message }) => message)
        if (context.send(process, messages)) continue
        const entry = this.processes.get(process)
        if (entry) this.#strike(process, entry, context)
        undealt.push(...items)
      }
      undealt.sort((one, other) => one.index - other.index)
    }
    return replies
  }

  /** Counts one more call. Returns the message for the process. */
  #deal(entry: ProcessEntry, { kind, fields, body }: Message, { now }: RecordContext): Message {
    entry.dealt++
    entry.changedAt = now
    return { kind, fields: [String(entry.dealt), ...fields], body }
  }

  #choose({ preferred, avoided }: Dispatch): [string, ProcessEntry] | undefined {
    const free = [...this.processes]
      .filter(([, entry]) => entry.limit === Number.POSITIVE_INFINITY || loadOf(entry) < entry.limit)
      .sort(([one, a], [other, b]) => scoreOf(a) - scoreOf(b) || compare(one, other))
    const wanted = free.filter(([process]) => !avoided.includes(process))
    return wanted.find(([process]) => process === preferred) ?? wanted[0] ?? free[0]
  }

  dispatchAll(message: Message, context: RecordContext): { process: string; leaseLeft: number }[] {
    this.#strikeExpired(context)
    const listening = []
    for (const [process, entry] of this.#byLease()) {
      const heard = context.send(process, [this.#deal(entry, message, context)])
      if (heard) listening.push({ process, leaseLeft: entry.leaseEndsAt - context.now })
      else this.#strike(process, entry, context)
    }
    return listening
  }

  report(process: string, load: Load, replies: readonly Addressed[], context: RecordContext): void {
    const entry = this.processes.get(process)
    if (entry) this.#setLoad(entry, load, context)
    for (const { to, message } of replies) context.send(to, [message])
  }

  check(process: string, context: RecordContext): Health {
    const struck = this.#strikeExpired(context)
    if (struck.includes(process)) return 'lost'
    const entry = this.processes.get(process)
    return entry ? Math.max(0, entry.leaseEndsAt - context.now) : 'unknown'
  }

  /** The processes whose lease holds. */
  count({ now }: RecordContext): number {
    return [...this.processes.values()].filter(({ leaseEndsAt }) => leaseEndsAt > now).length
  }

  prune(probe: Message, context: RecordContext): string[] {
    const struck = this.#strikeExpired(context)
    for (const [process, entry] of this.#byLease()) {
      if (context.send(process, [probe])) continue
      this.#strike(process, entry, context)
      struck.push(process)
    }
    return struck
  }

  writeSetting(name: string, bytes: Buffer | undefined, context: RecordContext): boolean {
    if (bytes !== undefined && !this.settings.has(name) && this.settings.size >= MAX_SETTINGS) return false
    if (bytes === undefined) this.settings.delete(name)
    else this.settings.set(name, bytes)
    context.announce({ kind: 'setting', service: this.#service, name })
    return true
  }
}

export function loadOf({ dealt, finished }: ProcessEntry): number {
  return Math.max(0, dealt - finished)
}

/** The order in which processes are chosen. */
export function scoreOf(entry: ProcessEntry): number {
  return loadOf(entry) * LOAD_STEP + (Math.floor(entry.changedAt * 1000) % LOAD_STEP)
}

/** The order of addresses, as Redis compares them: by bytes. They are ASCII. */
function compare(one: string, other: string): number {
  return one < other ? -1 : one > other ? 1 : 0
}
