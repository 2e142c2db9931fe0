import type { Address } from '../queues/queue.ts'
import type { Kind, Message } from './messages.ts'

/** The way of messages from one process to others. */
export interface Route {
  /** Of the queue or the topic. */
  name: string
  via: 'queue' | 'pubsub'
  /** Every message of a queue is acknowledged as it comes. */
  reliable: boolean
  /** Messages that a receiver may hold without having acknowledged them, where that is an option. */
  prefetch?: number
  kind: Kind
}

/** What one process does with a bus. */
export interface BusTerms {
  sends: readonly Route[]
  receives: readonly Route[]
  /** Services that it serves beside. */
  serves: readonly string[]
}

/** Sends a message. Resolves when Redis has it. */
export type Send = (message: Message) => Promise<unknown>

export interface Receiver {
  /** Stops and consumes again: a message that was received and not acknowledged comes once more. */
  restart?(): Promise<void>
}

/** One library's bus, used as its documentation says. */
export interface BenchBus {
  sender(route: Route): Promise<Send>
  receiver(route: Route, hear: (message: unknown) => void): Promise<Receiver>
  serve?(service: string): Promise<unknown>
}

/** Opens the bus of one process over these servers. */
export type OpenBus = (servers: readonly Address[]) => Promise<BenchBus>
