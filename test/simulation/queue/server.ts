import { ID_LENGTH } from '../../../src/kernel/keys.ts'
import { InMemoryBroker } from '../../../src/queue/store/in-memory-broker.ts'
import { QueueModel } from '../../../src/queue/store/model/queue-model.ts'
import type { TransitionContext, WorkerNotice } from '../../../src/queue/store/model/queue-state.ts'
import type { Delivery, JobNotice } from '../../../src/queue/store/store.ts'
import type { Scheduler } from '../locker/scheduler.ts'

/** A process, as the server sees it. */
export interface QueueParty {
  readonly process: number
  /** The highest fence that the process has seen. */
  readonly seen: number
  /** Accept timeout of deliveries that the process causes, ms. */
  readonly accept: number
  /** Sends deliveries to a worker of the process. Returns whether they were received, as far as the server knows. */
  deliver(nonce: string, deliveries: Delivery[], now: number): boolean
  tell(nonce: string, notice: JobNotice): void
  warn(nonce: string, notice: WorkerNotice): void
  call(): void
}

/** Observer of the server. */
export interface QueueWatcher {
  delivered(party: QueueParty, deliveries: Delivery[]): void
  changed(): void
}

/** Interval of the sweep of expired records, ms. */
const SWEEP_EVERY = 1000

/** The store that all processes share: the queue model in memory. Its messages are sent over the subscriptions. */
export class QueueServer extends InMemoryBroker {
  /** Replaces the context of every transition. */
  alter: (at: TransitionContext) => TransitionContext = (at) => at
  /** The server answers nothing before this time. */
  frozenUntil = 0
  watcher: QueueWatcher | undefined
  readonly #scheduler: Scheduler
  readonly #parties = new Map<string, QueueParty>()
  #acting: QueueParty | undefined
  #turn = 0
  #sweeping = false

  constructor(scheduler: Scheduler) {
    super({
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

  join(inbox: string, party: QueueParty): void {
    this.#parties.set(inbox, party)
  }

  leave(inbox: string): void {
    this.#parties.delete(inbox)
    this.hub.disconnect(inbox)
  }

  /** Runs a request of a process. */
  act<T>(party: QueueParty, run: () => T): T {
    this.#acting = party
    return run()
  }

  override apply<T>(transition: (model: QueueModel, context: TransitionContext) => T): T {
    const reply = super.apply((model, context) => transition(model, this.alter(this.#around(context))))
    this.watcher?.changed()
    this.#sweepLater()
    return reply
  }

  #around(at: TransitionContext): TransitionContext {
    return {
      ...at,
      micros: Math.floor(at.now * 1000),
      highestFence: this.#acting?.seen ?? 0,
      batchIndex: ++this.#turn,
      acceptWithin: this.#acting?.accept ?? 100,
      deliver: (worker, deliveries) => this.#handOut(worker, deliveries),
      notifyWaiter: (park, notice) => this.#party(park)?.tell(park.slice(ID_LENGTH), notice),
      notifyWorker: (worker, notice) => this.#party(worker)?.warn(worker.slice(ID_LENGTH), notice),
      broadcastWork: () => {
        for (const party of this.#parties.values()) party.call()
      },
    }
  }

  #party(name: string): QueueParty | undefined {
    return this.#parties.get(name.slice(0, ID_LENGTH))
  }

  #handOut(worker: string, deliveries: Delivery[]): boolean {
    const party = this.#party(worker)
    if (!party) return false
    this.watcher?.delivered(party, deliveries)
    return party.deliver(worker.slice(ID_LENGTH), deliveries, this.now)
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
