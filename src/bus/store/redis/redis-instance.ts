import type { CommandSender } from '../../../kernel/redis/call.ts'
import type { BackendOptions, Connection } from '../../../kernel/redis/connection.ts'
import { connectionFor } from '../../../kernel/redis/connection.ts'
import type { Clock } from '../../../kernel/time.ts'
import type { Instance, ObjectStore, PlaceStore, QueueStore, TopicStore } from '../store.ts'
import { RedisObjectStore } from './objects/object-store.ts'
import { RedisPlaceStore } from './places/place-store.ts'
import { RedisQueueStore } from './queues/queue-store.ts'
import { RedisTopicStore } from './topics/topic-store.ts'

/** Time for the reply to a probe, and the pause before the next one, ms. */
const PROBE_TIMEOUT = 1_000
const PROBE_PAUSE = 100

/**
 * One Redis as an instance of a bus. Online: the subscription is established, and a command was answered since then. Its name
 * is the address, without credentials.
 */
export class RedisInstance implements Instance {
  readonly name: string
  readonly connection: Connection
  readonly queues: QueueStore
  readonly topics: TopicStore
  readonly objects: ObjectStore
  readonly places: PlaceStore
  readonly #release: () => Promise<void>
  #isOnline = false
  /** Of the probe whose answer counts. */
  #probe = 0
  /** Set by {@link open}. */
  #onChange = () => {}

  /** Does not connect. Undefined if the options name no Redis. @throws TypeError if they are invalid. */
  static for(options: BackendOptions, prefix: string): RedisInstance | undefined {
    const link = connectionFor(options, 'Bus')
    return link && new RedisInstance(link.connection, prefix, link.release)
  }

  private constructor(connection: Connection, prefix: string, release: () => Promise<void>) {
    this.name = connection.address
    this.connection = connection
    this.queues = new RedisQueueStore(connection, prefix)
    this.topics = new RedisTopicStore(connection, prefix)
    this.objects = new RedisObjectStore(connection, prefix)
    this.places = new RedisPlaceStore(connection, prefix)
    this.#release = release
  }

  get clock(): Clock {
    return this.connection.clock
  }

  get online(): boolean {
    return this.#isOnline
  }

  open(onChange: () => void): () => void {
    this.#onChange = onChange
    const unlisten = this.connection.listen({
      up: () => void this.#confirm(),
      down: () => this.#set(false),
      broadcast: () => {},
    })
    this.connection.open()
    // The connection may be shared, and open.
    if (this.connection.subscribed) void this.#confirm()
    return () => {
      unlisten()
      this.#onChange = () => {}
      this.#set(false)
    }
  }

  /** The subscription is established: sends commands until one is answered. Never rejects. */
  async #confirm(): Promise<void> {
    const probe = ++this.#probe
    for (;;) {
      const isAnswered = await this.connection.call(TIME, PROBE_TIMEOUT).then(
        () => true,
        () => false,
      )
      if (probe !== this.#probe) return
      if (isAnswered) return this.#set(true)
      await new Promise<void>((resolve) => this.clock.after(PROBE_PAUSE, resolve, true))
      if (probe !== this.#probe) return
    }
  }

  #set(isOnline: boolean): void {
    this.#probe++
    if (isOnline === this.#isOnline) return
    this.#isOnline = isOnline
    this.#onChange()
  }

  /** Closes the connection if it was made for this instance. */
  close(): Promise<void> {
    return this.#release()
  }
}

const TIME = { send: (sender: CommandSender) => sender.send('time', []) }
