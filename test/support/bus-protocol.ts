import type { ChannelOptions } from '../../src/bus/channel/options.ts'
import type { ConsumeOptions } from '../../src/bus/index.ts'
import type { Address } from './daemon.ts'

/** What a process does with its Bus object. */
export interface ChildBusOptions {
  redis: Address
  unavailableAfter?: number
  /** Of `disconnect` at SIGTERM. @default 5_000 */
  grace?: number
  /** Where it notes what it receives and pushes, one {@link Note} a line. */
  log: string
}

/** How a process consumes a queue. */
export interface ChildConsumption extends Omit<ConsumeOptions, 'throttle'> {
  /** As an iteration, of which it takes so many messages at first. Without it, as events. */
  iterates?: number
  /** Keeps the event loop from turning for so long at each message, ms. */
  blocks?: number
  /** Acknowledges each message when it has received it. */
  acks?: boolean
}

/** How a process connects to a channel. */
export interface ChildConnection extends Omit<ChannelOptions, 'throttle'> {
  as: 'local' | 'remote'
}

/** What a process has received, or has pushed with success, or an event of its queue or channel. */
export interface Note {
  readonly pid: number
  /** `message`, `pushed`, or the name of the event. */
  readonly what: string
  /** Of the queue or channel. */
  readonly name: string
  readonly value?: unknown
  readonly id?: number
  readonly redelivered?: number
  readonly key?: string
  readonly fence?: number
}
