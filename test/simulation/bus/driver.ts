import type { ConsumeOptions } from '../../../src/bus/index.ts'
import { DeliveryCheck } from './deliveries.ts'
import { Member } from './member.ts'
import { Topic } from './topic.ts'
import type { BusActor, BusWorld } from './world.ts'

/** Uses the queues and topics of a world, and records the results. */
export class BusDriver {
  readonly #world: BusWorld
  readonly #check: DeliveryCheck
  #members = 0

  constructor(world: BusWorld) {
    this.#world = world
    this.#check = new DeliveryCheck(world)
    world.onSpawn = (actor) => this.#onSpawn(actor)
  }

  /** A process uses each queue by one object, and sometimes one of them by a second. */
  #onSpawn(actor: BusActor): void {
    const { plan, random } = this.#world
    const second = random.chance(0.2) ? [random.pick(plan.queues)] : []
    for (const queue of [...plan.queues, ...second])
      actor.members.push(new Member(this.#world, actor, queue, ++this.#members, this.#check))
    for (const topic of plan.topics) actor.topics.push(new Topic(this.#world, actor, topic))
    for (const member of actor.members) {
      void member.attach()
      if (random.chance(0.5)) this.consume(member)
    }
    if (plan.acts.publish > 0 && random.chance(0.7)) for (const topic of actor.topics) void topic.subscribe()
  }

  /** A random call, by the seed. */
  act(actor: BusActor): void {
    const { random, plan } = this.#world
    const member = random.pick(actor.members)
    switch (random.weighted(plan.acts)) {
      case 'push':
        for (let left = random.chance(0.3) ? 1 + random.below(10) : 1; left > 0; left--) member.push()
        break
      case 'consume':
        if (member.consumption) void member.stop()
        else this.consume(member)
        break
      case 'attach':
        if (member.wantsAttached) void member.detach()
        else void member.attach()
        break
      case 'info':
        void member.count()
        break
      case 'close':
        if (member.queue.isAttached()) void member.close()
        break
      case 'flush':
        void member.flush()
        break
      case 'publish':
        for (let left = random.chance(0.3) ? 1 + random.below(5) : 1; left > 0; left--)
          void actor.topics[0]?.publish()
        break
      case 'subscribe': {
        const [topic] = actor.topics
        if (topic?.isSubscribed) topic.unsubscribe()
        else void topic?.subscribe()
      }
    }
  }

  /** Consumes in a random way, unless it does. */
  consume(member: Member): void {
    const { random, plan } = this.#world
    if (member.consumption || member.queue.isConsuming()) return
    const mode = random.weighted(plan.modes)
    const reliable = mode === 'reliable' || (mode === 'exclusive' && random.chance(0.7))
    const options: ConsumeOptions = { lease: plan.lease }
    if (mode === 'reader') options.remove = false
    if (mode === 'exclusive') options.exclusive = true
    if (reliable) options.reliable = true
    if (reliable && random.chance(0.05)) options.last = 1 + random.below(5)
    if (random.chance(plan.mix.max)) options.max = 1 + random.below(8)
    if (random.chance(0.6)) options.prefetch = random.pick([1, 2, 5, 50])
    const isIterated = random.chance(plan.mix.iterate)
    if (!isIterated && random.chance(0.1)) {
      const { process } = member.actor
      options.throttle = (ready) => void process.at(this.#world.scheduler.now + random.between(0, 20), ready)
    }
    member.consume(options, isIterated)
  }

  /** A consumer that acknowledges everything. */
  drain(member: Member): void {
    if (!member.consumption && !member.queue.isConsuming())
      member.consume({ lease: this.#world.plan.lease, reliable: true, prefetch: 10 }, false)
  }

  async close(actor: BusActor, grace: number): Promise<void> {
    const { history, plan, scheduler } = this.#world
    actor.closing = true
    for (const { consumption } of actor.members) if (consumption) consumption.stopping = true
    const most = 20 * plan.unavailableAfter + plan.lease + 2000
    const closing = {
      ...{ process: actor.process.id, begun: history.moment(), ended: undefined },
      deadline: scheduler.now + Math.min(grace, most),
    }
    history.closings.push(closing)
    history.say(() => `p${closing.process} disconnects within ${grace}`)
    for (const call of history.calls) {
      if (call.process === closing.process && !call.ended)
        call.deadline = Math.min(call.deadline, closing.deadline + plan.unavailableAfter)
    }
    await actor.bus.disconnect({ grace })
    Object.assign(closing, { ended: history.moment() })
    history.say(() => `p${closing.process} is disconnected`)
  }
}
