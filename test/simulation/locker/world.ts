import { Locker } from '../../../src/locker/locker.ts'
import type { LockerOptions } from '../../../src/locker/options.ts'
import { MemoryStore } from '../../../src/locker/store/memory-store.ts'
import type { Store } from '../../../src/locker/store/store.ts'
import { SimProcess } from '../process.ts'
import type { Scheduler } from '../scheduler.ts'
import { type SimActor, SimWorld } from '../world.ts'
import { Endpoint } from './endpoint.ts'
import { type GrantRecord, LockerHistory } from './history.ts'
import type { Mutation } from './mutation.ts'
import { type Plan, planOf } from './plan.ts'
import { portOf } from './port.ts'
import { Recorder } from './recorder.ts'
import { SimServer } from './server.ts'

/** The memory store as one process uses it: by its own clock, over its own connections. */
class ProcessStore extends MemoryStore {
  readonly #store: Store

  constructor(process: SimProcess, store: Store) {
    super({ clock: process.clock })
    this.#store = store
  }

  override connect(): Store {
    return this.#store
  }
}

/** A process with its locker. */
export interface Actor extends SimActor {
  endpoint: Endpoint
  locker: Locker
  options: LockerOptions
}

/** All parts of a run. */
export class World extends SimWorld<Actor> {
  readonly plan: Plan
  readonly server: SimServer
  readonly history: LockerHistory
  readonly recorder: Recorder
  /** How far the server's clock was set back in all, ms: leases last so much longer. */
  setBack = 0
  readonly #mutation: Mutation | undefined

  constructor(seed: number, scheduler: Scheduler, traced: boolean, mutation?: Mutation) {
    super(seed, scheduler)
    this.plan = planOf(this.random)
    mutation?.plan?.(this.plan)
    this.history = new LockerHistory(() => scheduler.now, traced)
    this.server = new SimServer(scheduler, this.plan.evicts ? 1 : 100_000)
    this.recorder = new Recorder(this.history, this.server, !this.plan.evicts)
    this.#mutation = mutation
    if (mutation?.surroundings) this.server.alter = mutation.surroundings
  }

  /** Starts another process. */
  spawn(): Actor {
    const process = new SimProcess(this.actors.length, this.scheduler)
    const options = this.#options()
    const port = portOf(this.server.connect())
    const endpoint = new Endpoint(process, this, this.#mutation?.server?.(port, this.server) ?? port)
    const store = this.#mutation?.client?.(endpoint, this, process) ?? endpoint
    const locker = new Locker({ ...options, store: new ProcessStore(process, store) })
    const actor = { process, endpoint, locker, options, closing: false }
    this.actors.push(actor)
    this.history.say(() => `p${process.id} starts ${JSON.stringify(options)}`)
    return actor
  }

  #options(): LockerOptions {
    const { random, plan } = this
    return {
      cache: random.chance(plan.cached) ? { max: 10, maxSize: 1_000_000 } : false,
      lease: random.pick(plan.leases),
      ttl: random.pick(plan.ttls),
      errorTtl: random.chance(0.7) ? 0 : random.pick(plan.ttls),
      ttlJitter: random.chance(0.8) ? 0 : random.next(),
      unavailableAfter: plan.unavailableAfter,
      onUnavailable: random.chance(0.85) ? 'fail' : 'local',
      takeover: !random.chance(0.1),
      concurrency: random.chance(0.8) ? Number.POSITIVE_INFINITY : 1 + random.below(2),
      maxHold: plan.maxHold,
      ...(random.chance(plan.fresh.content / 2) && {
        staleWhileRevalidate: random.pick([0, ...plan.fresh.tolerances]),
        staleIfError: random.pick([0, ...plan.fresh.tolerances]),
      }),
    }
  }

  /** A grant that the store made. */
  grant(key: string, fence: number): GrantRecord | undefined {
    return this.history.grants.findLast((grant) => grant.key === key && grant.fence === fence)
  }
}
