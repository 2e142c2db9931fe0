import type { Clock } from '../../kernel/time.ts'

// The ports of the bus: what one instance can do. An instance is one Redis, or the memory of this process. Each call is one
// atomic transition of a record; queue-record.ts, topic-record.ts and object-record.ts specify these. `within`: ms, after
// which a call rejects with UnavailableError. All calls may also reject with OverloadedError or ClosedError. A call that is
// sent twice has the effect of one.

/** One instance of a bus. */
export interface Instance {
  /** The same in all processes that give the same address. */
  readonly name: string
  readonly clock: Clock
  /** Whether it can be reached, as far as is known. */
  readonly online: boolean
  readonly queues: QueueStore
  readonly topics: TopicStore
  readonly objects: ObjectStore
  readonly places: PlaceStore
  /** Connects, and tells when `online` changes. Called once. The returned function ends that. */
  open(onChange: () => void): () => void
  close(): Promise<void>
}

/** What a record can be: a queue, a topic (of pub/sub), or a persisted object. */
export type RecordKind = 'queue' | 'topic' | 'object'

/** Where records are, and which process may make one. */
export interface PlaceStore {
  /** Whether there is such a record here. */
  exists(kind: RecordKind, name: string, within: number): Promise<boolean>
  /**
   * Reserves a name for `token` for `ttl` ms, unless there is such a record here, or another token has reserved it: 'exists',
   * 'reserved' (for this token), or 'taken'.
   */
  reserve(
    kind: RecordKind,
    name: string,
    token: string,
    ttl: number,
    within: number,
  ): Promise<'exists' | 'reserved' | 'taken'>
  /** Ends a reservation. */
  release(kind: RecordKind, name: string, token: string, within: number): Promise<void>
}

// Queues

/** What an attachment is told. It is a hint: it may be forged, lost with the subscription, or come too late. */
export type QueueSignal =
  /** Messages may be available. */
  | 'messages'
  /** A producer may find room. */
  | 'room'
  /** The queue was closed. */
  | 'closed'
  /** Another consumer has become the exclusive one, or there is none any more. */
  | 'holder'

/** Receives the signals to one attachment. */
export interface QueueListener {
  onSignal(signal: QueueSignal): void
  /** Signals arrive from now on. Some may have been missed. */
  onUp(): void
}

export interface AttachRequest {
  /** The address of the attachment. */
  readonly address: string
  /** ms: of the queue, if it is made. The lease of the attachment is as long as the ttl of the queue. */
  readonly ttl: number
  /** Messages that may wait, if the queue is made; 0: any number. */
  readonly maxsize: number
  /** The id of the queue, if it is made. */
  readonly life: string
  /** The queue is not made unless this token has reserved its name; '': it is. */
  readonly token: string
  /** The life of the queue to which this address was attached before; '': none. */
  readonly attachedTo: string
  /** Whether it gets the signal `holder`. */
  readonly watchesHolder: boolean
}

/** An attachment and its queue. */
export interface Attached {
  readonly kind: 'attached'
  readonly existed: boolean
  readonly life: string
  readonly ttl: number
  readonly maxsize: number
}

/**
 * `closed`: the queue to which the address was attached before was closed. `unreserved`: there is no queue, and its name is
 * not reserved for the token.
 */
export type AttachReply = Attached | { readonly kind: 'closed' | 'unreserved' }

/** The address is not attached: its lease is over, or the queue was closed, has expired, or was lost with its server. */
export interface Detached {
  readonly kind: 'detached'
  /** The request was sent more than once: it may have taken effect before, and its reply was lost. */
  readonly isRepeated?: boolean
}

/** A message to be pushed. */
export interface Outgoing {
  /** Of the messages with one key, one at a time is held by a reliable consumer, in order; '': no key. */
  readonly key: string
  /** `end`: the last message of a channel. */
  readonly kind: 'user' | 'end'
  readonly bytes: Buffer
}

/** A message of a queue. */
export interface Incoming extends Outgoing {
  /** Counts up from 1 in each queue. */
  readonly id: number
  /** How often it was given to a consumer before that did not acknowledge it. */
  readonly redelivered: number
}

