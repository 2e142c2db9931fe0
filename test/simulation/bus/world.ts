import { Bus } from '../../../src/bus/bus.ts'
import { MemoryBus } from '../../../src/bus/store/memory-store.ts'
import type { Instance } from '../../../src/bus/store/store.ts'
import type { Clock } from '../../../src/kernel/time.ts'
import { SimProcess } from '../process.ts'
import type { Scheduler } from '../scheduler.ts'
import { type SimActor, SimWorld } from '../world.ts'
import { BusEndpoint } from './endpoint.ts'
import { BusHistory, type Disturbance } from './history.ts'
import type { Member } from './member.ts'
import type { BusMutation } from './mutations/mutation.ts'
import { type BusPlan, busPlanOf } from './plan.ts'
import { type BusPort, portOf } from './port.ts'
import { QueueRecorder } from './recorder.ts'
import { BusServer } from './server.ts'
import type { Topic } from './topic.ts'

/** The clock of a process, which begins anywhere and goes at its own speed. Timers take whole milliseconds, as Node's do. */
function clockOf({ clock }: SimProcess, begin: number, speed: number): Clock {
  return {
    now: () => begin + clock.now() * speed,
    after: (ms, run) => clock.after(Math.ceil(ms) / speed, run),
  }
}

/** The memory store of one process: with the clock of the process, and an endpoint that can fail. */
class ProcessStore extends MemoryBus {
  readonly #instance: Instance

  constructor(clock: Clock, instance: Instance) {
    super({ clock })
    this.#instance = instance
  }

  override connect(): Instance {
    return this.#instance
  }
}

/** A process. Its pauses are disturbances. */
class NotedProcess extends SimProcess {
  /** Called when it goes on, before anything else happens in it. `stoodStill`: ms. */
  onResumed: (stoodStill: number) => void = () => {}
  readonly #history: BusHistory
  #pause: Disturbance | undefined

  constructor(id: number, scheduler: Scheduler, history: BusHistory) {
    super(id, scheduler)
    this.#history = history
  }

  override pause(): void {
    if (this.awake) this.#pause = this.#history.disturb(this.id, this.clock.now(), Number.POSITIVE_INFINITY)
    super.pause()
  }

  override resume(order: (backlog: (() => void)[]) => (() => void)[]): void {
    const pause = this.paused ? this.#pause : undefined
    if (pause) pause.until = this.clock.now()
    super.resume(order)
    if (pause && this.awake) this.onResumed(pause.until - pause.from)
  }
}

/** A process with its Bus object. */
export interface BusActor extends SimActor {
  process: SimProcess
  endpoint: BusEndpoint
  bus: Bus
  members: Member[]
  topics: Topic[]
}

/** All objects of a run. */
export class BusWorld extends SimWorld<BusActor> {
  readonly plan: BusPlan
  readonly server: BusServer
  readonly history: BusHistory
  readonly recorder: QueueRecorder
  /** Called when a process has started. */
  onSpawn: (actor: BusActor) => void = () => {}
  readonly #mutation: BusMutation | undefined
  readonly #port: BusPort
  /** The plan has none any more when the faults have stopped. */
  readonly #hasSpikes: boolean

  constructor(seed: number, scheduler: Scheduler, traced: boolean, mutation?: BusMutation) {
    super(seed, scheduler)
    this.plan = busPlanOf(this.random)
    this.history = new BusHistory(() => scheduler.now, traced)
    this.server = new BusServer(scheduler, (until) => this.history.disturb(-1, scheduler.now, until))
    this.recorder = new QueueRecorder(this.history, this.server, (process) => this.#mayLose(process))
    this.#mutation = mutation
    mutation?.plan?.(this.plan)
    this.#hasSpikes = this.plan.spikes > 0
    if (mutation?.queue) this.server.createQueue = mutation.queue
    const port = portOf(this.server, this.recorder)
    this.#port = mutation?.server?.(port) ?? port
  }

  /** Whether a process may lose the lease of a consumer now: it is dead, or something was slow for about that time. */
  #mayLose(process: number | undefined): boolean {
    const { plan, scheduler, history } = this
    if (process === undefined || this.#hasSpikes) return true
    if (this.actors[process]?.process.dead !== false) return true
    return history.isDisturbed(process, scheduler.now - 2 * plan.lease - 100, scheduler.now)
  }

  /** Starts another process. */
  spawn(): BusActor {
    const { plan, scheduler, history, random } = this
    const process = new NotedProcess(this.actors.length, scheduler, history)
    const speed = 1 + plan.drift * random.between(-1, 1)
    const clock = clockOf(process, random.between(0, 1e6), speed)
    const endpoint = new BusEndpoint(process, clock, this, this.#port)
    const bus = new Bus({
      store: new ProcessStore(clock, this.#mutation?.client?.(endpoint) ?? endpoint),
      unavailableAfter: plan.unavailableAfter,
    })
    const actor: BusActor = { process, endpoint, bus, closing: false, members: [], topics: [] }
    process.onResumed = (stoodStill) => {
      for (const member of actor.members) member.onResumed(stoodStill)
    }
    this.actors.push(actor)
    history.say(() => `p${process.id} starts`)
    this.onSpawn(actor)
    return actor
  }
}
