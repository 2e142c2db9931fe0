import type { Clock } from '../../../src/kernel/time.ts'
import { Services } from '../../../src/services/services.ts'
import { MemoryServices } from '../../../src/services/store/memory-store.ts'
import type { Message, ServicesStore } from '../../../src/services/store/store.ts'
import { SimProcess } from '../process.ts'
import type { Scheduler } from '../scheduler.ts'
import { type SimActor, SimWorld } from '../world.ts'
import { ServicesEndpoint } from './endpoint.ts'
import { type Disturbance, type Registration, type ServiceCall, ServicesHistory } from './history.ts'
import type { ServicesMutation } from './mutation.ts'
import { type ServicesPlan, servicesPlanOf } from './plan.ts'
import { portOf, type ServicesPort } from './port.ts'
import { ServicesServer } from './server.ts'

/** The clock of a process. Timers take whole milliseconds, as those of Node do. */
function clockOf({ clock }: SimProcess): Clock {
  return { now: () => clock.now(), after: (ms, run) => clock.after(Math.ceil(ms), run) }
}

/** The memory store of one process: with the clock of the process, and an endpoint that can fail. */
class ProcessStore extends MemoryServices {
  readonly #store: ServicesStore

  constructor(process: SimProcess, store: ServicesStore) {
    super({ clock: clockOf(process) })
    this.#store = store
  }

  override connect(): ServicesStore {
    return this.#store
  }
}

/** A process. Its pauses are disturbances. */
class NotedProcess extends SimProcess {
  readonly #history: ServicesHistory
  #pause: Disturbance | undefined

  constructor(id: number, scheduler: Scheduler, history: ServicesHistory) {
    super(id, scheduler)
    this.#history = history
  }

  override pause(): void {
    if (this.awake) this.#pause = this.#history.disturb(this.id, this.clock.now(), Number.POSITIVE_INFINITY)
    super.pause()
  }

  override resume(order: (backlog: (() => void)[]) => (() => void)[]): void {
    if (this.#pause && this.paused) this.#pause.until = this.clock.now()
    super.resume(order)
  }
}

/** A process with its Services object. */
export interface ServicesActor extends SimActor {
  endpoint: ServicesEndpoint
  services: Services
  /** Whether it is to serve. */
  serves: boolean
  /** What it serves, by service. */
  serving: Map<string, Registration>
}

/** All objects of a run. */
export class ServicesWorld extends SimWorld<ServicesActor> {
  readonly plan: ServicesPlan
  readonly server: ServicesServer
  readonly history: ServicesHistory
  /** Kills a process. */
  kill: (actor: ServicesActor) => void = () => {}
  /** Registers a service at a process. */
  serve: (actor: ServicesActor, service: string) => void = () => {}
  /** The call that a process makes at the moment. */
  calling: ServiceCall | undefined
  readonly #mutation: ServicesMutation | undefined

  constructor(seed: number, scheduler: Scheduler, traced: boolean, mutation?: ServicesMutation) {
    super(seed, scheduler)
    this.plan = servicesPlanOf(this.random)
    this.history = new ServicesHistory(() => scheduler.now, traced)
    this.server = new ServicesServer(scheduler, (until) => this.history.disturb(-1, scheduler.now, until))
    this.#mutation = mutation
    mutation?.plan?.(this.plan)
    if (mutation?.record) this.server.createRecord = mutation.record
  }

  /** Starts another process. The first serves everything. */
  spawn(serves: boolean = this.actors.length === 0 || this.random.chance(0.75)): ServicesActor {
    const { plan, scheduler, server, history } = this
    const process = new NotedProcess(this.actors.length, scheduler, history)
    const endpoint = new ServicesEndpoint(process, this, (address) => {
      const port = portOf(server, address)
      return this.#checked(this.#mutation?.server?.(port, server) ?? port)
    })
    const store = this.#mutation?.client?.(endpoint) ?? endpoint
    const services = new Services({
      store: new ProcessStore(process, store),
      lease: plan.lease,
      unavailableAfter: plan.unavailableAfter,
      timeout: Number.POSITIVE_INFINITY,
    })
    const actor: ServicesActor = { process, endpoint, services, closing: false, serves, serving: new Map() }
    this.actors.push(actor)
    history.say(() => `p${process.id} starts as ${endpoint.address.slice(0, 4)}`)
    for (const service of serves ? plan.services : []) this.serve(actor, service)
    return actor
  }

  /** V3: a call is dealt only to a process that was sent it. */
  #checked(port: ServicesPort): ServicesPort {
    return {
      ...port,
      dispatch: (dispatch, request) => {
        const reply = port.dispatch(dispatch, request)
        const call = this.history.callOf(dispatch.message.fields[0])
        if (reply.kind !== 'dealt' || !call) return reply
        const process = this.server.peer(reply.process)?.process
        if (process !== undefined && !call.deals.some((deal) => deal.process === process))
          this.history.violate('V3', `#${call.no} was dealt to p${process}, which does not listen`)
        return reply
      },
    }
  }

  /** A process sends a call. */
  noteSent({ fields: [id = ''] }: Message): void {
    if (this.calling && !this.calling.id) this.history.identify(this.calling, id)
    this.history.callOf(id)?.sent.push(this.history.moment())
  }

  /** A call goes to a process. */
  noteDeal(process: number, { fields }: Message): void {
    const attempt = Number(fields[4])
    this.history.callOf(fields[1])?.deals.push({ ...this.history.moment(), process, attempt })
  }
}