export interface PushRequest {
  readonly address: string
  /** Of the batch: grows with each one of this address. A batch is sent when the one before it is over. */
  readonly number: number
  readonly messages: readonly Outgoing[]
  /** Whether to tell the address when there is room again. */
  readonly awaitsRoom: boolean
}

/** The first `count` messages were pushed, with ids from `first`; for the others there was no room. */
export interface Pushed {
  readonly kind: 'pushed'
  readonly first: number
  readonly count: number
}

export interface ConsumeRequest {
  readonly address: string
  /** ms. */
  readonly lease: number
  /** What it holds is returned when it leaves or its lease ends. Otherwise it is dropped when its lease ends. */
  readonly reliable: boolean
  /** Of all consumers, one exclusive one at a time receives. */
  readonly exclusive: boolean
  /** Discards messages up to this id that nobody holds; 0: none. */
  readonly last: number
}

export interface TakeRequest {
  readonly address: string
  /** Ids of messages that it acknowledges: they are removed. */
  readonly acked: readonly number[]
  /** How many messages it holds then, as far as it knows. If it holds more, these are given again, and no others. */
  readonly have: number
  /** How many more it takes. */
  readonly want: number
}

/** What a consumer or reader receives. */
export interface Taken {
  readonly kind: 'taken'
  readonly messages: readonly Incoming[]
  /** Whether no more messages are available: the address is told when there are. */
  readonly isAll: boolean
  /** It must ask again after so many ms at the latest, because another consumer may have died; undefined: none can. */
  readonly askAfter: number | undefined
  /** Of the exclusive consumer, if this is it; 0: it is not. */
  readonly fence: number
}

/** What a reader receives. */
export interface Read extends Taken {
  /** Where it goes on: the id of the last message; the last id of the queue if that is lower, as after a loss of messages. */
  readonly after: number
}

/** The address does not consume: its lease is over. What it held was returned or dropped. */
export interface Lost {
  readonly kind: 'lost'
}

export interface LeaveRequest {
  readonly address: string
  readonly acked: readonly number[]
  /** Ids of messages that it holds and has not handed over: they count as never given. */
  readonly unhanded: readonly number[]
}

/** The exclusive consumer of a queue. */
export interface Holder {
  readonly fence: number
  /** ms. */
  readonly leaseLeft: number
}

/** What is known of a queue. */
export interface QueueInfo {
  /** Messages that wait: no consumer holds them. */
  readonly count: number
  /** After so many ms without an attached process it expires. */
  readonly ttlLeft: number
  readonly maxsize: number
  readonly holder: Holder | undefined
}

/** The leases of one attachment that are to be renewed. */
export interface Renewal {
  readonly queue: string
  readonly address: string
}

/** What was renewed: an attachment that consumes, or one that does not. */
export type RenewalReply = 'consuming' | 'attached' | 'detached'

export interface QueueStore {
  /** Returns a new address, whose signals go to `listener` until `end` is called. */
  listen(listener: QueueListener): { readonly address: string; end(): void }

  attach(queue: string, request: AttachRequest, within: number): Promise<AttachReply>
  /** The consumer must have left before. */
  detach(queue: string, address: string, within: number): Promise<void>
  /** Renews leases, and the ttl of their queues. Resolves with the reply, or the error, of each. */
  renew(renewals: readonly Renewal[], within: number): Promise<readonly (RenewalReply | Error)[]>

  push(queue: string, request: PushRequest, within: number): Promise<Pushed | Detached>

  /** Makes an attachment a consumer. Resolves with false if more messages are to be discarded: call it again. */
  consume(queue: string, request: ConsumeRequest, within: number): Promise<boolean | Detached>
  take(queue: string, request: TakeRequest, within: number): Promise<Taken | Lost | Detached>
  /** Ends consumption: returns what the consumer holds, in order. */
  leave(queue: string, request: LeaveRequest, within: number): Promise<void>
  /** Reads up to `want` messages with ids above `after`, and removes none. */
  read(queue: string, address: string, after: number, want: number, within: number): Promise<Read | Detached>

