import { SimFaults } from '../faults.ts'
import type { QueueDriver } from './driver.ts'
import type { QueueActor, QueueWorld } from './world.ts'

/** Largest number of processes in a run. */
const MOST_PROCESSES = 14

/** The faults of queues: all records are lost, and handlers kill their process. */
export class QueueFaults extends SimFaults<QueueActor, QueueWorld> {
  readonly #driver: QueueDriver

  constructor(world: QueueWorld, driver: QueueDriver) {
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

  protected close(actor: QueueActor): void {
    void this.#driver.close(actor, this.#grace())
  }

  #grace(): number {
    const { random } = this.world
    if (random.chance(0.2)) return Number.POSITIVE_INFINITY
    return random.chance(0.3) ? 0 : this.lease * random.between(0, 3)
  }

  protected causeOther(): void {
    this.world.recorder.lost()
    this.world.server.wipe()
  }

  protected override replace(): void {
    const { random, actors } = this.world
    if (random.chance(0.8) && actors.length < MOST_PROCESSES) this.world.spawn()
  }

  /** Every command has workers afterwards. */
  override stop(): void {
    const { actors } = this.world
    for (const { process, endpoint } of actors) if (process.dead) endpoint.subscription.forsake(true)
    super.stop()
    while (this.world.awake().filter(({ concurrency }) => concurrency.size > 0).length < 2) this.world.spawn()
  }
}
