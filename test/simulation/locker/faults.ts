import type { Driver } from './driver.ts'
import { recordOf } from './keys.ts'
import type { Fault } from './plan.ts'
import { DETECTED_WITHIN } from './subscription.ts'
import type { Actor, World } from './world.ts'

/**
 * Latency once the faults have stopped, at most, ms. The tolerance of L2 is for a quiet network: it is not for the round
 * trips of a slow one.
 */
const QUIET_LATENCY = 0.2

/** Injects faults into a world, each kind as often as the plan says, until it is stopped. */
export class Faults {
  readonly #world: World
  readonly #driver: Driver

  constructor(world: World, driver: Driver) {
    this.#world = world
    this.#driver = driver
  }

  /** Schedules all faults. */
  schedule(): void {
    const { plan, random, scheduler } = this.#world
    for (const [fault, often] of Object.entries(plan.faults) as [Fault, number][]) {
      if (often === 0) continue
      for (let at = random.exponential(plan.duration / often); at < plan.duration; ) {
        scheduler.at(at, () => this.#cause(fault))
        at += random.exponential(plan.duration / often)
      }
    }
  }

  #cause(fault: Fault): void {
    const { random, plan, server, history, scheduler } = this.#world
    const lease = plan.leases[0] ?? 100
    const actor = random.pick(this.#world.actors)
    history.say(() => `--- ${fault} p${actor.process.id}`)
    switch (fault) {
      case 'pause':
        actor.process.pause()
        scheduler.after(lease * random.between(0, 3), () => this.#resume(actor))
        break
      case 'kill':
        this.kill(actor)
        this.#replace()
        break
      case 'cut':
        actor.endpoint.link.cut(lease * random.between(0, 1.5), random.chance(0.8))
        break
      case 'deafen': {
        const silently = random.chance(0.5)
        const noticedAfter = silently ? random.between(0, DETECTED_WITHIN) : random.exponential(plan.latency)
        actor.endpoint.subscription.lose(silently, noticedAfter, random.between(20, 1000))
        break
      }
      case 'freeze':
        server.freeze(lease * random.between(0, 2))
        break
      case 'close':
        if (actor.closing || !actor.process.awake) break
        void this.#driver.close(actor, random.chance(0.3) ? 0 : lease * random.between(0, 3))
        this.#replace()
        break
      case 'flush':
        for (const key of plan.keys) server.forget(recordOf(key))
        this.#world.recorder.lost()
        break
      case 'step':
        this.#step(lease * random.between(-5, 5))
    }
  }

  #resume(actor: Actor): void {
    const { random, history } = this.#world
    history.say(() => `--- p${actor.process.id} goes on`)
    actor.process.resume((backlog) =>
      random.chance(0.5)
        ? backlog
        : backlog
            .map((run) => ({ run, at: random.next() }))
            .sort((a, b) => a.at - b.at)
            .map(({ run }) => run),
    )
  }

  #step(ms: number): void {
    const { server, history } = this.#world
    server.step(ms)
    history.disasters.push(history.moment())
    this.#world.setBack += Math.max(0, -ms)
  }

  /** Kills a process. The server knows at once, or finds out later. */
  kill(actor: Actor): void {
    const { random } = this.#world
    if (actor.process.dead) return
    this.#world.history.say(() => `--- p${actor.process.id} is dead`)
    actor.process.kill()
    actor.endpoint.subscription.forsake(random.chance(0.7))
  }

  #replace(): void {
    if (this.#world.random.chance(0.8)) this.#world.spawn()
  }

  /** Ends all faults. */
  stop(): void {
    const { actors, plan } = this.#world
    this.#world.healed = true
    const latency = Math.min(plan.latency, QUIET_LATENCY)
    Object.assign(plan, { lost: 0, repeated: 0, refused: 0, spikes: 0, latency })
    for (const actor of actors) {
      if (actor.process.paused) this.#resume(actor)
      actor.endpoint.link.heal()
      actor.endpoint.subscription.heal()
    }
    if (this.#world.awake().length < 2) this.#world.spawn()
  }
}
