import type { BusContext, Member, Places } from '../../src/bus/context.ts'
import { persistify } from '../../src/bus/persisted/persisted.ts'
import type { Persisted } from '../../src/bus/persisted/persisted-methods.ts'
import type { PubsubOptions } from '../../src/bus/pubsub/options.ts'
import { Pubsub } from '../../src/bus/pubsub/pubsub.ts'
import { Renewals } from '../../src/bus/renewals.ts'
import { MemoryBus } from '../../src/bus/store/memory-store.ts'
import type {
  Instance,
  ObjectStore,
  PublishRequest,
  Resumed,
  TopicListener,
  TopicStore,
} from '../../src/bus/store/store.ts'
import { UnavailableError } from '../../src/errors.ts'
import { type Codec, jsonCodec } from '../../src/kernel/codec/codec.ts'

interface FaultyBusOptions {
  store?: MemoryBus
  within?: number
  maxMessage?: number
  codec?: Codec
}

/** A call to the topics or objects of an instance. */
type Call = keyof TopicStore | keyof ObjectStore

const opened: FaultyBus[] = []

/** Ends all subscriptions: each keeps the process alive. */
export async function disconnectFaultyBuses(): Promise<void> {
  await Promise.all(opened.splice(0).map((bus) => bus.disconnect()))
}

/**
 * What one process has of a bus with one instance, in memory, which the test can break: its connection, and single calls.
 */
export class FaultyBus {
  readonly store: MemoryBus
  readonly member: Member
  readonly context: BusContext
  /** Calls so far, with those that failed. */
  readonly calls = new Map<Call, number>()
  readonly published: PublishRequest[] = []
  readonly listeners = new Map<TopicListener, string>()
  /** Runs before a call reaches the store; undefined: nothing does. */
  before: ((call: Call) => Promise<void> | void) | undefined
  /** Runs after the store has done a call. Its reply is lost if this rejects. */
  after: ((call: Call) => Promise<void> | void) | undefined
  /** Changes the reply to a question of a subscriber. */
  told: (resumed: Resumed) => Resumed = (resumed) => resumed
  forgotten = 0
  /** Whether the subscription of the connection is established. */
  #isUp = true
  readonly #closers = new Set<() => Promise<void>>()

  constructor(options: FaultyBusOptions = {}) {
    opened.push(this)
    const { store = new MemoryBus(), within = 500, maxMessage = 1024 * 1024, codec = jsonCodec } = options
    this.store = store
    const instance = this.#broken(store.connect())
    const { clock } = store
    this.member = {
      instance,
      queueLeases: new Renewals(clock, (items) => instance.queues.renew(items, within)),
      topicLeases: new Renewals(clock, (items) => renewed(instance.topics.renew(new Map(items), within))),
      objectLeases: new Renewals(clock, (items) => renewed(instance.objects.renew(new Map(items), within))),
    }
    const places: Places = {
      find: async (kind, name) =>
        (await instance.places.exists(kind, name, within)) ? this.member : undefined,
      place: async (_kind, _name, use) => {
        for (;;) {
          const used = await use(this.member, '')
          if (used !== undefined) return used
        }
      },
      forget: () => void this.forgotten++,
    }
    this.context = {
      places,
      clock,
      codec,
      maxMessage,
      within,
      assertOpen: () => {},
      onDisconnect: (close) => {
        this.#closers.add(close)
        return () => void this.#closers.delete(close)
      },
    }
  }

  #broken(instance: Instance): Instance {
    const { topics, objects } = instance
    const run = async <T>(call: Call, act: () => Promise<T>): Promise<T> => {
      this.calls.set(call, (this.calls.get(call) ?? 0) + 1)
      await this.before?.(call)
      const reply = await act()
      await this.after?.(call)
      return reply
    }
    const topicStore: TopicStore = {
      publish: (topic, request, within) => {
        this.published.push(request)
        return run('publish', () => topics.publish(topic, request, within))
      },
      resume: async (...args) => this.told(await run('resume', () => topics.resume(...args))),
      renew: (...args) => run('renew', () => topics.renew(...args)),
      listen: (topic, listener) => {
        this.listeners.set(listener, topic)
        const stop = topics.listen(topic, {
          onMessages: (...args) => this.#isUp && listener.onMessages(...args),
          onUp: () => this.#isUp && listener.onUp(),
          onDown: () => {},
        })
        return () => {
          this.listeners.delete(listener)
          stop()
        }
      },
    }
    const objectStore: ObjectStore = {
      save: (...args) => run('save', () => objects.save(...args)),
      load: (...args) => run('load', () => objects.load(...args)),
      renew: (...args) => run('renew', () => objects.renew(...args)),
    }
    return {
      name: instance.name,
      clock: instance.clock,
      online: true,
      queues: instance.queues,
      places: instance.places,
      topics: topicStore,
      objects: objectStore,
      open: (onChange) => instance.open(onChange),
      close: () => instance.close(),
    }
  }

  pubsub<M>(name: string, options: PubsubOptions = {}): Pubsub<M> {
    return new Pubsub<M>(name, options, this.context)
  }

  persistify<T extends object>(name: string, object: T, properties: (keyof T & string)[]): Persisted<T> {
    return persistify(name, object, properties, this.context)
  }

  /** The subscription of the connection is lost: nothing arrives any more. */
  cut(): void {
    this.#isUp = false
    for (const listener of [...this.listeners.keys()]) listener.onDown()
  }

  heal(): void {
    this.#isUp = true
    for (const listener of [...this.listeners.keys()]) listener.onUp()
  }

  /** A message that anybody sends to the channel of a topic. */
  forge(life: string, first: number, ...messages: readonly Buffer[]): void {
    for (const listener of [...this.listeners.keys()]) listener.onMessages(life, first, messages)
  }

  countOf(call: Call): number {
    return this.calls.get(call) ?? 0
  }

  /** How many would be told of a disconnect. */
  get watchers(): number {
    return this.#closers.size
  }

  async disconnect(): Promise<void> {
    await Promise.all([...this.#closers].map((close) => close()))
  }
}

/** Nobody listens to the replies to renewals of topics and objects. */
async function renewed(errors: Promise<readonly (Error | undefined)[]>): Promise<undefined[]> {
  await errors
  return []
}

/** What a call rejects with when the server does not answer. */
export function unavailable(): UnavailableError {
  return new UnavailableError('The test has cut it off')
}

/** What a subscriber has received: messages and gaps, in order. */
export function recorded<M>(pubsub: Pubsub<M>): (M | string)[] {
  const log: (M | string)[] = []
  pubsub.on('message', (message) => log.push(message))
  pubsub.on('gap', (missed) => log.push(`gap ${missed}`))
  return log
}

export function numbers(from: number, to: number): number[] {
  return Array.from({ length: to - from + 1 }, (_, index) => from + index)
}
