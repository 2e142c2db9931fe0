/**
 * The record of one queue: its messages, who is attached, and who holds what. This is the specification; the Redis scripts
 * do the same, and conformance tests compare both.
 *
 * A message:
 *
 * | from      | transition                                  | to        |
 * | --------- | ------------------------------------------- | --------- |
 * |           | push                                        | waiting   |
 * | waiting   | take                                        | held      |
 * | waiting   | take meets it while it is not its key's turn | blocked  |
 * | blocked   | the message of its key before it is removed | waiting   |
 * | held      | acknowledged; its consumer is lost and not reliable | removed |
 * | held      | its consumer leaves; its reliable consumer is lost | waiting |
 * | any       | flush, close, expiry of the queue           | removed   |
 *
 * Waiting messages below `cursor` are in `returned`; all from `cursor` on wait. So messages are taken in the order of ids:
 * first those returned. A reader passes over all of these states: it reads what is not removed.
 *
 * Every transition first removes the record if it has expired, and then attachments and consumers whose lease is over, up to
 * {@link MAX_STRUCK} each.
 */
import { SortedIds } from '../../kernel/collections.ts'
import type {
  AttachReply,
  AttachRequest,
  ConsumeRequest,
  Detached,
  Incoming,
  LeaveRequest,
  Lost,
  Pushed,
  PushRequest,
  QueueInfo,
  QueueSignal,
  Read,
  RenewalReply,
  Taken,
  TakeRequest,
} from './store.ts'
import { MAX_BATCH, MAX_BATCH_BYTES, MAX_METADATA } from './store.ts'

/** Attachments, and consumers, that one transition removes at most because their leases are over. */
export const MAX_STRUCK = 10

/** Messages that one take looks at, and that one consume discards, at most. */
export const MAX_SCANNED = 1000

/** How long a closed queue is remembered, ms: so that a process that was away can be told. */
export const CLOSED_TTL: number = 10 * 60_000

/** A process that is attached. */
export interface AttachmentRecord {
  leaseEndsAt: number
  readonly watchesHolder: boolean
  /** Its last batch of messages, and the reply to it. */
  batch: { readonly number: number; readonly first: number; readonly count: number }
}

/** An attachment that consumes. */
export interface ConsumerRecord {
  leaseEndsAt: number
  /** Ids of the messages that it holds. */
  readonly held: SortedIds
  readonly lease: number
  readonly reliable: boolean
  readonly exclusive: boolean
}

/** A message that is not removed. */
interface Message extends Omit<Incoming, 'redelivered'> {
  redelivered: number
}

/** What somebody waits for, as `role` and address. */
export type Waiting = `${'consumer' | 'reader' | 'producer'} ${string}`

/** What a transition is given, and how it speaks to attachments. */
export interface QueueContext {
  /** ms. */
  readonly now: number
  /** Returns whether the process of the attachment listens. */
  send(address: string, signal: QueueSignal): boolean
}

/** A queue, from when it is made until it is closed or expires. */
interface Life {
  readonly id: string
  readonly ttl: number
  readonly maxsize: number
  expiresAt: number
  /** Id of the last message. */
  last: number
  /** Every message from here on waits. */
  cursor: number
  /** By id, in order. */
  readonly messages: Map<number, Message>
  readonly returned: SortedIds
  /** For each key with a message that was taken and not removed: the id of the message whose turn it is. */
  readonly turns: Map<string, number>
  /** Ids of blocked messages by their key, in order. */
  readonly blocked: Map<string, SortedIds>
  readonly attachments: Map<string, AttachmentRecord>
  readonly consumers: Map<string, ConsumerRecord>
  /** Attachments that wait for a signal, since when. */
  readonly waiting: Map<Waiting, number>
  /** Counts the exclusive consumers. */
  fence: number
  /** Address of the exclusive consumer that receives; others receive nothing. */
  holder: string | undefined
  readonly metadata: Map<string, Buffer>
}

export class QueueRecord {
  #life: Life | undefined
  /** The life that was closed last, by whom, and until when it is remembered. */
  #closed: { readonly id: string; readonly by: string; readonly until: number } | undefined

  get life(): Life | undefined {
    return this.#life
  }

  exists(now: number): boolean {
    return this.#current(now) !== undefined
  }

