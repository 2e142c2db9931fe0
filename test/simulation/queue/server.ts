import { ID_LENGTH } from '../../../src/kernel/keys.ts'
import { InMemoryBroker } from '../../../src/queue/store/in-memory-broker.ts'
import { QueueModel } from '../../../src/queue/store/model/queue-model.ts'
import type { TransitionContext, WorkerNotice } from '../../../src/queue/store/model/queue-state.ts'
import type { Delivery, JobNotice } from '../../../src/queue/store/store.ts'
import type { Scheduler } from '../scheduler.ts'

/** A process, as the server sees it. */
export interface QueuePeer {
  readonly process: number
  /** The highest fence that the process has seen. */
  readonly highestFence: number
  /** Whether an address is that of a worker of takers. */
  isTakers(worker: string): boolean
  /** Accept timeout of deliveries that the process causes, ms. */
  readonly acceptWithin: number
  /** Sends deliveries to a worker of the process. Returns whether they were received, as far as the server knows. */
  deliver(nonce: string, deliveries: Delivery[], now: number): boolean
  notifyWaiter(nonce: string, notice: JobNotice): void
  notifyWorker(nonce: string, notice: WorkerNotice): void
  broadcastWork(): void
}

/** Observer of the server. */
export interface QueueWatcher {
  delivered(peer: QueuePeer, deliveries: Delivery[], worker: string): void
  changed(): void
}

/** Interval of the sweep of expired records, ms. */
const SWEEP_EVERY = 1000

/** The store that all processes share: the queue model in memory. Its messages are sent over the subscriptions. */
export class QueueServer extends InMemoryBroker {
  /** Replaces the context of every transition. */
  alterContext: (at: TransitionContext) => TransitionContext = (at) => at
  /** The server answers nothing before this time. */
  frozenUntil = 0
  watcher: QueueWatcher | undefined
  readonly #scheduler: Scheduler
  readonly #peers = new Map<string, QueuePeer>()
  #acting: QueuePeer | undefined
  #turn = 0
  #sweeping = false

  constructor(scheduler: Scheduler) {
    super({
      name: 'queue',
      clock: {
        now: () => scheduler.now + 1e9,
        after: (ms, run) => {
          const entry = scheduler.after(ms, run)
          return {
            cancel: () => {
              entry.run = undefined
            },
          }
        },
      },
      deliver: (message) => message(),
      maxParked: 1000,
      acceptWithin: 0,
      onChange: () => {},
      // Replaced in `apply` by the values of the acting process.
      numbers: () => ({ micros: 0, highestFence: 0, batchIndex: 0 }),
    })
    this.#scheduler = scheduler
  }

  join(inbox: string, peer: QueuePeer): void {
    this.#peers.set(inbox, peer)
  }

  leave(inbox: string): void {
    this.#peers.delete(inbox)
    this.hub.disconnect(inbox)
  }

  /** Runs a request of a process. */
  act<T>(peer: QueuePeer, run: () => T): T {
    this.#acting = peer
    return run()
  }

  override apply<T>(transition: (model: QueueModel, context: TransitionContext) => T): T {
    const reply = super.apply((model, context) =>
      transition(model, this.alterContext(this.#contextOf(context))),
    )
    this.watcher?.changed()
    this.#sweepLater()
    return reply
  }

  #contextOf(at: TransitionContext): TransitionContext {
    return {
      ...at,
      micros: Math.floor(at.now * 1000),
      highestFence: this.#acting?.highestFence ?? 0,
      batchIndex: ++this.#turn,
      acceptWithin: this.#acting?.acceptWithin ?? 100,
      deliver: (worker, deliveries) => this.#handOut(worker, deliveries),
      notifyWaiter: (park, notice) => this.#peer(park)?.notifyWaiter(park.slice(ID_LENGTH), notice),
      notifyWorker: (worker, notice) => this.#peer(worker)?.notifyWorker(worker.slice(ID_LENGTH), notice),
      broadcastWork: () => {
        for (const peer of this.#peers.values()) peer.broadcastWork()
      },
    }
  }

  #peer(name: string): QueuePeer | undefined {
    return this.#peers.get(name.slice(0, ID_LENGTH))
  }

  #handOut(worker: string, deliveries: Delivery[]): boolean {
    const peer = this.#peer(worker)
    if (!peer) return false
    this.watcher?.delivered(peer, deliveries, worker)
    return peer.deliver(worker.slice(ID_LENGTH), deliveries, this.now)
  }

  #sweepLater(): void {
    if (this.#sweeping) return
    this.#sweeping = true
    this.#scheduler.after(SWEEP_EVERY, () => {
      this.#sweeping = false
      this.sweep()
    })
  }

  freeze(ms: number): void {
    this.frozenUntil = Math.max(this.frozenUntil, this.#scheduler.now + ms)
  }

  /** Loses all records, without a message. */
  wipe(): void {
    Object.assign(this, { model: new QueueModel() })
  }
}
