import { type QueueContext, QueueRecord } from '../../../src/bus/store/queue-record.ts'
import type { QueueSignal } from '../../../src/bus/store/store.ts'
import { type TopicContext, TopicRecord } from '../../../src/bus/store/topic-record.ts'
import { newId } from '../../../src/kernel/keys.ts'
import type { Scheduler } from '../scheduler.ts'

/** An address is the inbox of its process, and something more. */
export const INBOX_LENGTH: number = newId().length

/** A process, as the server sees it. */
export interface BusPeer {
  readonly process: number
  /** Sends a signal to one of its attachments. Returns whether it is received, as far as the server knows. */
  signal(address: string, signal: QueueSignal): boolean
  /** Sends published messages to its subscribers of a topic. */
  hear(topic: string, life: string, first: number, messages: readonly Buffer[]): void
}

/** The server that all processes share: the records, and the messages to the processes. */
export class BusServer {
  /** Creates the record of a queue, and of a topic. */
  createQueue: () => QueueRecord = () => new QueueRecord()
  createTopic: () => TopicRecord = () => new TopicRecord()
  /** The server answers nothing before this time. */
  frozenUntil = 0
  readonly queues = new Map<string, QueueRecord>()
  readonly topics = new Map<string, TopicRecord>()
  readonly #scheduler: Scheduler
  readonly #onFrozen: (until: number) => void
  /** By the inbox that the addresses of a process begin with. */
  readonly #peers = new Map<string, BusPeer>()
  readonly #processes = new Map<string, number>()

  constructor(scheduler: Scheduler, onFrozen: (until: number) => void) {
    this.#scheduler = scheduler
    this.#onFrozen = onFrozen
  }

  /** Its clock has nothing in common with those of the processes. */
  get now(): number {
    return this.#scheduler.now + 1e9
  }

  join(inbox: string, peer: BusPeer): void {
    this.#peers.set(inbox, peer)
    this.#processes.set(inbox, peer.process)
  }

  leave(inbox: string): void {
    this.#peers.delete(inbox)
  }

  queue<T>(name: string, transition: (record: QueueRecord, context: QueueContext) => T): T {
    const record = this.queues.get(name) ?? this.createQueue()
    this.queues.set(name, record)
    return transition(record, { now: this.now, send: (address, signal) => this.signal(address, signal) })
  }

  topic<T>(name: string, transition: (record: TopicRecord, context: TopicContext) => T): T {
    const record = this.topics.get(name) ?? this.createTopic()
    this.topics.set(name, record)
    const publish: TopicContext['publish'] = (life, first, messages) => {
      for (const peer of this.#peers.values()) peer.hear(name, life, first, messages)
    }
    return transition(record, { now: this.now, newLife: newId(), publish })
  }

  /** The life of a topic, and the number of its last message. */
  lastOf(topic: string): { readonly life: string; readonly number: number } | undefined {
    if (this.topics.get(topic)?.isEmpty(this.now) !== false) return undefined
    const terms = { keep: 0, retain: false, ttl: 1 }
    const { life, last } = this.topic(topic, (record, context) => record.resume('', 0, terms, context))
    return { life, number: last }
  }

  signal(address: string, signal: QueueSignal): boolean {
    return this.#peerOf(address)?.signal(address, signal) ?? false
  }

  /** The process that has, or had, this address. */
  processOf(address: string): number | undefined {
    return this.#processes.get(address.slice(0, INBOX_LENGTH))
  }

  #peerOf(address: string): BusPeer | undefined {
    return this.#peers.get(address.slice(0, INBOX_LENGTH))
  }

  freeze(ms: number): void {
    this.frozenUntil = Math.max(this.frozenUntil, this.#scheduler.now + ms)
    this.#onFrozen(this.frozenUntil)
  }

  /** Loses all records, without a message. */
  wipe(): void {
    this.queues.clear()
    this.topics.clear()
  }
}
