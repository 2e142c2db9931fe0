import type { ConsumeOptions, MessageInfo, Queue } from '../../../src/bus/index.ts'
import { callOf, record } from './calls.ts'
import type { ConsumptionRecord, DeliveryCheck } from './deliveries.ts'
import type { CallEnding, Entry, PushCall } from './history.ts'
import type { BusActor, BusWorld } from './world.ts'

const NEVER = Number.POSITIVE_INFINITY

/** One queue object of a process: makes calls, and records what happens. */
export class Member {
  readonly no: number
  readonly queue: Queue<number>
  readonly actor: BusActor
  /** Whether it is to be attached. */
  wantsAttached = true
  consumption: ConsumptionRecord | undefined
  readonly #world: BusWorld
  readonly #check: DeliveryCheck
  #isDetaching = false
  /** How often it was told that it is not attached any more. */
  #losses = 0
  readonly #open = new Set<PushCall>()

  constructor(world: BusWorld, actor: BusActor, queue: string, no: number, check: DeliveryCheck) {
    this.#world = world
    this.actor = actor
    this.no = no
    this.#check = check
    this.queue = actor.bus.queue<number>(queue)
    this.queue.on('message', (value, id, info) => this.#onMessage(value, id, info))
    this.queue.on('consuming', (on) => {
      if (!on) this.#endConsumption()
    })
    this.queue.on('attached', () => this.#limitPushes())
    this.queue.on('detached', () => this.#onGone('detached'))
    this.queue.on('closed', () => this.#onGone('closed'))
  }

  get #within(): number {
    return this.#world.plan.unavailableAfter
  }

  #call(name: string, within: number, promise: Promise<unknown>): Promise<CallEnding> {
    const call = callOf(this.#world, this.actor, `${name} ${this.queue.name} m${this.no}`, within)
    return record(this.#world, call, promise)
  }

  // Attachment

  async attach(): Promise<void> {
    this.wantsAttached = true
    const { plan, random } = this.#world
    while (this.wantsAttached && !this.actor.closing && !this.queue.isAttached()) {
      const { ttl, maxsize } = plan
      // It waits until a detach is over.
      const within = this.#within + (this.#isDetaching ? this.#detachWithin : 0)
      const { kind } = await this.#call('attach', within, this.queue.attach({ ttl, maxsize }))
      if (kind === 'value') return
      await this.actor.process.sleep(plan.lease * random.between(0.1, 1))
    }
  }

  async detach(): Promise<void> {
    this.wantsAttached = false
    if (this.consumption && this.queue.isAttached() && !this.#isDetaching) this.consumption.stopping = true
    this.#isDetaching = true
    await this.#call('detach', this.#detachWithin, this.queue.detach())
    this.#isDetaching = false
  }

  get #detachWithin(): number {
    return this.#world.plan.lease + 12 * this.#within + 2000
  }

  close(): Promise<CallEnding> {
    return this.#call('close', this.#within, this.queue.close())
  }

  flush(): Promise<CallEnding> {
    return this.#call('flush', this.#within, this.queue.flush())
  }

  count(): Promise<CallEnding> {
    return this.#call('count', this.#within, this.queue.count())
  }

  #onGone(event: string): void {
    const { history, plan, random } = this.#world
    history.say(() => `p${this.actor.process.id} m${this.no} ${event}`)
    this.#losses++
    for (const call of this.#open) call.deadline = NEVER
    if (!this.wantsAttached) return
    history.counts.detached++
    const attachLater = async () => {
      await this.actor.process.sleep(plan.lease * random.between(0, 1))
      await this.attach()
    }
    void attachLater()
  }

  /** B4: a process that stood still for longer than its lease is told so, unless something else happens meanwhile. */
  onResumed(stoodStill: number): void {
    const { server, plan, scheduler, history } = this.#world
    const { process } = this.actor
    const life = server.queues.get(this.queue.name)?.life
    if (!life || !this.queue.isAttached() || this.#isDetaching || stoodStill < 1.1 * plan.ttl + 1) return
    const mine = [...life.attachments].filter(([address]) => server.processOf(address) === process.id)
    if (mine.some(([, { leaseEndsAt }]) => leaseEndsAt > server.now)) return
    const since = scheduler.now
    const losses = this.#losses
    process.at(since + plan.ttl + 4 * this.#within + 1000, () => {
      history.counts.stoodStill++
      const isLost = this.#losses > losses || server.queues.get(this.queue.name)?.life?.id !== life.id
      const isExcused = !this.wantsAttached || this.actor.closing
      if (isLost || isExcused || history.isDisturbed(process.id, since + 0.1, scheduler.now)) return
      history.violate('B4', `p${process.id} m${this.no} stood still, and is not told`)
    })
  }

  // Pushes

  push(): void {
    const { random, plan, history } = this.#world
    const key = plan.keys > 0 && random.chance(0.7) ? `k${random.below(plan.keys)}` : ''
    const wait = random.chance(plan.mix.wait) ? Math.ceil(plan.lease * random.between(0, 2)) : 0
    const begun = callOf(this.#world, this.actor, `push ${this.queue.name} m${this.no} ${key} ${wait}`, NEVER)
    const call: PushCall = { ...begun, queue: this.queue.name, member: this.no, key, wait }
    history.pushes.push(call)
    this.#open.add(call)
    this.#limitPushes(call)
    const pushed = this.queue.push(call.no, { wait, ...(key !== '' && { key }) })
    void record(this.#world, call, pushed).then(() => this.#open.delete(call))
  }

  /** While it is attached, pushes have a time limit. */
  #limitPushes(...calls: readonly PushCall[]): void {
    if (!this.queue.isAttached()) return
    const now = this.#world.scheduler.now
    for (const call of calls.length > 0 ? calls : this.#open)
      call.deadline = now + call.wait + 8 * this.#within + 500
  }

  // Consumption

  consume(options: ConsumeOptions, isIterated: boolean): void {
    const { history, random, plan } = this.#world
    const { remove = true, exclusive = false, reliable = false, max = NEVER } = options
    const mode = !remove ? 'reader' : exclusive ? 'exclusive' : reliable ? 'reliable' : 'default'
    const consumption: ConsumptionRecord = {
      ...{ no: ++history.consumptions, queue: this.queue.name, mode, reliable, max, stopping: false },
      ...{ over: false, received: 0, last: undefined, lastGivenAs: 0, unacked: new Map() },
    }
    this.consumption = consumption
    const what = `c${consumption.no} ${mode} ${JSON.stringify(options)}${isIterated ? ' iterated' : ''}`
    if (!isIterated) void this.#call(`consume ${what}`, NEVER, this.queue.consume(options))
    else {
      const leavesAfter = random.chance(plan.mix.stops) ? 1 + random.below(5) : NEVER
      void this.#iterate(consumption, options, leavesAfter)
      history.say(() => `p${this.actor.process.id} iterates ${what} m${this.no}`)
    }
  }

  async #iterate(
    consumption: ConsumptionRecord,
    options: ConsumeOptions,
    leavesAfter: number,
  ): Promise<void> {
    const { random, plan, healed } = this.#world
    const messages = this.queue.messages(options)
    const pause = random.chance(0.3) ? plan.lease * random.between(0, 0.5) : 0
    try {
      for (let next = await messages.next(); !next.done; next = await messages.next()) {
        const { value, id, ...info } = next.value
        this.#deliver(consumption, value, id, info)
        if (consumption.received >= leavesAfter)
          return void (await this.#stop(consumption, messages.return?.()))
        if (pause > 0 && !healed) await this.actor.process.sleep(pause)
      }
    } catch (error) {
      const { code } = error as { code?: unknown }
      if (code !== 'E_NOT_ATTACHED')
        this.#world.history.violate('B4', `c${consumption.no} has ended with ${String(error)}`)
    }
    this.#endConsumption(consumption)
  }

  #endConsumption(consumption = this.consumption): void {
    if (!consumption) return
    consumption.over = true
    this.#world.history.say(() => `p${this.actor.process.id} c${consumption.no} is over`)
    if (this.consumption === consumption) this.consumption = undefined
  }

  async stop(): Promise<void> {
    if (this.consumption) await this.#stop(this.consumption, this.queue.stop())
  }

  async #stop(consumption: ConsumptionRecord, stopped: Promise<unknown> = Promise.resolve()): Promise<void> {
    consumption.stopping = true
    const { lease } = this.#world.plan
    await this.#call(`stop c${consumption.no}`, lease + 4 * this.#within + 1500, stopped)
    this.#endConsumption(consumption)
  }

  #onMessage(value: number, id: number, info: MessageInfo): void {
    const { consumption } = this
    if (consumption) this.#deliver(consumption, value, id, info)
    else this.#world.history.violate('B1', `p${this.actor.process.id}: ${value} comes without a consumption`)
  }

  #deliver(consumption: ConsumptionRecord, value: number, id: number, info: MessageInfo): void {
    const { random, plan, scheduler, healed } = this.#world
    const entry = this.#check.onMessage(this.actor, consumption, value, id, info)
    if (!healed && random.chance(plan.mix.stops)) void this.stop()
    if (!entry || !consumption.reliable) return
    if (!healed && random.chance(plan.mix.never)) return
    const isLate = !healed && random.chance(plan.mix.late)
    const ack = () => void this.ack(consumption, entry)
    if (isLate) this.actor.process.at(scheduler.now + random.exponential(plan.lease / 3), ack)
    else ack()
  }

  /** Acknowledges a message. If that fails, sometimes once more. */
  async ack(consumption: ConsumptionRecord, entry: Entry): Promise<void> {
    const { server, history, random, healed } = this.#world
    const { id, life: its } = entry
    const within = 4 * this.#within + 1500
    const ending = await this.#call(`ack ${id} of c${consumption.no}`, within, this.queue.ack(id))
    if (ending.kind === 'error') {
      const isLost = ending.code === 'E_LEASE_LOST'
      if (isLost) consumption.unacked.delete(id)
      if (healed ? !isLost : random.chance(0.5)) {
        await this.actor.process.sleep(this.#world.plan.lease * random.between(0, 1))
        if (!consumption.over) void this.ack(consumption, entry)
      }
      return
    }
    history.counts.acks++
    consumption.unacked.delete(id)
    // Ids count from 1 again after the queue was lost: the number may be that of another message.
    const life = server.queues.get(entry.queue)?.life
    if (life?.id === its && life.messages.has(id))
      history.violate(
        'B2',
        `${entry.queue} ${id} is acknowledged to p${this.actor.process.id}, and still there`,
      )
    entry.acked ??= history.moment()
  }

  /** Acknowledges everything that is not. */
  ackAll(): void {
    const { consumption } = this
    const last = [...(consumption?.unacked.values() ?? [])].sort((a, b) => a.id - b.id).at(-1)
    if (consumption && last) void this.ack(consumption, last)
  }
}
