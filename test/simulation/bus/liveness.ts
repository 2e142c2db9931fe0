import { checkCall, EPSILON } from './calls.ts'
import type { BusDriver } from './driver.ts'
import type { BusCall, Entry } from './history.ts'
import type { Member } from './member.ts'
import type { BusActor, BusWorld } from './world.ts'

/** How often a consumer asks by itself, ms. */
const POLL = 30_000

/** Checks that everything is delivered and ends once the faults have stopped. */
export class BusLivenessCheck {
  readonly #world: BusWorld
  readonly #driver: BusDriver

  constructor(world: BusWorld, driver: BusDriver) {
    this.#world = world
    this.#driver = driver
  }

  #violate(guarantee: string, what: string): void {
    this.#world.history.violate(guarantee, what)
  }

  /** Time in which everything is over that was begun before, ms. */
  get #patience(): number {
    const { lease, ttl, unavailableAfter } = this.#world.plan
    return 4 * lease + 2 * ttl + 20 * unavailableAfter + 2000 + 10 * EPSILON
  }

  /** Runs the world to its end. */
  async check(): Promise<void> {
    const { scheduler } = this.#world
    for (const { process } of this.#world.awake()) process.wake(2)
    this.#attachAll()
    await this.#runUntil(() => this.#openCalls().length === 0 && this.#allAttached())
    if (!this.#allAttached()) this.#violate('B4', 'a process is not attached again')
    this.#ackAll()
    await this.#drain()
    await this.#hear()
    await this.#close()
    await scheduler.runUntil(scheduler.now + this.#patience)
    this.#leftovers()
  }

  async #runUntil(enough: () => boolean, patience = this.#patience): Promise<void> {
    const { scheduler } = this.#world
    await scheduler.runUntil(scheduler.now + patience, enough)
  }

  #openCalls(): BusCall[] {
    const { history, actors } = this.#world
    return history.calls.filter(({ ended, process }) => !ended && !actors[process]?.process.dead)
  }

  #members(): Member[] {
    return this.#world.awake().flatMap(({ members }) => members)
  }

  #attachAll(): void {
    for (const member of this.#members()) void member.attach()
  }

  #allAttached(): boolean {
    return this.#members().every(({ queue }) => queue.isAttached())
  }

  #ackAll(): void {
    for (const member of this.#members()) member.ackAll()
  }

  /** B2: everything in a queue is delivered to those who consume, until it is acknowledged. */
  async #drain(): Promise<void> {
    const { plan } = this.#world
    for (const queue of plan.queues) {
      const members = this.#members().filter((member) => member.queue.name === queue)
      const isConsumed = members.some(({ consumption }) => consumption && consumption.mode !== 'reader')
      const [idle] = members.filter(({ consumption }) => !consumption)
      if (!isConsumed && idle) this.#driver.drain(idle)
      if (!isConsumed && !idle)
        void members[0]?.stop().then(() => members[0] && this.#driver.drain(members[0]))
    }
    // Consumers that stop after some messages are replaced.
    const refill = () => {
      for (const member of this.#members()) this.#driver.drain(member)
    }
    await this.#runUntil(() => this.#waiting().length === 0)
    if (this.#waiting().length > 0 && this.#isUnconsumed()) refill()
    await this.#runUntil(() => this.#waiting().length === 0, POLL + this.#patience)
    for (const entry of this.#waiting().slice(0, 3))
      this.#violate(
        'B2',
        `${entry.queue} ${entry.id} (${entry.value}) is still there, ${this.#holderOf(entry)}`,
      )
    await this.#runUntil(() => this.#openCalls().length === 0)
    for (const call of this.#openCalls()) this.#violate('B4', `#${call.no} ${call.name} is not settled`)
    for (const call of this.#world.history.calls) if (!call.ended) checkCall(this.#world, call)
  }

  #isUnconsumed(): boolean {
    const { plan } = this.#world
    return plan.queues.some(
      (queue) =>
        !this.#members().some(
          ({ consumption }) => consumption && consumption.queue === queue && consumption.mode !== 'reader',
        ),
    )
  }

  /** Messages of the present lives. */
  #waiting(): Entry[] {
    const { history, server } = this.#world
    return history.entries.filter(
      ({ removed, queue, life }) => !removed && server.queues.get(queue)?.life?.id === life,
    )
  }

  #holderOf({ queue, id }: Entry): string {
    const { server } = this.#world
    const consumers = server.queues.get(queue)?.life?.consumers ?? []
    const holder = [...consumers].find(([, { held }]) => [...held].includes(id))
    return holder ? `held by p${server.processOf(holder[0])}` : 'and waits'
  }

  /** B5: what is published now reaches all subscribers. */
  async #hear(): Promise<void> {
    const subscribed = () =>
      this.#world.awake().flatMap(({ topics }) => topics.filter(({ isSubscribed }) => isSubscribed))
    const [topic] = this.#world.awake().flatMap(({ topics }) => topics)
    if (!topic || subscribed().length === 0) return
    const ending = await this.#settle(topic.publish())
    if (ending?.kind !== 'value') return this.#violate('B5', 'a message is not published')
    const { server, plan } = this.#world
    const last = server.lastOf(plan.topics[0] ?? '')
    const late = () => subscribed().filter((topic) => !topic.isAt(last))
    await this.#runUntil(() => late().length === 0)
    if (late().length > 0) this.#violate('B5', `${late().length} subscribers do not receive the last message`)
  }

  async #settle<T>(promise: Promise<T>): Promise<T | undefined> {
    let result: T | undefined
    let settled = false
    void promise.then((value) => {
      result = value
      settled = true
    })
    await this.#runUntil(() => settled)
    return result
  }

  async #close(): Promise<void> {
    const closing = this.#world.awake()
    for (const actor of closing) void this.#driver.close(actor, Number.POSITIVE_INFINITY)
    await this.#runUntil(() => this.#unclosed().length === 0)
    const { history, actors, scheduler } = this.#world
    for (const { process: id, ended, deadline } of history.closings) {
      const process = actors[id]?.process
      if (!process || process.diedAt < deadline) continue
      // A paused process gets the time of the pause in addition.
      if (ended && process.pausedWithin(0, ended.at)) continue
      if ((ended?.at ?? scheduler.now) > deadline + EPSILON)
        this.#violate('B4', `p${id} is ${ended ? 'disconnected late' : 'never disconnected'}`)
    }
  }

  #unclosed(): number[] {
    const { history, actors } = this.#world
    return history.closings
      .filter(({ ended, process }) => !ended && !actors[process]?.process.dead)
      .map(({ process }) => process)
  }

  /** Nothing is left, neither in the store nor in a process. */
  #leftovers(): void {
    const { server, actors } = this.#world
    for (const [queue, record] of server.queues) {
      const life = record.life
      if (life && life.expiresAt > server.now) this.#violate('B4', `${queue} does not expire`)
    }
    for (const actor of actors) this.#left(actor)
  }

  #left({ process, closing }: BusActor): void {
    if (!process.dead && closing && process.timers > 0)
      this.#violate('B4', `p${process.id} has left ${process.timers} timers`)
  }
}
