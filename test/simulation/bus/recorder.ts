import type { QueueRecord } from '../../../src/bus/store/queue-record.ts'
import type { TopicContext } from '../../../src/bus/store/topic-record.ts'
import { jsonCodec } from '../../../src/kernel/codec/codec.ts'
import type { BusHistory, Entry, Removal } from './history.ts'
import type { BusServer } from './server.ts'

/** A transition that runs at the server. */
export interface Transition {
  readonly kind:
    | 'attach'
    | 'detach'
    | 'renew'
    | 'push'
    | 'consume'
    | 'take'
    | 'leave'
    | 'read'
    | 'inspect'
    | 'flush'
    | 'remove'
  readonly address: string
  readonly acked?: readonly number[]
  /** Of `consume`. */
  readonly last?: number
}

interface View {
  readonly life: string
  readonly expiresAt: number
  readonly last: number
  readonly fence: number
  readonly holder: string | undefined
  readonly ids: ReadonlySet<number>
  /** The address that holds each message. */
  readonly heldBy: ReadonlyMap<number, string>
  /** Consumers, by address. */
  readonly consumers: ReadonlyMap<string, { readonly leaseEndsAt: number; readonly reliable: boolean }>
}

function viewOf({ life }: QueueRecord): View | undefined {
  if (!life) return undefined
  const { id, expiresAt, last, fence, holder, messages, consumers } = life
  const heldBy = new Map<number, string>()
  for (const [address, { held }] of consumers) for (const message of held) heldBy.set(message, address)
  const leases = [...consumers].map(
    ([address, { leaseEndsAt, reliable }]) => [address, { leaseEndsAt, reliable }] as const,
  )
  const ids = new Set(messages.keys())
  return { life: id, expiresAt, last, fence, holder, ids, heldBy, consumers: new Map(leases) }
}

/** Reads what each transition has done off the record of a queue, and checks it. */
export class QueueRecorder {
  readonly #history: BusHistory
  readonly #server: BusServer
  /** Whether requests of a process may have been late or lost for the time of a lease. */
  readonly #mayLose: (process: number | undefined) => boolean
  #givings = 0

  constructor(history: BusHistory, server: BusServer, mayLose: (process: number | undefined) => boolean) {
    this.#history = history
    this.#server = server
    this.#mayLose = mayLose
  }

