import { WAIT_RETENTION } from '../../../src/locker/store/store.ts'
import { checkDeadlines, EPSILON } from '../deadlines.ts'
import { DETECTED_WITHIN } from '../subscription.ts'
import type { Driver } from './driver.ts'
import type { LockerFaults } from './faults.ts'
import { recordOf } from './keys.ts'
import type { Actor, World } from './world.ts'

/** Checks that everything ends after the faults have stopped: L1, L2, L4 and L5. */
export class LivenessCheck {
  readonly #world: World
  readonly #driver: Driver
  readonly #faults: LockerFaults

  constructor(world: World, driver: Driver, faults: LockerFaults) {
    this.#world = world
    this.#driver = driver
    this.#faults = faults
  }

  /** When the leases of dead holders must have been taken over, ms. */
  get #patience(): number {
    const { plan, setBack } = this.#world
    return Math.max(...plan.leases) + setBack + 26 + EPSILON
  }

  /** L2: without faults, a released lease is granted to a waiter at once. */
  watch(): void {
    const { recorder, plan, scheduler, server, actors } = this.#world
    const { calm, latency } = plan
    if (!calm) return
    recorder.givenUp = (key, parked) => {
      if (parked > 0) this.#violate('L2', `${key} was given up, with ${parked} parked`)
    }
    recorder.freed = (key) => {
      const freed = server.find(recordOf(key))?.fence
      scheduler.after(50 * latency + EPSILON / 10, () => {
        const record = server.find(recordOf(key))
        const waits = server
          .parked(recordOf(key), 'claims')
          .some((party) => actors.some(({ endpoint }) => endpoint === party && endpoint.subscribed))
        // Released again meanwhile: that release is checked by itself.
        if (record && record.fence === freed && !record.lease && waits)
          this.#violate('L2', `${key} was let go, and who waits was not told`)
      })
    }
  }

  /** Runs a world to its end. */
  async check(): Promise<void> {
    const { random, scheduler, plan } = this.#world
    if (random.chance(0.5)) this.#killHolder()
    for (const { process } of this.#world.actors) process.wake(2)
    const begun = scheduler.now
    const fresh = this.#world.awake().flatMap((actor) => plan.keys.map((key) => this.#fresh(actor, key)))
    let settled = 0
    for (const call of fresh) void call.then(() => settled++)
    await scheduler.runUntil(begun + this.#patience, () => settled === fresh.length)
    // Evicted records are computed again: where Redis evicts, leases are not guaranteed.
    if (settled < fresh.length && !plan.evicts)
      this.#violate('L2', `${fresh.length - settled} fresh calls are not settled within a lease`)
    await scheduler.runUntil(begun + this.#patience)
    checkDeadlines(
      this.#world,
      this.#world.history.calls,
      ({ id, process, key }) => `#${id} of p${process} for ${key}`,
    )
    await this.#probe()
    const actor = random.pick(this.#world.awake())
    const anew = plan.keys.map((key) => this.#anew(actor, key))
    let renewed = 0
    for (const call of anew) void call.then(() => renewed++)
    await scheduler.runUntil(scheduler.now + 2 * this.#patience)
    if (renewed < anew.length)
      this.#violate('L2', `${anew.length - renewed} refreshing calls are not settled`)
    this.#grants()
    this.#leftovers()
    const { tolerances, passes } = plan.fresh
    const kept = Math.max(...plan.ttls) + Math.max(...tolerances, ...passes) + WAIT_RETENTION
    await scheduler.runUntil(scheduler.now + kept + this.#patience * 2 + 3000)
    if (this.#world.server.size > 0) this.#violate('L5', `${this.#world.server.size} records are left`)
  }

  #violate(guarantee: string, what: string): void {
    this.#world.history.violate(guarantee, what)
  }

  /** Kills a process that holds a lease for which others wait. */
  #killHolder(): void {
    const { grants } = this.#world.history
    const grant = grants.findLast(({ over, process }) => !over && this.#world.actors[process]?.process.awake)
    const holder = grant && this.#world.actors[grant.process]
    if (!holder || this.#world.awake().length < 2) return
    this.#faults.kill(holder)
    holder.endpoint.subscription.forsake(true)
  }

  /** A call that must have a result. */
  async #fresh(actor: Actor, key: string): Promise<void> {
    const { ended } = await this.#driver.run(actor, key, { timeout: Number.POSITIVE_INFINITY })
    if (ended?.ending.kind !== 'error') return
    const { code, identity } = ended.ending
    // An earlier failure may be kept; and without takeover, waiters for a dead holder call again.
    if (code === 'E_REMOTE') return
    if (code === 'E_LOCK_TIMEOUT' && !actor.options.takeover) return this.#fresh(actor, key)
    this.#violate('L2', `a fresh call of ${key} rejects with ${code}: ${identity}`)
  }

  /** Calls once more when all messages have arrived: checks what the caches still have. */
  async #probe(): Promise<void> {
    const { scheduler, plan } = this.#world
    await scheduler.runUntil(scheduler.now + DETECTED_WITHIN)
    for (const actor of this.#world.awake()) {
      for (const key of plan.keys) void this.#driver.run(actor, key, {})
    }
  }

  /** A call that must run its work, since there are no faults. */
  async #anew(actor: Actor, key: string): Promise<void> {
    const { ended } = await this.#driver.run(actor, key, { refresh: true, timeout: Number.POSITIVE_INFINITY })
    if (ended?.ending.kind !== 'value')
      this.#violate('L2', `a last call of ${key} has ${JSON.stringify(ended)}`)
  }

  /** L4: a grant that reached a process is used or released. */
  #grants(): void {
    const { history, actors } = this.#world
    const used = new Set(history.works.map(({ key, fence }) => `${key} ${fence}`))
    for (const { key, fence, process: id, delivered, returned, settling } of history.grants) {
      const actor = actors[id]
      // A grant whose work waited too long for its slot is not used.
      if (
        !delivered ||
        returned ||
        settling ||
        !actor ||
        actor.process.dead ||
        actor.options.concurrency !== Infinity
      )
        continue
      if (!used.has(`${key} ${fence}`))
        this.#violate('L4', `p${id} neither used nor gave back its grant ${fence} of ${key}`)
    }
  }

  /** L5: nothing is left. */
  #leftovers(): void {
    const { server, plan, actors, scheduler } = this.#world
    for (const key of plan.keys) {
      const name = recordOf(key)
      const lease = server.find(name)?.lease
      if (lease && lease.expiresAt > server.clock.now())
        this.#violate('L4', `${key} is still leased to ${lease.token.slice(22, 26)}`)
      const living = server
        .parked(name)
        .filter((party) => actors.some(({ endpoint, process }) => endpoint === party && !process.dead))
      if (living.length > 0) this.#violate('L5', `${living.length} are still parked on ${key}`)
    }
    for (const { process, locker, endpoint } of actors) {
      if (process.dead) continue
      const { flights, waiters, running, queued, held } = locker.stats()
      const left = {
        flights,
        waiters,
        running,
        queued,
        held,
        listening: endpoint.listening,
        timers: process.timers,
      }
      const what = Object.entries(left).filter(([, count]) => count !== 0)
      if (what.length > 0)
        this.#violate(
          'L5',
          `p${process.id} has left ${what.map(([name, count]) => `${name} ${count}`).join(', ')} at ${scheduler.now}`,
        )
    }
  }
}
