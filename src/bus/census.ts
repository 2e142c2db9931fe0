import type { CensusMember } from '../kernel/census.ts'
import { wallMicros } from '../kernel/time.ts'
import type { Queue } from './queue/queue.ts'
import type { Instance } from './store/store.ts'

/** The name of the layer in a census. */
const LAYER = 'bus'

/** What a process says about a queue that it is attached to, on the instance that is asked. */
export interface AttachedQueueInfo {
  readonly prefix: string
  readonly queue: string
  /** When it was attached, by the wall clock of its host: ms since the epoch. */
  readonly since: number
  readonly consuming: boolean
  /** By this object. */
  readonly pushed: number
  readonly consumed: number
}

interface Attached {
  readonly since: number
  /** Undefined until it is known. */
  instance: Instance | undefined
}

/** The queues of a bus that are attached. */
export class AttachedQueues {
  readonly #queues = new Map<Queue<never>, Attached>()

  /** Follows a queue: it is in the census while it is attached. `find`: where it is. */
  follow<M>(queue: Queue<M>, now: () => number, find: () => Promise<Instance | undefined>): void {
    const key = queue as unknown as Queue<never>
    queue.on('attached', () => {
      const attached: Attached = { since: Math.floor(wallMicros(now()) / 1000), instance: undefined }
      this.#queues.set(key, attached)
      // It was just looked up. Without an answer the queue is left out.
      find().then(
        (instance) => {
          attached.instance = instance
        },
        () => {},
      )
    })
    for (const event of ['detached', 'closed'] as const) queue.on(event, () => this.#queues.delete(key))
  }

  /** Adds what is attached on an instance to the answers to a census there. The returned function ends that. */
  contribute(census: CensusMember, instance: Instance, prefix: string): () => void {
    return census.contribute(LAYER, ({ filter }) => this.#answer(instance, prefix, filter))
  }

  /** `filter`: the name of one queue. */
  *#answer(instance: Instance, prefix: string, filter: string | undefined): Generator<AttachedQueueInfo> {
    for (const [queue, { since, instance: its }] of this.#queues) {
      if (its !== instance || (filter !== undefined && filter !== queue.name)) continue
      const activity = { pushed: queue.pushed(), consumed: queue.consumed() }
      yield { prefix, queue: queue.name, since, consuming: queue.isConsuming(), ...activity }
    }
  }
}