  #violate(guarantee: string, what: string): void {
    this.#history.violate(guarantee, what)
  }

  observe<T>(queue: string, transition: Transition, record: QueueRecord, run: () => T): T {
    const before = viewOf(record)
    const result = run()
    const after = viewOf(record)
    // A request that is sent twice may make it again under the same id.
    const isOver = before && (before.life !== after?.life || before.expiresAt <= this.#server.now)
    if (isOver) this.#onEnd(queue, before, transition)
    if (!after) return result
    const old = isOver ? undefined : before
    if (old) this.#onRemoved(queue, old, after, transition)
    if (old) this.#onLost(queue, old, after, transition)
    this.#onPushed(queue, old?.last ?? 0, after, record)
    this.#onGiven(queue, old, after, transition)
    this.#checkKeys(queue, after)
    this.#checkHolder(queue, old, after)
    return result
  }

  /** Records what is published. */
  notePublished(topic: string, context: TopicContext): TopicContext {
    const publish: TopicContext['publish'] = (life, first, messages) => {
      for (const [index, bytes] of messages.entries()) {
        const value = jsonCodec.decode(bytes) as number
        if (this.#history.publicationsOf(value).some((one) => one.life === life))
          this.#violate('B4', `${value} was published twice`)
        this.#history.addPublication({
          ...this.#history.moment(),
          ...{ topic, life, number: first + index, value },
        })
      }
      context.publish(life, first, messages)
    }
    return { ...context, publish }
  }

  /** All records are lost. */
  wipe(): void {
    for (const [queue, record] of this.#server.queues) {
      const view = viewOf(record)
      for (const id of view?.ids ?? [])
        this.#remove(this.#entry(queue, view?.life ?? '', id), 'wiped', undefined)
    }
    this.#server.wipe()
  }

  #entry(queue: string, life: string, id: number): Entry | undefined {
    return this.#history.entryAt(queue, life, id)
  }

  #remove(entry: Entry | undefined, how: Removal, process: number | undefined): void {
    if (entry) entry.removed = { ...this.#history.moment(), how, process }
  }

  #onEnd(queue: string, before: View, { kind }: Transition): void {
    const isExpired = before.expiresAt <= this.#server.now
    if (!isExpired && kind !== 'remove')
      this.#violate('B2', `${queue} has ended by ${kind}, and had not expired`)
    for (const id of before.ids)
      this.#remove(this.#entry(queue, before.life, id), isExpired ? 'expired' : 'closed', undefined)
  }

  #onRemoved(queue: string, before: View, after: View, transition: Transition): void {
    for (const id of before.ids) {
      if (after.ids.has(id)) continue
      const entry = this.#entry(queue, after.life, id)
      const holder = before.heldBy.get(id)
      const process = holder === undefined ? undefined : this.#server.processOf(holder)
      const how = this.#reasonOf(id, holder, before, transition)
      this.#remove(entry, how ?? 'lost', process)
      const name = `${queue} ${id}`
      if (!how) this.#violate('B2', `${name} was removed by ${transition.kind}`)
      if (how === 'acked' && !entry?.deliveries.some((one) => one.process === process))
        this.#violate('B1', `p${process} has never handed over ${name}, and it is removed`)
      if (how === 'lost' && !this.#mayLose(process))
        this.#violate('B1', `${name} is lost with the lease of p${process}, which nothing disturbed`)
    }
  }

  /** B2: a consumer loses its lease only if something was slow. */
  #onLost(queue: string, before: View, after: View, { kind, address }: Transition): void {
    for (const consumer of before.consumers.keys()) {
      const hasLeft = consumer === address && (kind === 'leave' || kind === 'consume' || kind === 'detach')
      if (after.consumers.has(consumer) || hasLeft) continue
      const process = this.#server.processOf(consumer)
      if (!this.#mayLose(process))
        this.#violate('B2', `p${process} has lost its lease of ${queue}, and nothing disturbed it`)
    }
  }

  #reasonOf(
    id: number,
    holder: string | undefined,
    { consumers }: View,
    { kind, address, acked = [], last = 0 }: Transition,
  ): Removal | undefined {
    if (kind === 'flush') return 'flushed'
    // The consumer that held it may have been lost by the same transition.
    const isDiscarded = kind === 'consume' && id <= last
    if (holder === undefined) return isDiscarded ? 'discarded' : undefined
    const consumer = consumers.get(holder)
    const isLive = consumer !== undefined && consumer.leaseEndsAt > this.#server.now
    if (isLive && (kind === 'take' || kind === 'leave') && holder === address && acked.includes(id))
      return 'acked'
    if (consumer?.reliable === false) return 'lost'
    return isDiscarded && (!isLive || holder === address) ? 'discarded' : undefined
  }

  #onPushed(queue: string, last: number, after: View, { life }: QueueRecord): void {
    for (let id = last + 1; id <= after.last; id++) {
      const message = life?.messages.get(id)
      if (!message) continue
      const value = jsonCodec.decode(message.bytes) as number
      // Also if the queue was lost in between: it may have been received before.
      if (this.#history.entriesOf(value).length > 0)
        this.#violate('B4', `${value} is in ${queue} twice, as ${id} again`)
      this.#history.addEntry({
        ...{ queue, life: after.life, id, value, key: message.key, pushed: this.#history.moment() },
        ...{ given: 0, givenAs: 0, givenToDefault: false, deliveries: [] },
        ...{ acked: undefined, removed: undefined },
      })
    }
  }

  /** Messages are given in the order of their ids, and those of one key one at a time. */
  #onGiven(queue: string, before: View | undefined, after: View, { kind, address }: Transition): void {
    const given = [...after.heldBy].filter(([id, holder]) => before?.heldBy.get(id) !== holder)
    if (given.length === 0) return
    if (kind !== 'take' || given.some(([, holder]) => holder !== address))
      this.#violate('B2', `messages of ${queue} were given by ${kind}`)
    if (after.holder !== undefined && after.holder !== address)
      this.#violate('B3', `${queue} has an exclusive consumer, and another was given messages`)
    const isReliable = after.consumers.get(address)?.reliable === true
    for (const [id] of given) {
      const entry = this.#entry(queue, after.life, id)
      if (!entry) continue
      entry.given++
      entry.givenAs = ++this.#givings
      if (!isReliable) entry.givenToDefault = true
    }
    this.#checkOrder(
      queue,
      after,
      given.map(([id]) => id),
    )
  }

  #checkOrder(queue: string, after: View, given: readonly number[]): void {
    const waits = (id: number) => !after.heldBy.has(id)
    const entries = [...after.ids].flatMap((id) => this.#entry(queue, after.life, id) ?? [])
    const last = Math.max(0, ...given.filter((id) => this.#entry(queue, after.life, id)?.key === ''))
    const passed = entries.find(({ id, key }) => key === '' && id < last && waits(id))
    if (passed) this.#violate('B2', `${queue} gave ${last}, and ${passed.id} still waits`)
    for (const id of given) {
      const key = this.#entry(queue, after.life, id)?.key ?? ''
      const same = key === '' ? [] : entries.filter((one) => one.key === key && one.id !== id)
      // A consumer that is not reliable is no part of the order of a key.
      if (same.some((one) => one.givenToDefault)) continue
      const earlier = same.find((one) => one.id < id)
      if (earlier && !given.includes(earlier.id))
        this.#violate('B2', `${queue} gave ${id} of ${key}, and not ${earlier.id}, which is before it`)
    }
  }

  /** Of each key, live reliable consumers hold one message. */
  #checkKeys(queue: string, { life, heldBy, consumers }: View): void {
    const held = new Map<string, number>()
    for (const [id, address] of heldBy) {
      const consumer = consumers.get(address)
      const key = this.#entry(queue, life, id)?.key ?? ''
      if (key === '' || !consumer?.reliable || consumer.leaseEndsAt <= this.#server.now) continue
      const other = held.get(key)
      if (other !== undefined) this.#violate('B2', `${other} and ${id} of ${key} in ${queue} are both held`)
      held.set(key, id)
    }
  }

  /** The fence grows with each exclusive consumer. */
  #checkHolder(queue: string, before: View | undefined, { fence, holder, consumers }: View): void {
    if (holder !== undefined && !consumers.has(holder))
      this.#violate('B3', `the exclusive consumer of ${queue} does not consume`)
    if (!before) return
    if (fence < before.fence || (holder !== undefined && holder !== before.holder && fence === before.fence))
      this.#violate('B3', `${queue} has another exclusive consumer under the fence ${fence}`)
  }
}
