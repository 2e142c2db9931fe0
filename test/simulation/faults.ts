import { DETECTED_WITHIN } from './subscription.ts'
import type { SimActor, SimWorld } from './world.ts'

/** Injects faults into a world, each kind as often as its plan says, until it is stopped. */
export abstract class SimFaults<Actor extends SimActor, World extends SimWorld<Actor>> {
  protected readonly world: World

  constructor(world: World) {
    this.world = world
  }

  /** Faults last in proportion to it, ms. */
  protected abstract get lease(): number

  /** Closes what the process uses. */
  protected abstract close(actor: Actor): void

  /** A fault that only this kind of world has. */
  protected abstract causeOther(fault: string): void

  /** Schedules all faults. */
  schedule(): void {
    const { plan, random, scheduler } = this.world
    for (const [fault, often] of Object.entries(plan.faults)) {
      if (often === 0) continue
      for (let at = random.exponential(plan.duration / often); at < plan.duration; ) {
        scheduler.at(at, () => this.#cause(fault))
        at += random.exponential(plan.duration / often)
      }
    }
  }

  #cause(fault: string): void {
    const { random, plan, server, history, scheduler } = this.world
    const { lease } = this
    const actor = random.pick(this.world.actors)
    history.say(() => `--- ${fault} p${actor.process.id}`)
    switch (fault) {
      case 'pause':
        actor.process.pause()
        scheduler.after(lease * random.between(0, 3), () => this.#resume(actor))
        break
      case 'kill':
        this.kill(actor)
        this.replace()
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
        this.close(actor)
        this.replace()
        break
      default:
        this.causeOther(fault)
    }
  }

  #resume(actor: Actor): void {
    const { random, history } = this.world
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

  /** Kills a process. The server knows at once, or finds out later. */
  kill(actor: Actor): void {
    const { random, history } = this.world
    if (actor.process.dead) return
    history.say(() => `--- p${actor.process.id} is dead`)
    actor.process.kill()
    actor.endpoint.subscription.forsake(random.chance(0.7))
  }

  protected replace(): void {
    if (this.world.random.chance(0.8)) this.world.spawn()
  }

  /** Ends all faults. */
  stop(): void {
    const { actors, plan } = this.world
    this.world.healed = true
    Object.assign(plan, { lost: 0, repeated: 0, refused: 0, spikes: 0 })
    for (const actor of actors) {
      if (actor.process.paused) this.#resume(actor)
      actor.endpoint.link.heal()
      actor.endpoint.subscription.heal()
    }
  }
}