  isEmpty(now: number): boolean {
    return !this.exists(now) && !(this.#closed && this.#closed.until > now)
  }

  #current(now: number): Life | undefined {
    if (this.#life && this.#life.expiresAt <= now) this.#life = undefined
    return this.#life
  }

  /** The life, without those whose leases are over. */
  #open(context: QueueContext): Life | undefined {
    const life = this.#current(context.now)
    if (!life) return undefined
    for (const address of overdue(life.consumers, context.now)) this.#lose(life, address, context)
    for (const address of overdue(life.attachments, context.now)) {
      if (life.consumers.has(address)) this.#lose(life, address, context)
      this.#forget(life, address)
    }
    return life
  }

  /** The life, if the address is attached to it. */
  #attached(address: string, context: QueueContext): Life | undefined {
    const life = this.#open(context)
    const attachment = life?.attachments.get(address)
    return attachment && attachment.leaseEndsAt > context.now ? life : undefined
  }

  // Attachments

  attach(request: AttachRequest, isReserved: boolean, context: QueueContext): AttachReply {
    const { address, attachedTo, watchesHolder } = request
    if (attachedTo !== '' && this.#closed?.id === attachedTo && this.#closed.until > context.now)
      return { kind: 'closed' }
    let life = this.#open(context)
    if (!life && !isReserved) return { kind: 'unreserved' }
    life ??= this.#make(request)
    life.expiresAt = context.now + life.ttl
    const batch = life.attachments.get(address)?.batch ?? { number: 0, first: 0, count: 0 }
    life.attachments.set(address, { leaseEndsAt: context.now + life.ttl, watchesHolder, batch })
    const existed = life.id !== request.life
    return { kind: 'attached', existed, life: life.id, ttl: life.ttl, maxsize: life.maxsize }
  }

  #make({ life: id, ttl, maxsize }: AttachRequest): Life {
    this.#life = {
      ...{ id, ttl, maxsize, expiresAt: 0, last: 0, cursor: 1, fence: 0, holder: undefined },
      ...{ messages: new Map(), returned: new SortedIds(), turns: new Map(), blocked: new Map() },
      ...{ attachments: new Map(), consumers: new Map(), waiting: new Map(), metadata: new Map() },
    }
    return this.#life
  }

  detach(address: string, context: QueueContext): void {
    const life = this.#attached(address, context)
    if (!life) return
    if (life.consumers.has(address)) this.#lose(life, address, context)
    this.#forget(life, address)
    life.expiresAt = context.now + life.ttl
  }

  #forget(life: Life, address: string): void {
    life.attachments.delete(address)
    for (const role of ['consumer', 'reader', 'producer'] as const) life.waiting.delete(`${role} ${address}`)
  }

  renew(address: string, context: QueueContext): RenewalReply {
    const life = this.#attached(address, context)
    const attachment = life?.attachments.get(address)
    if (!life || !attachment) return 'detached'
    life.expiresAt = context.now + life.ttl
    attachment.leaseEndsAt = context.now + life.ttl
    const consumer = life.consumers.get(address)
    if (consumer) consumer.leaseEndsAt = context.now + consumer.lease
    // Whoever was told of the messages may have died.
    if (this.#hasAvailable(life)) this.#wakeConsumers(life, 1, context)
    return consumer ? 'consuming' : 'attached'
  }

  // Producers

  push({ address, number, messages, awaitsRoom }: PushRequest, context: QueueContext): Pushed | Detached {
    const life = this.#attached(address, context)
    const attachment = life?.attachments.get(address)
    if (!life || !attachment) return { kind: 'detached' }
    const { batch } = attachment
    if (number <= batch.number) return { kind: 'pushed', first: batch.first, count: batch.count }
    const room = life.maxsize === 0 ? Number.POSITIVE_INFINITY : life.maxsize - waitingIn(life)
    const accepted = messages.slice(0, Math.max(0, room))
    const first = life.last + 1
    for (const message of accepted) {
      life.last++
      life.messages.set(life.last, { ...message, id: life.last, redelivered: 0 })
    }
    if (accepted.length < messages.length && awaitsRoom) wait(life, `producer ${address}`, context)
    attachment.batch = { number, first, count: accepted.length }
    if (accepted.length > 0) {
      this.#wakeAll(life, 'reader', 'messages', context)
      this.#wakeConsumers(life, accepted.length, context)
    }
    return { kind: 'pushed', first, count: accepted.length }
  }

  // Consumers

  consume(request: ConsumeRequest, context: QueueContext): boolean | Detached {
    const { address, lease, reliable, exclusive, last } = request
    const life = this.#attached(address, context)
    if (!life) return { kind: 'detached' }
    // It consumed before, and could not say that it left.
    if (life.consumers.has(address)) this.#lose(life, address, context)
    const leaseEndsAt = context.now + lease
    life.consumers.set(address, { leaseEndsAt, held: new SortedIds(), lease, reliable, exclusive })
    for (let scanned = 0; scanned < MAX_SCANNED; scanned++) {
      const next = this.#next(life)
      if (!next || next.id > last) return true
      this.#pass(life, next)
      this.#remove(life, next)
    }
    return false
  }

  take({ address, acked, have, want }: TakeRequest, context: QueueContext): Taken | Lost | Detached {
    const life = this.#attached(address, context)
    if (!life) return { kind: 'detached' }
    const consumer = life.consumers.get(address)
    if (!consumer) return { kind: 'lost' }
    this.#acknowledge(life, consumer, acked)
    if (consumer.exclusive && life.holder === undefined) {
      life.holder = address
      life.fence++
      this.#announceHolder(life, context)
    }
    const fence = life.holder === address ? life.fence : 0
    if (consumer.held.size > have) {
      const messages = firstBytes(heldBy(life, consumer))
      return { kind: 'taken', messages: messages.map(incoming), isAll: false, askAfter: undefined, fence }
    }
    const isMine = life.holder === undefined || life.holder === address
    const { taken, isAll } = isMine ? this.#collect(life, consumer, want) : { taken: [], isAll: want > 0 }
    if (isAll) wait(life, `consumer ${address}`, context)
    else life.waiting.delete(`consumer ${address}`)
    if (taken.length > 0) this.#tellRoom(life, context)
    const askAfter = isAll ? this.#nextLoss(life, address, context.now) : undefined
    return { kind: 'taken', messages: taken.map(incoming), isAll, askAfter, fence }
  }

  /** Takes up to `want` messages for a consumer. `isAll`: it wanted more than there are. */
  #collect(
    life: Life,
    { held, reliable }: ConsumerRecord,
    want: number,
  ): { taken: Message[]; isAll: boolean } {
    const limit = Math.min(want, MAX_BATCH)
    const taken: Message[] = []
    let bytes = 0
    for (let scanned = 0; taken.length < limit; scanned++) {
      const next = this.#next(life)
      if (!next) return { taken, isAll: true }
      const size = bytes + next.bytes.length
      if (scanned === MAX_SCANNED || (taken.length > 0 && size > MAX_BATCH_BYTES)) break
      this.#pass(life, next)
      const turn = life.turns.get(next.key)
      if (next.key !== '' && turn !== undefined && turn !== next.id) {
        block(life, next)
        continue
      }
      if (next.key !== '' && reliable) life.turns.set(next.key, next.id)
      held.add(next.id)
      taken.push(next)
      bytes = size
    }
    return { taken, isAll: false }
  }

  /** The first message that waits. */
  #next(life: Life): Message | undefined {
    return life.messages.get(life.returned.first ?? life.cursor)
  }

  /** A waiting message waits no more. */
  #pass(life: Life, { id }: Message): void {
    if (!life.returned.delete(id)) life.cursor = id + 1
  }

  #hasAvailable(life: Life): boolean {
    return this.#next(life) !== undefined
  }

  #acknowledge(life: Life, { held }: ConsumerRecord, ids: readonly number[]): void {
    for (const id of ids) {
      const message = life.messages.get(id)
      if (held.delete(id) && message) this.#remove(life, message)
    }
  }

  /** Removes a message. If it was the turn of one, the next of its key waits again. */
  #remove(life: Life, { id, key }: Message): void {
    life.messages.delete(id)
    if (key === '' || life.turns.get(key) !== id) return
    const blocked = life.blocked.get(key)
    const next = blocked?.first
    if (next === undefined) life.turns.delete(key)
    else {
      blocked?.delete(next)
      if (blocked?.size === 0) life.blocked.delete(key)
      life.turns.set(key, next)
      life.returned.add(next)
    }
  }

  leave({ address, acked, unhanded }: LeaveRequest, context: QueueContext): void {
    const life = this.#attached(address, context)
    const consumer = life?.consumers.get(address)
    if (!life || !consumer) return
    this.#acknowledge(life, consumer, acked)
    this.#end(
      life,
      address,
      (message) => {
        if (!unhanded.includes(message.id)) message.redelivered++
        this.#return(life, message)
      },
      context,
    )
  }

  /** The lease of a consumer is over, or it is gone without having left. */
  #lose(life: Life, address: string, context: QueueContext): void {
    const isReliable = life.consumers.get(address)?.reliable === true
    this.#end(
      life,
      address,
      (message) => {
        message.redelivered++
        if (isReliable) this.#return(life, message)
        else this.#remove(life, message)
      },
      context,
    )
  }

  #return(life: Life, message: Message): void {
    life.returned.add(message.id)
  }

  #end(life: Life, address: string, settle: (message: Message) => void, context: QueueContext): void {
    const consumer = life.consumers.get(address)
    if (!consumer) return
    for (const message of heldBy(life, consumer)) settle(message)
    life.consumers.delete(address)
    life.waiting.delete(`consumer ${address}`)
    const wasHolder = life.holder === address
    if (wasHolder) {
      life.holder = undefined
      this.#announceHolder(life, context)
    }
    const available = life.returned.size + life.last + 1 - life.cursor
    this.#wakeConsumers(life, wasHolder ? Math.max(1, available) : available, context)
  }

  read(address: string, after: number, want: number, context: QueueContext): Read | Detached {
    const life = this.#attached(address, context)
    if (!life) return { kind: 'detached' }
    const from = Math.min(after, life.last)
    const limit = Math.min(want, MAX_BATCH)
    const found: Message[] = []
    const [oldest = 0] = life.messages.keys()
    // One more than is wanted shows whether there are more.
    for (let id = Math.max(from + 1, oldest); id <= life.last && found.length <= limit; id++) {
      const message = life.messages.get(id)
      if (message) found.push(message)
    }
    const messages = firstBytes(found.slice(0, limit))
    const isAll = messages.length === found.length
    if (isAll) wait(life, `reader ${address}`, context)
    else life.waiting.delete(`reader ${address}`)
    const reached = messages.at(-1)?.id ?? from
    return {
      kind: 'taken',
      messages: messages.map(incoming),
      isAll,
      askAfter: undefined,
      fence: 0,
      after: reached,
    }
  }

  /** ms until the first lease of another consumer ends. */
  #nextLoss(life: Life, address: string, now: number): number | undefined {
    const others = [...life.consumers].filter(([other]) => other !== address)
    if (others.length === 0) return undefined
    return Math.min(...others.map(([, { leaseEndsAt }]) => leaseEndsAt)) - now
  }

  // Signals

  /** Tells up to `count` waiting consumers, those first that wait for longest. Tells the holder alone, if there is one. */
  #wakeConsumers(life: Life, count: number, context: QueueContext): void {
    let left = count
    for (const waiting of inTurn(life, 'consumer')) {
      if (left === 0) return
      const address = addressOf(waiting)
      if (life.holder !== undefined && life.holder !== address) continue
      life.waiting.delete(waiting)
      if (context.send(address, 'messages')) left--
    }
  }

  #wakeAll(life: Life, role: 'reader' | 'producer', signal: QueueSignal, context: QueueContext): void {
    for (const waiting of inTurn(life, role)) {
      life.waiting.delete(waiting)
      context.send(addressOf(waiting), signal)
    }
  }

  #tellRoom(life: Life, context: QueueContext): void {
    if (life.maxsize > 0 && waitingIn(life) < life.maxsize) this.#wakeAll(life, 'producer', 'room', context)
  }

  #announceHolder(life: Life, context: QueueContext): void {
    for (const address of byLease(life.attachments))
      if (life.attachments.get(address)?.watchesHolder) context.send(address, 'holder')
  }

  // The whole queue

  inspect(context: QueueContext): QueueInfo | undefined {
    const life = this.#open(context)
    if (!life) return undefined
    const holder = life.holder === undefined ? undefined : life.consumers.get(life.holder)
    return {
      count: waitingIn(life),
      ttlLeft: life.expiresAt - context.now,
      maxsize: life.maxsize,
      holder: holder && { fence: life.fence, leaseLeft: holder.leaseEndsAt - context.now },
    }
  }

  flush(context: QueueContext): number {
    const life = this.#open(context)
    if (!life) return 0
    const count = life.messages.size
    life.cursor = life.last + 1
    for (const part of [life.messages, life.returned, life.turns, life.blocked]) part.clear()
    for (const { held } of life.consumers.values()) held.clear()
    this.#tellRoom(life, context)
    return count
  }

  remove(address: string, context: QueueContext): boolean {
    const life = this.#attached(address, context)
    // The reply to it may have been lost.
    if (!life) return this.#closed?.by === address && this.#closed.until > context.now
    this.#life = undefined
    this.#closed = { id: life.id, by: address, until: context.now + CLOSED_TTL }
    for (const other of byLease(life.attachments)) if (other !== address) context.send(other, 'closed')
    return true
  }

  readMetadata(names: readonly string[] | undefined, context: QueueContext): Map<string, Buffer> {
    const metadata = this.#open(context)?.metadata ?? new Map<string, Buffer>()
    return new Map([...metadata].filter(([name]) => !names || names.includes(name)))
  }

  writeMetadata(entries: ReadonlyMap<string, Buffer>, context: QueueContext): 'written' | 'none' | 'full' {
    const life = this.#open(context)
    if (!life) return 'none'
    const names = new Set([...life.metadata.keys(), ...entries.keys()])
    if (names.size > MAX_METADATA) return 'full'
    for (const [name, bytes] of entries) life.metadata.set(name, bytes)
    return 'written'
  }
}

