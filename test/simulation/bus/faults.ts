import type { QueueSignal } from '../../../src/bus/store/store.ts'
import { SimFaults } from '../faults.ts'
import type { BusDriver } from './driver.ts'
import type { BusActor, BusWorld } from './world.ts'

/** Largest number of processes in a run. */
const MOST_PROCESSES = 10

/** The faults of a bus: all records are lost, and signals are forged. */
export class BusFaults extends SimFaults<BusActor, BusWorld> {
  readonly #driver: BusDriver

  constructor(world: BusWorld, driver: BusDriver) {
    super(world)
    this.#driver = driver
  }

  protected get lease(): number {
    return this.world.plan.lease
  }

  protected close(actor: BusActor): void {
    const { random } = this.world
    void this.#driver.close(
      actor,
      random.chance(0.3) ? this.lease * random.between(0, 3) : Number.POSITIVE_INFINITY,
    )
  }

  protected causeOther(): void {
    const { history, recorder, scheduler } = this.world
    history.disturb(-1, scheduler.now, scheduler.now)
    recorder.wipe()
  }

  override schedule(): void {
    super.schedule()
    const { plan, random, scheduler } = this.world
    for (let count = 0; count < plan.forged * plan.calls; count++)
      scheduler.at(random.between(0, plan.duration), () => this.#forge())
  }

  #forge(): void {
    const { server, random } = this.world
    const record = server.queues.get(random.pick(this.world.plan.queues))
    const addresses = [...(record?.life?.attachments.keys() ?? [])]
    const signals: QueueSignal[] = ['messages', 'room', 'closed', 'holder']
    if (addresses.length > 0) server.signal(random.pick(addresses), random.pick(signals))
  }

  protected override replace(): void {
    const { random, actors } = this.world
    if (random.chance(0.8) && actors.length < MOST_PROCESSES) this.world.spawn()
  }

  /** At least two processes go on. */
  override stop(): void {
    const { actors } = this.world
    for (const { process, endpoint } of actors) if (process.dead) endpoint.subscription.forsake(true)
    super.stop()
    while (this.world.awake().length < 2) this.world.spawn()
  }
}