  /** Resolves with undefined if there is no queue. */
  inspect(queue: string, within: number): Promise<QueueInfo | undefined>
  /** Removes all messages, also those that consumers hold. Resolves with their number. */
  flush(queue: string, within: number): Promise<number>
  /** Removes the queue with its messages, and tells all attachments. Resolves with false if the address was not attached. */
  remove(queue: string, address: string, within: number): Promise<boolean>
  /** The metadata with these names; all without `names`. */
  readMetadata(
    queue: string,
    names: readonly string[] | undefined,
    within: number,
  ): Promise<Map<string, Buffer>>
  /** Resolves with 'none' if there is no queue, 'full' if it would have too many: nothing is written then. */
  writeMetadata(
    queue: string,
    entries: ReadonlyMap<string, Buffer>,
    within: number,
  ): Promise<'written' | 'none' | 'full'>
}

// Topics: pub/sub

/** Receives what is published while the subscription is established. */
export interface TopicListener {
  /** `first`: the number of the first message. Messages of one topic have consecutive numbers within one life. */
  onMessages(life: string, first: number, messages: readonly Buffer[]): void
  /** Messages arrive from now on. Some may have been missed. */
  onUp(): void
  onDown(): void
}

export interface PublishRequest {
  /** The publisher, and the number of its batch, as in {@link PushRequest}. */
  readonly publisher: string
  readonly number: number
  readonly messages: readonly Buffer[]
  readonly terms: TopicTerms
}

/** What is kept of a topic. Of different terms, the larger ones hold. */
export interface TopicTerms {
  /** Number of the last messages that are kept for subscribers that were away. */
  readonly keep: number
  /** Whether the last message is kept for new subscribers. */
  readonly retain: boolean
  /** How long messages are kept after the last one, ms. */
  readonly ttl: number
}

/** Where a topic is, and what a subscriber has missed. */
export interface Resumed {
  readonly life: string
  /** Number of the last message; 0: there was none in this life. */
  readonly last: number
  /** The messages after the given number that are kept, up to `last`; of a new subscriber, the retained one. */
  readonly messages: readonly Buffer[]
}

export interface TopicStore {
  /** Resolves when the messages are published. Resolves with the number of the last one. */
  publish(topic: string, request: PublishRequest, within: number): Promise<number>
  /** Delivers what is published to `listener`. Makes no record. The returned function ends that. */
  listen(topic: string, listener: TopicListener): () => void
  /** What was missed after message `after` of `life`; '' for a new subscriber. Makes the record, or keeps it. */
  resume(topic: string, life: string, after: number, terms: TopicTerms, within: number): Promise<Resumed>
  /** Keeps the records of topics that are subscribed to. Resolves with the error of each that failed. */
  renew(topics: ReadonlyMap<string, TopicTerms>, within: number): Promise<readonly (Error | undefined)[]>
}

// Persisted objects

/** The properties of an object, encoded. */
export interface StoredObject {
  readonly version: string
  readonly properties: ReadonlyMap<string, Buffer>
}

export interface SaveRequest {
  /** The version that it was loaded with or saved as; '': the object does not exist. */
  readonly base: string
  /** Of this save: a new id. */
  readonly version: string
  readonly properties: ReadonlyMap<string, Buffer>
  /** ms. */
  readonly ttl: number
}

export interface ObjectStore {
  /** Resolves with false, and writes nothing, if the version of the object is not `base`. */
  save(name: string, request: SaveRequest, within: number): Promise<boolean>
  load(name: string, within: number): Promise<StoredObject | undefined>
  /** Keeps objects for so many ms more. Resolves with the error of each that failed. */
  renew(ttls: ReadonlyMap<string, number>, within: number): Promise<readonly (Error | undefined)[]>
}

/** Metadata that one queue may have. */
export const MAX_METADATA = 1000

/** Messages that one take, read or push moves at most, and their bytes, unless it is only one message. */
export const MAX_BATCH = 100
export const MAX_BATCH_BYTES: number = 256 * 1024
