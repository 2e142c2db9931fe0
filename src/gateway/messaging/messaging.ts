import { LRUCache } from 'lru-cache'
import { Bus, type Pubsub, type PubsubOptions } from '../../bus/index.ts'
import { ClosedError } from '../../errors.ts'
import { JsonText } from '../../kernel/codec/json-text.ts'
import { jsonTextCodec } from '../../kernel/codec/json-text-codec.ts'
import type { Connection } from '../../kernel/redis/connection.ts'
import type { Clock } from '../../kernel/time.ts'
import { type MemoryServices, Services } from '../../services/index.ts'

/** What a gateway was given, and what it makes the rest from. */
export interface MessagingDeps {
  readonly services: Services | undefined
  readonly bus: Bus | undefined
  /** Undefined: embedded. */
  readonly connection: Connection | undefined
  /** Of its own services, if it is embedded. */
  readonly servicesStore: MemoryServices
  readonly clock: Clock
  readonly prefix: string
  /** Largest message, in bytes. */
  readonly maxMessage: number
}

/** The largest message that a bus and services allow, in bytes. */
const MAX_MESSAGE = 16 * 1024 * 1024

/** Topics whose publishers are kept. */
const MAX_TOPICS = 1_000

/**
 * The services and the bus of a gateway: those that it was given, which stay open, or its own, which are made when a route
 * first needs them, on the connection of the gateway.
 */
export class Messaging {
  readonly #deps: MessagingDeps
  #services: Services | undefined
  #bus: Bus | undefined
  /** Topics that were published to lately. Each is one publisher, of which the topic keeps a record for a minute. */
  readonly #topics = new LRUCache<string, Pubsub>({ max: MAX_TOPICS })
  #isClosed = false

  constructor(deps: MessagingDeps) {
    this.#deps = deps
  }

  /** @throws ClosedError after `close`. */
  get services(): Services {
    this.#assertOpen()
    this.#services ??= this.#deps.services ?? this.#ownServices()
    return this.#services
  }

  /** @throws ClosedError after `close`. */
  get bus(): Bus {
    this.#assertOpen()
    this.#bus ??= this.#deps.bus ?? this.#ownBus()
    return this.#bus
  }

  /** Publishes a message. @throws as `publish` of a Pubsub. */
  async publish(topic: string, json: JsonText, options: PubsubOptions = {}): Promise<void> {
    const key = JSON.stringify([topic, options.keep, options.retain, options.ttl])
    const known = this.#topics.get(key)
    const pubsub = known ?? this.bus.pubsub(topic, options)
    if (!known) this.#topics.set(key, pubsub)
    await pubsub.publish(this.message(json))
  }

  /** A message of a client, for the codec of the bus: kept byte for byte by our own, and as its value by that of another. */
  message(json: JsonText): unknown {
    return this.#deps.bus ? json.value : json
  }

  /** The arguments of a call, whose texts are JSON, for the codec of the services: see {@link message}. */
  arguments(texts: readonly string[]): unknown[] {
    return texts.map((text) => (this.#deps.services ? JSON.parse(text) : JsonText.parse(text)))
  }

  #ownServices(): Services {
    const { connection, servicesStore } = this.#deps
    return new Services({
      ...this.#own(),
      ...(connection ? { redis: connection } : { store: servicesStore }),
    })
  }

  #ownBus(): Bus {
    const { connection, clock } = this.#deps
    return new Bus({ ...this.#own(), ...(connection ? { redis: connection } : { redis: null, clock }) })
  }

  #own() {
    const { prefix, maxMessage } = this.#deps
    return {
      prefix,
      maxMessage: Math.min(maxMessage, MAX_MESSAGE),
      codec: jsonTextCodec,
    }
  }

  #assertOpen(): void {
    if (this.#isClosed) throw new ClosedError('The gateway is closed')
  }

  /** Closes what was made here. Never rejects. */
  async close(): Promise<void> {
    this.#isClosed = true
    const { services, bus } = this.#deps
    await Promise.all([
      services ? undefined : this.#services?.close({ grace: 0 }),
      bus ? undefined : this.#bus?.disconnect({ grace: 0 }),
    ])
  }
}
