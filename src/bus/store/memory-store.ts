import { LocalCensus } from '../../kernel/census.ts'
import { InMemoryHub, sweeper } from '../../kernel/in-memory-store.ts'
import { newId } from '../../kernel/keys.ts'
import { type Clock, microtask, systemClock } from '../../kernel/time.ts'
import { ObjectRecord } from './object-record.ts'
import { type QueueContext, QueueRecord } from './queue-record.ts'
import type {
  Instance,
  ObjectStore,
  PlaceStore,
  QueueListener,
  QueueStore,
  RecordKind,
  TopicListener,
  TopicStore,
} from './store.ts'
import { type TopicContext, TopicRecord } from './topic-record.ts'

/** Options of a {@link MemoryBus}. */
export interface MemoryBusOptions {
  /** The clock. For tests. @default the clock of the process */
  clock?: Clock | undefined
  /** Delivers a message. For tests that delay or lose messages. @default in a microtask */
  deliver?: ((message: () => void) => void) | undefined
}

/** The name of an instance in memory. */
const INSTANCE_NAME = 'memory'

/** Records by name, which are made when they are used and removed when they are empty. */
class Records<Record extends { isEmpty(now: number): boolean }> {
  readonly #make: () => Record
  readonly #byName = new Map<string, Record>()

  constructor(make: () => Record) {
    this.#make = make
  }

  get size(): number {
    return this.#byName.size
  }

  get(name: string): Record | undefined {
    return this.#byName.get(name)
  }

  apply<T>(name: string, now: number, transition: (record: Record) => T): T {
    const record = this.#byName.get(name) ?? this.#make()
    const result = transition(record)
    if (record.isEmpty(now)) this.#byName.delete(name)
    else this.#byName.set(name, record)
    return result
  }

  sweep(now: number): void {
    for (const [name, record] of this.#byName) if (record.isEmpty(now)) this.#byName.delete(name)
  }
}

/** Receives the signals and messages to one Bus object. */
interface Client {
  readonly queues: Map<string, QueueListener>
  readonly topics: Map<string, Set<TopicListener>>
}

/**
 * The records of a bus in the memory of this process, with the same transitions as on Redis. Used by a Bus without Redis, and
 * by tests in which several Bus objects behave like several processes.
 */
export class MemoryBus {
  readonly clock: Clock
  /** What the Bus objects here answer to each other. @internal */
  readonly census: LocalCensus = new LocalCensus()
  /** @internal */
  readonly hub: InMemoryHub<Client>
  readonly #queues = new Records(() => new QueueRecord())
  readonly #topics = new Records(() => new TopicRecord())
  readonly #objects = new Records(() => new ObjectRecord())
  readonly #reservations = new Map<string, { readonly token: string; readonly until: number }>()
  readonly #sweepLater: () => void

  constructor({ clock = systemClock, deliver = microtask }: MemoryBusOptions = {}) {
    this.clock = clock
    this.hub = new InMemoryHub(deliver)
    this.#sweepLater = sweeper(clock, () => this.#sweep())
  }

  /** Connects one Bus object. @internal */
  connect(): Instance {
    return new MemoryInstance(this)
  }

  /** Runs a transition of a queue. @internal */
  queue<T>(name: string, transition: (record: QueueRecord, context: QueueContext) => T): T {
    const now = this.clock.now()
    const context: QueueContext = {
      now,
      send: (address, signal) =>
        this.hub.send(address, (client, nonce) => client.queues.get(nonce)?.onSignal(signal)),
    }
    this.#sweepLater()
    return this.#queues.apply(name, now, (record) => transition(record, context))
  }

  /** Runs a transition of a topic. @internal */
  topic<T>(name: string, transition: (record: TopicRecord, context: TopicContext) => T): T {
    const now = this.clock.now()
    const context: TopicContext = {
      now,
      newLife: newId(),
      publish: (life, first, messages) =>
        this.hub.broadcast(({ topics }) => {
          for (const listener of [...(topics.get(name) ?? [])]) listener.onMessages(life, first, messages)
        }),
    }
    this.#sweepLater()
    return this.#topics.apply(name, now, (record) => transition(record, context))
  }

  /** Runs a transition of an object. @internal */
  object<T>(name: string, transition: (record: ObjectRecord, now: number) => T): T {
    const now = this.clock.now()
    this.#sweepLater()
    return this.#objects.apply(name, now, (record) => transition(record, now))
  }