const addressOf = (waiting: Waiting): string => waiting.slice(waiting.indexOf(' ') + 1)

function incoming({ id, key, kind, bytes, redelivered }: Message): Incoming {
  return { id, key, kind, bytes, redelivered }
}

/** Messages that no consumer holds. */
function waitingIn({ messages, consumers }: Life): number {
  let held = 0
  for (const consumer of consumers.values()) held += consumer.held.size
  return messages.size - held
}

function heldBy({ messages }: Life, { held }: ConsumerRecord): Message[] {
  return [...held].flatMap((id) => messages.get(id) ?? [])
}

/** As many of the first messages as one reply has. */
function firstBytes(messages: readonly Message[]): Message[] {
  let bytes = 0
  const end = messages.findIndex((message, index) => {
    bytes += message.bytes.length
    return index === MAX_BATCH || (index > 0 && bytes > MAX_BATCH_BYTES)
  })
  return end === -1 ? [...messages] : messages.slice(0, end)
}

function block({ blocked }: Life, { id, key }: Message): void {
  const ids = blocked.get(key) ?? new SortedIds()
  blocked.set(key, ids)
  ids.add(id)
}

function wait(life: Life, waiting: Waiting, { now }: QueueContext): void {
  if (!life.waiting.has(waiting)) life.waiting.set(waiting, now)
}

/** Those of a role who wait, by since when. */
function inTurn(life: Life, role: string): Waiting[] {
  const waiting = [...life.waiting].filter(([name]) => name.startsWith(role))
  return waiting.sort(([one, a], [other, b]) => a - b || compare(one, other)).map(([name]) => name)
}

/** The addresses, by the end of their leases. */
function byLease(entries: ReadonlyMap<string, { readonly leaseEndsAt: number }>): string[] {
  return [...entries]
    .sort(([one, a], [other, b]) => a.leaseEndsAt - b.leaseEndsAt || compare(one, other))
    .map(([address]) => address)
}

/** Addresses whose leases are over. */
function overdue(entries: ReadonlyMap<string, { readonly leaseEndsAt: number }>, now: number): string[] {
  return byLease(new Map([...entries].filter(([, { leaseEndsAt }]) => leaseEndsAt <= now))).slice(
    0,
    MAX_STRUCK,
  )
}

function compare(one: string, other: string): number {
  return one < other ? -1 : one > other ? 1 : 0
}
