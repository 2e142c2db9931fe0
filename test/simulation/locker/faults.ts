import { SimFaults } from '../faults.ts'
import type { Driver } from './driver.ts'
import { recordOf } from './keys.ts'
import type { Actor, World } from './world.ts'

/**
 * Latency once the faults have stopped, at most, ms. The tolerance of L2 is for a quiet network: it is not for the round
 * trips of a slow one.
 */
const QUIET_LATENCY = 0.2

/** The faults of lockers: records are lost, and the server's clock is set. */
export class LockerFaults extends SimFaults<Actor, World> {
  readonly #driver: Driver

  constructor(world: World, driver: Driver) {
    super(world)
    this.#driver = driver
  }

  protected get lease(): number {
    return this.world.plan.leases[0] ?? 100
  }

  protected close(actor: Actor): void {
    const { random } = this.world
    void this.#driver.close(actor, random.chance(0.3) ? 0 : this.lease * random.between(0, 3))
  }

  protected causeOther(fault: string): void {
    const { plan, server, recorder, random } = this.world
    if (fault === 'step') return this.#step(this.lease * random.between(-5, 5))
    for (const key of plan.keys) server.forget(recordOf(key))
    recorder.lost()
  }

  #step(ms: number): void {
    const { server, history } = this.world
    server.step(ms)
    history.disasters.push(history.moment())
    this.world.setBack += Math.max(0, -ms)
  }

  override stop(): void {
    const { plan } = this.world
    plan.latency = Math.min(plan.latency, QUIET_LATENCY)
    super.stop()
    if (this.world.awake().length < 2) this.world.spawn()
  }
}
