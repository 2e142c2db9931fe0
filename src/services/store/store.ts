import type { UnavailableError } from '../../errors.ts'

/**
 * A message from one Services object to another, as a header and a body. What it says is defined in `../messages.ts`.
 * It may be forged, lost with a subscription, or arrive after its sender has died.
 */
export interface Message {
  /** One letter. */
  readonly kind: string
  /** Without blanks and line feeds. */
  readonly fields: readonly string[]
  readonly body: Buffer
}

/** What a process says about one service that it serves. */
export interface Registration {
  readonly service: string
  /** Calls that it takes at once, its backlog included; Infinity: any number. */
  readonly limit: number
  /** ms; renewed before it ends. */
  readonly lease: number
  /** About the process, as JSON: what `up` and `down` announce. */
  readonly info: string
  readonly load: Load
}

/**
 * How many calls of a service a process has received, and how many of these are over. Both only grow, so that a resent
 * report has the effect of one. Its load is the difference between the calls that were dealt to it and those that are over.
 */
export interface Load {
  readonly received: number
  readonly finished: number
}

/** A call for which a process is to be chosen. */
export interface Dispatch {
  readonly service: string
  /** The process that is chosen if it has room and is not avoided; '' for none. */
  readonly preferred: string
  /** Processes that are chosen only if no other has room. */
  readonly avoided: readonly string[]
  /** What the chosen process receives, with the number of the call among those dealt to it as first field. */
  readonly message: Message
}

/** A process that was given a call. */
export interface Dealt {
  readonly kind: 'dealt'
  /** Its address. */
  readonly process: string
  /** What is left of its lease, ms. */
  readonly leaseLeft: number
}

/** `none`: no process serves it. `full`: all that do are full. */
export type DispatchReply = Dealt | { readonly kind: 'none' | 'full' }

/** Receives the outcome of a dispatch: one of `onReply` and `onError`, once. */
export interface DispatchHandler {
  onReply(reply: DispatchReply): void
  /** `error`: UnavailableError, OverloadedError or ClosedError. The call may have been dealt. */
  onError(error: Error): void
}

/** A message and the address that it goes to. */
export interface Addressed {
  readonly to: string
  readonly message: Message
}

/** What is announced to all processes. Best effort. */
export type Announcement =
  /** A process serves a service from now on, or no longer. `info` is that of its registration. */
  | {
      readonly kind: 'up' | 'down'
      readonly service: string
      readonly process: string
      readonly info: string
    }
  /** A setting of a service was changed. */
  | { readonly kind: 'setting'; readonly service: string; readonly name: string }
  /** Messages to this process may have been lost: whoever waits for it should ask it again. */
  | { readonly kind: 'resumed'; readonly process: string }

/** Receives what concerns one Services object. */
export interface StoreListener {
  onMessage(message: Message): void
  onAnnouncement(announcement: Announcement): void
  /** Messages arrive from now on. Some may have been missed. */
  onUp(): void
}

/** Whether a process lives: what is left of its lease, ms; `lost`: its lease is over; `unknown`: there is no record of it. */
export type Health = number | 'lost' | 'unknown'

/** The records of services, and the messages between the processes that call and serve them, for one Services object. */
export interface ServicesStore {
  /** Its address: where messages to it are sent. */
  readonly address: string
  /** Whether the count of receivers is exact. On a cluster it is not. */
  readonly countsReceivers: boolean
  /** Whether messages arrive. */
  readonly subscribed: boolean
  /** Why messages do not arrive, if Redis forbids it to this user. */
  readonly subscriptionError: UnavailableError | undefined

  /** Delivers messages and announcements to `listener` until {@link close}. Called once. */
  open(listener: StoreListener): void
  /** Resolves when the reports and messages that were sent have arrived, or Redis does not answer. */
  close(): Promise<void>

  /**
   * Chooses the process with the least load that has room, among equals the one whose load has not changed for longest,
   * raises its load, and sends it the call, in one step. A process that does not listen is struck off, and the next is taken.
   * A dispatch that is sent twice has the effect of one.
   */
  dispatch(dispatch: Dispatch, within: number, handler: DispatchHandler): void
  /** Sends a call to each process that serves the service, full or not. Returns those that listen. */
  dispatchAll(service: string, message: Message, within: number): Promise<Dealt[]>
  /** Reports the load of this process, and sends replies, in one step. */
  report(service: string, load: Load, replies: readonly Addressed[], within: number): Promise<void>

  /**
   * Registers this process, or renews its leases. Announces it where it was not registered. A service that fails does not hinder
   * the others: resolves with the error of each, undefined where the lease holds.
   */
  register(registrations: readonly Registration[], within: number): Promise<readonly (Error | undefined)[]>
  /** Strikes off this process, and announces that. Sends it `message` after the last call that was dealt to it. */
  unregister(service: string, message: Message, within: number): Promise<void>
  /** Sends this process `message` after the last call that was dealt to it, with the number of calls as first field. */
  mark(service: string, message: Message, within: number): Promise<void>
  /** Strikes off processes whose lease is over, and announces that. Returns the health of one. */
  check(service: string, process: string, within: number): Promise<Health>
  /** The number of processes whose lease holds. */
  count(service: string, within: number): Promise<number>
  /** Strikes off processes whose lease is over, and those that do not listen to `probe`. Returns their addresses. */
  prune(service: string, probe: Message, within: number): Promise<string[]>

  /** Sends a message. Returns whether somebody listens; true on a cluster. */
  send(to: string, message: Message, within: number): Promise<boolean>
  announce(announcement: Announcement, within: number): Promise<void>

  /** The bytes of a setting; undefined if there is none. */
  readSetting(service: string, name: string, within: number): Promise<Buffer | undefined>
  /** Writes or, with undefined, removes a setting, and announces that. Returns false if there are too many. */
  writeSetting(service: string, name: string, bytes: Buffer | undefined, within: number): Promise<boolean>
}

/** Settings that one service may have. */
export const MAX_SETTINGS = 1000

/** How long settings are kept after a process was last registered or a setting was last written, ms. */
export const SETTINGS_TTL: number = 7 * 24 * 60 * 60_000
