import { SimFaults } from '../faults.ts'
import type { ServicesDriver } from './driver.ts'
import type { ServicesActor, ServicesWorld } from './world.ts'

/** Largest number of processes in a run. */
const MOST_PROCESSES = 12

/** The faults of services: all records are lost, and handlers kill their process. */
export class ServicesFaults extends SimFaults<ServicesActor, ServicesWorld> {
  readonly #driver: ServicesDriver

  constructor(world: ServicesWorld, driver: ServicesDriver) {
    super(world)
    this.#driver = driver
    world.kill = (actor) => {
      this.kill(actor)
      this.replace()
    }
  }

  protected get lease(): number {
    return this.world.plan.lease
  }

  protected close(actor: ServicesActor): void {
    const { random } = this.world
    const grace = random.chance(0.3) ? 0 : this.lease * random.between(0, 3)
    void this.#driver.close(actor, random.chance(0.2) ? Number.POSITIVE_INFINITY : grace)
  }

  protected causeOther(): void {
    const { history, server, scheduler } = this.world
    history.wipes.push(history.moment())
    history.disturb(-1, scheduler.now, scheduler.now)
    server.wipe()
  }

  protected override replace(): void {
    const { random, actors } = this.world
    if (random.chance(0.8) && actors.length < MOST_PROCESSES) this.world.spawn()
  }

  /** Every service has processes afterwards. */
  override stop(): void {
    const { actors } = this.world
    for (const { process, endpoint } of actors) if (process.dead) endpoint.subscription.forsake(true)
    super.stop()
    while (this.world.awake().filter(({ serves }) => serves).length < 2) this.world.spawn(true)
  }
}
