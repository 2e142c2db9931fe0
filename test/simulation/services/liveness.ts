import { loadOf } from '../../../src/services/store/service-record.ts'
import { checkDeadline, EPSILON } from './deadline.ts'
import { PLAIN, type ServicesDriver } from './driver.ts'
import type { ServiceCall } from './history.ts'
import type { ServicesActor, ServicesWorld } from './world.ts'

/** A stream whose caller has died is given up after this time, ms. */
const CALLER_LOST = 15_000

/** Checks that everything ends once the faults have stopped: V1, V3 and V4. */
export class ServicesLivenessCheck {
  readonly #world: ServicesWorld
  readonly #driver: ServicesDriver

  constructor(world: ServicesWorld, driver: ServicesDriver) {
    this.#world = world
    this.#driver = driver
  }

  /** Time in which all calls to processes that are dead are over, ms. */
  get #patience(): number {
    const { lease, unavailableAfter, mix } = this.#world.plan
    return 4 * lease + 4 * unavailableAfter + CALLER_LOST + (mix.pemit > 0 ? 20_000 : 0) + 10 * EPSILON
  }

  #violate(guarantee: string, what: string): void {
    this.#world.history.violate(guarantee, what)
  }

  /** Runs the world to its end. */
  async check(): Promise<void> {
    const { scheduler, plan } = this.#world
    for (const { process } of this.#world.actors) process.wake(2)
    await this.#runUntil(() => this.#openCalls().length === 0 && this.#allClosed())
    for (const call of this.#openCalls())
      this.#violate('V1', `#${call.no} of p${call.process} is not settled`)
    await this.#quiet()
    this.#deadlines()
    // Leases are renewed, and what a process had to read is read.
    await scheduler.runUntil(scheduler.now + plan.lease + 2 * plan.unavailableAfter)
    await this.#fresh()
    await this.#quiet()
    await this.#close()
    await this.#leftovers()
  }

  /** Runs the world until `enough`, or for as long as that may take. */
  async #runUntil(enough: () => boolean): Promise<void> {
    const { scheduler } = this.#world
    await scheduler.runUntil(scheduler.now + this.#patience, enough)
  }

  #openCalls(): ServiceCall[] {
    const { history, actors } = this.#world
    return history.calls.filter(({ ended, process }) => !ended && !actors[process]?.process.dead)
  }

  /** Processes that serve, without those that close. */
  #serving(): ServicesActor[] {
    return this.#world.awake().filter(({ serving }) => serving.size > 0)
  }

  /** V4: the load of each process in the record is 0 when all calls are over. */
  async #quiet(): Promise<void> {
    // Streams whose caller is dead may wait behind one another. Each is given up only when nobody has read it for a while.
    for (let before = Number.POSITIVE_INFINITY; this.#served() < before; ) {
      before = this.#served()
      await this.#runUntil(() => this.#loads().length === 0)
    }
    for (const load of this.#loads()) this.#violate('V4', load)
  }

  #served(): number {
    return this.#world.awake().reduce((sum, { services }) => sum + services.stats().serving, 0)
  }

  #loads(): string[] {
    const { server, actors } = this.#world
    const loads: string[] = []
    for (const [service, { processes }] of server.records) {
      for (const [address, entry] of processes) {
        const actor = actors.find(({ endpoint }) => endpoint.address === address)
        if (!actor?.process.awake || actor.closing || loadOf(entry) === 0) continue
        loads.push(`p${actor.process.id} has a load of ${loadOf(entry)} at ${service}, and no call`)
      }
    }
    for (const { process, services } of this.#world.awake()) {
      const { serving } = services.stats()
      if (serving > 0) loads.push(`p${process.id} still serves ${serving} calls`)
    }
    return loads
  }

  #deadlines(): void {
    const { history, actors, scheduler } = this.#world
    for (const call of history.calls) checkDeadline(this.#world, call, call.ended?.at ?? scheduler.now)
    for (const { process: id, ended, deadline } of history.closings) {
      const process = actors[id]?.process
      if (!process || process.diedAt < process.actsAt(deadline) + EPSILON) continue
      if (deadline === Number.POSITIVE_INFINITY) {
        if (!ended && !process.dead) this.#violate('V1', `p${id} is never closed`)
        continue
      }
      if ((ended?.at ?? scheduler.now) <= process.actsAt(deadline) + EPSILON) continue
      if (ended && process.pausedWithin(0, ended.at)) continue
      const late = ended ? `closed ${(ended.at - deadline).toFixed(1)} ms late` : 'never closed'
      this.#violate('V1', `p${id} is ${late}`)
    }
  }

  /** V1, V4: without faults, every process gets a result from every service, and a broadcast reaches all. */
  async #fresh(): Promise<void> {
    const { plan } = this.#world
    for (const service of plan.services) {
      const expected = this.#serving()
        .filter(({ serving }) => serving.has(service))
        .map(({ process }) => process.id)
      const calls = this.#world.awake().map((actor) => {
        const mode = this.#world.random.pick(['emit', 'stream', 'broadcast'] as const)
        // One at a time may find all processes full.
        const tries = mode === 'emit' ? ({ mode: 'pemit', tries: 20 } as const) : { mode }
        return this.#driver.call(actor, { ...PLAIN, ...tries, service })
      })
      let settled = 0
      for (const call of calls) {
        void call.then(({ ended, no, mode }) => {
          settled++
          const { ending } = ended ?? {}
          const busy = mode === 'stream' && ending?.kind === 'error' && ending.code === 'E_BUSY'
          if (ending?.kind !== 'value' && !busy)
            this.#violate('V1', `fresh #${no} has ${JSON.stringify(ended)}`)
          if (mode === 'broadcast' && ending?.kind === 'value' && ending.identity !== expected.join(' '))
            this.#violate('V4', `#${no} has answers of ${ending.identity}, not of ${expected.join(' ')}`)
        })
      }
      await this.#runUntil(() => settled === calls.length)
      if (settled < calls.length) this.#violate('V1', `${calls.length - settled} fresh calls are not settled`)
    }
  }

  #allClosed(): boolean {
    const { history, actors } = this.#world
    return history.closings.every(({ ended, process }) => ended || actors[process]?.process.dead)
  }

  async #close(): Promise<void> {
    for (const actor of this.#world.awake()) void this.#driver.close(actor, 1000)
    await this.#runUntil(() => this.#allClosed())
    this.#deadlines()
  }

  /** Nothing is left, neither in the store nor in a process. */
  async #leftovers(): Promise<void> {
    const { server, plan, actors, scheduler } = this.#world
    await scheduler.runUntil(scheduler.now + plan.lease + CALLER_LOST + EPSILON)
    for (const service of plan.services) {
      for (let count = 0; count < 5; count++) server.apply(service, (record, at) => record.check('', at))
      const left = server.records.get(service)?.processes.size ?? 0
      if (left > 0) this.#violate('V4', `${left} processes of ${service} are left`)
    }
    for (const { process, services } of actors) {
      if (process.dead) continue
      const { calling, serving } = services.stats()
      const left = Object.entries({ calling, serving, timers: process.timers }).filter(
        ([, count]) => count > 0,
      )
      if (left.length > 0) this.#violate('V4', `p${process.id} has left ${JSON.stringify(left)}`)
    }
  }
}
