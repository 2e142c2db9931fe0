import type {
  Instance,
  ObjectStore,
  PlaceStore,
  QueueListener,
  QueueSignal,
  QueueStore,
  TopicListener,
  TopicStore,
} from '../../../src/bus/store/store.ts'
import { UnavailableError } from '../../../src/errors.ts'
import { newId } from '../../../src/kernel/keys.ts'
import type { Clock } from '../../../src/kernel/time.ts'
import { Link } from '../link.ts'
import type { SimProcess } from '../process.ts'
import { Subscription } from '../subscription.ts'
import type { BusPort } from './port.ts'
import type { BusPeer } from './server.ts'
import type { BusWorld } from './world.ts'

/** The command connection. Its failures are disturbances. Requests are sent again until their time limit. */
class NotedLink extends Link {
  readonly #note: (ms: number) => void

  constructor(sim: SimProcess, world: BusWorld) {
    super(sim, world, (line) => world.history.say(line), { resendsLate: false })
    this.#note = (ms) => world.history.disturb(sim.id, world.scheduler.now, world.scheduler.now + ms)
  }

  override cut(downFor: number, resend: boolean): void {
    this.#note(downFor)
    super.cut(downFor, resend)
  }

  override call<T>(...args: Parameters<typeof Link.prototype.call<T>>): Promise<T> {
    const reply = super.call<T>(...args)
    reply.catch((error) => {
      if (error instanceof UnavailableError) this.#note(0)
    })
    return reply
  }
}

/** The records as one process sees them: over a connection for commands and a subscription. Both can fail. */
export class BusEndpoint implements Instance, BusPeer {
  readonly name = 'server'
  readonly inbox: string = newId()
  readonly clock: Clock
  readonly link: Link
  readonly subscription: Subscription
  readonly queues: QueueStore
  readonly topics: TopicStore
  readonly objects: ObjectStore
  readonly places: PlaceStore
  /** The addresses that it has made, by nobody told which are attached where. */
  readonly #attachments = new Map<string, QueueListener>()
  readonly #subscribers = new Map<string, Set<TopicListener>>()
  readonly #listeners = new Set<{ up(): void; down(): void }>()
  readonly #sim: SimProcess
  readonly #world: BusWorld
  readonly #port: BusPort

  constructor(sim: SimProcess, clock: Clock, world: BusWorld, port: BusPort) {
    this.#sim = sim
    this.#world = world
    this.#port = port
    this.clock = clock
    this.link = new NotedLink(sim, world)
    this.subscription = new Subscription(sim, world, this.#listeners)
    this.queues = this.#queueStore()
    this.topics = this.#topicStore()
    this.places = unused()
    this.objects = unused()
  }

  get process(): number {
    return this.#sim.id
  }

  get online(): boolean {
    return this.subscription.subscribed
  }

  open(onChange: () => void): () => void {
    const { server, random, plan } = this.#world
    const listener = { up: onChange, down: onChange }
    this.#listeners.add(listener)
    server.join(this.inbox, this)
    this.subscription.connect(random.exponential(plan.latency))
    return () => this.#listeners.delete(listener)
  }

  signal(address: string, signal: QueueSignal): boolean {
    return this.subscription.send(() => {
      this.#world.history.say(() => `p${this.process} is told: ${signal}`)
      this.#attachments.get(address)?.onSignal(signal)
    }, false)
  }

  hear(topic: string, life: string, first: number, messages: readonly Buffer[]): void {
    this.subscription.send(() => {
      for (const listener of [...(this.#subscribers.get(topic) ?? [])])
        listener.onMessages(life, first, messages)
    }, false)
  }

  #call<T>(name: string, run: (isRepeated: boolean) => T, within: number): Promise<T> {
    return this.link.call(`p${this.process} ${name}`, async (isRepeated) => run(isRepeated), within)
  }

  #queueStore(): QueueStore {
    const port = this.#port
    return {
      listen: (listener) => {
        const address = this.inbox + newId()
        const connection = { up: () => listener.onUp(), down: () => {} }
        this.#attachments.set(address, listener)
        this.#listeners.add(connection)
        const end = () => {
          this.#attachments.delete(address)
          this.#listeners.delete(connection)
        }
        return { address, end }
      },
      attach: (queue, request, within) =>
        this.#call(`attach ${queue}`, () => port.attach(queue, request), within),
      detach: (queue, address, within) =>
        this.#call(`detach ${queue}`, () => port.detach(queue, address), within),
      renew: async (renewals, within) => {
        const run = () => renewals.map(({ queue, address }) => port.renew(queue, address))
        return this.#call('renew', run, within).catch((error: Error) => renewals.map(() => error))
      },
      push: (queue, request, within) =>
        this.#call(
          `push ${queue} ${request.number}: ${request.messages.length}`,
          (isRepeated) => {
            const reply = port.push(queue, request)
            return reply.kind === 'detached' ? { ...reply, isRepeated } : reply
          },
          within,
        ),
      consume: (queue, request, within) =>
        this.#call(`consume ${queue}`, () => port.consume(queue, request), within),
      take: (queue, request, within) => {
        const { acked, have, want } = request
        return this.#call(
          `take ${queue} acked ${acked} have ${have} want ${want}`,
          () => port.take(queue, request),
          within,
        )
      },
      leave: (queue, request, within) =>
        this.#call(
          `leave ${queue} acked ${request.acked} unhanded ${request.unhanded}`,
          () => port.leave(queue, request),
          within,
        ),
      read: (queue, address, after, want, within) =>
        this.#call(`read ${queue} after ${after}`, () => port.read(queue, address, after, want), within),
      inspect: (queue, within) => this.#call(`inspect ${queue}`, () => port.inspect(queue), within),
      flush: (queue, within) => this.#call(`flush ${queue}`, () => port.flush(queue), within),
      remove: (queue, address, within) =>
        this.#call(`remove ${queue}`, () => port.remove(queue, address), within),
      readMetadata: async () => new Map(),
      writeMetadata: async () => 'none',
    }
  }

  #topicStore(): TopicStore {
    const port = this.#port
    return {
      publish: (topic, request, within) =>
        this.#call(`publish ${topic} ${request.number}`, () => port.publish(topic, request), within),
      listen: (topic, listener) => {
        const known = this.#subscribers.get(topic) ?? new Set()
        this.#subscribers.set(topic, known.add(listener))
        const connection = { up: () => listener.onUp(), down: () => listener.onDown() }
        this.#listeners.add(connection)
        if (this.online)
          this.#sim.at(this.#sim.clock.now(), () => known.has(listener) && this.online && listener.onUp())
        return () => {
          known.delete(listener)
          this.#listeners.delete(connection)
        }
      },
      resume: (topic, life, after, terms, within) =>
        this.#call(`resume ${topic} ${after}`, () => port.resume(topic, life, after, terms), within),
      renew: async (topics, within) => {
        const run = () => {
          for (const [topic, terms] of topics) port.renewTopic(topic, terms)
          return [...topics].map(() => undefined)
        }
        return this.#call('renew topics', run, within).catch((error: Error) => [...topics].map(() => error))
      },
    }
  }

  async close(): Promise<void> {
    this.#listeners.clear()
    this.#world.server.leave(this.inbox)
    this.link.close()
    this.subscription.close()
  }
}

/** With one instance, nothing is looked for; and no object is persisted here. */
function unused<Store extends object>(): Store {
  const refuse = () => {
    throw new Error('Expected no call of this store')
  }
  return new Proxy({} as Store, { get: () => refuse })
}
