import { DETECTED_WITHIN } from '../locker/subscription.ts'
import type { QueueDriver } from './driver.ts'
import type { QueueFault } from './plan.ts'
import type { QueueActor, QueueWorld } from './world.ts'

/** Largest number of processes in a run. */
const MOST_PROCESSES = 14

/** Injects faults into a world, each kind as often as its plan says, until `stop`. */
export class QueueFaults {
  readonly #world: QueueWorld
  readonly #driver: QueueDriver

  constructor(world: QueueWorld, driver: QueueDriver) {
    this.#world = world
    this.#driver = driver
    world.kill = (actor) => {
      this.kill(actor)
      this.#replace()
    }
  }

  /** Schedules all faults. */
  schedule(): void {
    const { plan, random, scheduler } = this.#world
    for (const [fault, often] of Object.entries(plan.faults) as [QueueFault, number][]) {
      if (often === 0) continue
      for (let at = random.exponential(plan.duration / often); at < plan.duration; ) {
        scheduler.at(at, () => this.#cause(fault))
        at += random.exponential(plan.duration / often)
      }
    }
  }

  #cause(fault: QueueFault): void {
    const { random, plan, server, history, scheduler, recorder } = this.#world
    const { lease } = plan
    const actor = random.pick(this.#world.actors)
    history.say(() => `--- ${fault} p${actor.process.id}`)
    switch (fault) {
      case 'pause':
        actor.process.pause()
        scheduler.after(lease * random.between(0, 3), () => this.#resume(actor))
        break
      case 'kill':
        this.#world.kill(actor)
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
        void this.#driver.close(actor, this.#grace())
        this.#replace()
        break
      case 'flush':
        recorder.lost()
        server.wipe()
    }
  }

  #grace(): number {
    const { random, plan } = this.#world
    if (random.chance(0.2)) return Number.POSITIVE_INFINITY
    return random.chance(0.3) ? 0 : plan.lease * random.between(0, 3)
  }

  #resume(actor: QueueActor): void {
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

  /** Kills a process. The server notices at once, or considers it alive until it finds out. */
  kill(actor: QueueActor): void {
    const { random, history } = this.#world
    if (actor.process.dead) return
    history.say(() => `--- p${actor.process.id} is dead`)
    actor.process.kill()
    actor.endpoint.subscription.forsake(random.chance(0.7))
  }

  #replace(): void {
    const { random, actors } = this.#world
    if (random.chance(0.8) && actors.length < MOST_PROCESSES) this.#world.spawn()
  }

  /** Ends all faults, and makes sure that every command has a worker. */
  stop(): void {
    const { actors, plan } = this.#world
    this.#world.healed = true
    Object.assign(plan, { lost: 0, refused: 0, spikes: 0 })
    for (const actor of actors) {
      if (actor.process.dead) actor.endpoint.subscription.forsake(true)
      if (actor.process.paused) this.#resume(actor)
      actor.endpoint.link.heal()
      actor.endpoint.subscription.heal()
    }
    while (this.#world.awake().filter(({ concurrency }) => concurrency.size > 0).length < 2)
      this.#world.spawn()
  }
}