  /** @internal */
  exists(kind: RecordKind, name: string): boolean {
    const now = this.clock.now()
    // A queue that was closed is remembered.
    if (kind === 'queue') return this.#queues.get(name)?.exists(now) === true
    const records = { topic: this.#topics, object: this.#objects }
    return records[kind].get(name)?.isEmpty(now) === false
  }

  /** Whether the token has reserved the name; nobody else can. @internal */
  isReserved(kind: RecordKind, name: string, token: string): boolean {
    const reservation = this.#reservations.get(`${kind} ${name}`)
    return reservation !== undefined && reservation.token === token && reservation.until > this.clock.now()
  }

  /** @internal */
  reserve(kind: RecordKind, name: string, token: string, ttl: number): 'exists' | 'reserved' | 'taken' {
    if (this.exists(kind, name)) return 'exists'
    const known = this.#reservations.get(`${kind} ${name}`)
    if (known && known.token !== token && known.until > this.clock.now()) return 'taken'
    this.#reservations.set(`${kind} ${name}`, { token, until: this.clock.now() + ttl })
    this.#sweepLater()
    return 'reserved'
  }

  /** @internal */
  release(kind: RecordKind, name: string, token: string): void {
    if (this.isReserved(kind, name, token)) this.#reservations.delete(`${kind} ${name}`)
  }

  #sweep(): boolean {
    const now = this.clock.now()
    for (const [name, { until }] of this.#reservations) if (until <= now) this.#reservations.delete(name)
    const all = [this.#queues, this.#topics, this.#objects]
    for (const records of all) records.sweep(now)
    return this.#reservations.size > 0 || all.some(({ size }) => size > 0)
  }
}

/** The memory of this process, as one Bus object sees it. */
class MemoryInstance implements Instance {
  readonly name = INSTANCE_NAME
  readonly queues: QueueStore
  readonly topics: TopicStore
  readonly objects: ObjectStore
  readonly places: PlaceStore
  readonly #bus: MemoryBus
  readonly #client: Client = { queues: new Map(), topics: new Map() }
  readonly #inbox: string
  #isOpen = false

  constructor(bus: MemoryBus) {
    this.#bus = bus
    this.#inbox = bus.hub.connect(this.#client)
    this.queues = queueStore(bus, this.#client.queues, this.#inbox)
    this.topics = topicStore(bus, this.#client.topics)
    this.objects = {
      save: async (name, request) => bus.object(name, (record, now) => record.save(request, now)),
      load: async (name) => bus.object(name, (record, now) => record.load(now)),
      renew: async (ttls) => {
        for (const [name, ttl] of ttls) bus.object(name, (record, now) => record.renew(ttl, now))
        return [...ttls].map(() => undefined)
      },
    }
    this.places = {
      exists: async (kind, name) => bus.exists(kind, name),
      reserve: async (kind, name, token, ttl) => bus.reserve(kind, name, token, ttl),
      release: async (kind, name, token) => bus.release(kind, name, token),
    }
  }

  get clock(): Clock {
    return this.#bus.clock
  }

  get online(): boolean {
    return this.#isOpen
  }

  open(onChange: () => void): () => void {
    microtask(() => {
      this.#isOpen = true
      onChange()
    })
    return () => {}
  }

  async close(): Promise<void> {
    this.#isOpen = false
    this.#bus.hub.disconnect(this.#inbox)
  }
}

/** Every transition takes effect at once; its reply follows in a microtask. */
function queueStore(bus: MemoryBus, listeners: Map<string, QueueListener>, inbox: string): QueueStore {
  return {
    listen(listener) {
      const nonce = newId()
      listeners.set(nonce, listener)
      return { address: inbox + nonce, end: () => void listeners.delete(nonce) }
    },
    attach: async (queue, request) => {
      const isReserved = request.token === '' || bus.isReserved('queue', queue, request.token)
      return bus.queue(queue, (record, context) => record.attach(request, isReserved, context))
    },
    detach: async (queue, address) => bus.queue(queue, (record, context) => record.detach(address, context)),
    renew: async (renewals) =>
      renewals.map(({ queue, address }) =>
        bus.queue(queue, (record, context) => record.renew(address, context)),
      ),
    push: async (queue, request) => bus.queue(queue, (record, context) => record.push(request, context)),
    consume: async (queue, request) =>
      bus.queue(queue, (record, context) => record.consume(request, context)),
    take: async (queue, request) => bus.queue(queue, (record, context) => record.take(request, context)),
    leave: async (queue, request) => bus.queue(queue, (record, context) => record.leave(request, context)),
    read: async (queue, address, after, want) =>
      bus.queue(queue, (record, context) => record.read(address, after, want, context)),
    inspect: async (queue) => bus.queue(queue, (record, context) => record.inspect(context)),
    flush: async (queue) => bus.queue(queue, (record, context) => record.flush(context)),
    remove: async (queue, address) => bus.queue(queue, (record, context) => record.remove(address, context)),
    readMetadata: async (queue, names) =>
      bus.queue(queue, (record, context) => record.readMetadata(names, context)),
    writeMetadata: async (queue, entries) =>
      bus.queue(queue, (record, context) => record.writeMetadata(entries, context)),
  }
}

function topicStore(bus: MemoryBus, listeners: Map<string, Set<TopicListener>>): TopicStore {
  return {
    publish: async (topic, request) =>
      bus.topic(topic, (record, context) => record.publish(request, context)),
    listen(topic, listener) {
      const known = listeners.get(topic) ?? new Set()
      listeners.set(topic, known.add(listener))
      microtask(() => known.has(listener) && listener.onUp())
      return () => {
        if (known.delete(listener) && known.size === 0 && listeners.get(topic) === known)
          listeners.delete(topic)
      }
    },
    resume: async (topic, life, after, terms) =>
      bus.topic(topic, (record, context) => record.resume(life, after, terms, context)),
    renew: async (topics) => {
      for (const [topic, terms] of topics) bus.topic(topic, (record, context) => record.renew(terms, context))
      return [...topics].map(() => undefined)
    },
  }
}
