import { SoloflightError } from '../../../src/errors.ts'
import type { Remote } from '../../../src/services/remote.ts'
import { identityOf } from '../history.ts'
import { checkDeadline } from './deadline.ts'
import { addHandlers } from './handlers.ts'
import type { CallEnding, Mode, Registration, ServiceCall } from './history.ts'
import type { ServicesActor, ServicesWorld } from './world.ts'

const NEVER = Number.POSITIVE_INFINITY

/** The longest pause between two tries when all processes are full, ms. */
const BUSY_PAUSE = 2_000

/** What a call is made with. Durations are ms. */
export interface Order {
  mode: Mode
  service: string
  timeout: number
  within: number
  wait: number
  tries: number
  abortAfter: number
  local: boolean
}

/** A call without limits. */
export const PLAIN: Omit<Order, 'mode' | 'service'> = {
  ...{ timeout: NEVER, within: NEVER, wait: 0, tries: 1, abortAfter: NEVER, local: false },
}

/** Calls and serves the services of a world, and records the results. */
export class ServicesDriver {
  readonly #world: ServicesWorld

  constructor(world: ServicesWorld) {
    this.#world = world
    world.serve = (actor, service) => void this.serve(actor, service)
  }

  /** A random call, by the seed. */
  act(actor: ServicesActor): void {
    const { random, plan } = this.#world
    if (random.chance(plan.mix.unregister)) return void this.#reregister(actor)
    void this.call(actor, this.#order())
  }

  #order(): Order {
    const { random, plan } = this.#world
    const { mix, lease } = plan
    const part = random.next()
    const mode =
      part < mix.stream
        ? 'stream'
        : part < mix.stream + mix.broadcast
          ? 'broadcast'
          : part < mix.stream + mix.broadcast + mix.notify
            ? 'notify'
            : random.chance(mix.pemit)
              ? 'pemit'
              : 'emit'
    const order: Order = { ...PLAIN, mode, service: random.pick(plan.services) }
    if (random.chance(0.6)) order.timeout = Math.ceil(lease * random.between(0.05, 4))
    if (random.chance(0.2)) order.within = Math.ceil(lease * random.between(0.05, 6))
    if (random.chance(mix.wait)) order.wait = Math.ceil(lease * random.between(0, 2))
    if (random.chance(mix.abort)) order.abortAfter = lease * random.between(0, 3)
    if (mode === 'pemit') {
      order.tries = 1 + random.below(5)
      if (order.within !== NEVER && random.chance(0.5)) order.tries = NEVER
    }
    order.local = random.chance(0.2)
    return order
  }

  /** Makes a call. Resolves when it is settled. */
  async call(actor: ServicesActor, order: Order): Promise<ServiceCall> {
    const { history, scheduler } = this.#world
    const { mode, service, tries, timeout, within, abortAfter } = order
    const call: ServiceCall = {
      ...{ no: history.calls.length, process: actor.process.id, mode, service, tries },
      timeout: Math.min(timeout, within),
      ...{ id: undefined, begun: history.moment(), sent: [], deals: [], ended: undefined, slow: false },
      ...{ abortsAt: scheduler.now + abortAfter, deadline: this.#deadlineOf(order) },
    }
    history.calls.push(call)
    history.say(() => `p${call.process} calls #${call.no} ${JSON.stringify(order)}`)
    const remote = this.#remote(actor, order)
    try {
      if (mode === 'stream') await this.#read(actor, call, order, remote)
      else if (mode === 'broadcast') await this.#gather(call, remote)
      else this.#end(call, { kind: 'value', identity: identityOf(await this.#once(call, order, remote)) })
    } catch (error) {
      this.#end(call, endingOf(error))
    }
    return call
  }

  #deadlineOf({ mode, timeout, within, wait, tries, abortAfter }: Order): number {
    const { scheduler } = this.#world
    const all = wait + tries * timeout + (tries - 1) * BUSY_PAUSE
    const limit = mode === 'broadcast' ? timeout : mode === 'pemit' ? all : wait + timeout
    return scheduler.now + Math.min(abortAfter, within, Number.isNaN(limit) ? NEVER : limit)
  }

  #remote(actor: ServicesActor, order: Order): Remote {
    const { service, timeout, within, wait, abortAfter, local } = order
    const controller = new AbortController()
    if (abortAfter !== NEVER)
      actor.process.at(this.#world.scheduler.now + abortAfter, () => controller.abort(new Error('enough')))
    return actor.services
      .require(service, { timeout, wait, choose: local ? 'local-first' : 'least-busy' })
      .with({ signal: controller.signal, ...(within !== NEVER && { within }) })
  }

  /** Begins a call. The store learns of it meanwhile. */
  #begin<T>(call: ServiceCall, run: () => T): T {
    this.#world.calling = call
    try {
      return run()
    } finally {
      this.#world.calling = undefined
    }
  }

  #once(call: ServiceCall, { mode, tries }: Order, remote: Remote): Promise<unknown> {
    return this.#begin(call, () => {
      if (mode === 'notify') return remote.notify('work', call.no)
      if (mode === 'emit') return remote.emit('work', call.no)
      return remote.pemit(tries === NEVER ? -1 : tries, 'work', call.no)
    })
  }

  /** Reads a streamed reply, and checks that no chunk is missing. */
  async #read(actor: ServicesActor, call: ServiceCall, order: Order, remote: Remote): Promise<void> {
    const { random, history, scheduler, healed, plan } = this.#world
    const chunks = remote.stream('items', call.no)
    const leavesAt = !healed && random.chance(0.2) ? random.below(20) : NEVER
    const pause = random.chance(0.3) ? random.between(0, plan.lease / 20) : 0
    call.slow = pause > 0
    const limit = Math.min(scheduler.now + order.within, call.abortsAt)
    let index = 0
    for (; ; index++) {
      const next = await this.#begin(call, () => chunks.next())
      checkDeadline(this.#world, call, scheduler.now)
      if (next.done) break
      const { no, index: given } = next.value as { no: number; index: number }
      if (no !== call.no || given !== index)
        history.violate('V4', `#${call.no} received chunk ${given} of #${no} as ${index}`)
      if (index >= leavesAt) {
        await chunks.return()
        return this.#end(call, { kind: 'left' })
      }
      call.deadline = NEVER
      if (pause > 0) await actor.process.sleep(pause)
      // What has arrived is read first.
      call.deadline = Math.max(scheduler.now, Math.min(limit, scheduler.now + order.timeout))
    }
    const [run] = history.runsOf(call.no)
    if (run?.ended?.how !== 'over' || run.chunks !== index)
      history.violate('V4', `the stream #${call.no} has ended after ${index} chunks, not its source`)
    this.#end(call, { kind: 'value', identity: 'undefined' })
  }

  /** Reads the answers to a broadcast, and checks that each is one. */
  async #gather(call: ServiceCall, remote: Remote): Promise<void> {
    const { history } = this.#world
    const answered = new Set<string>()
    const values: number[] = []
    for await (const answer of this.#begin(call, () => remote.broadcast('work', call.no))) {
      const process = this.#world.server.peer(answer.id)?.process
      if (answered.has(answer.id)) history.violate('V4', `#${call.no} has two answers of p${process}`)
      answered.add(answer.id)
      if ('result' in answer) {
        const identity = identityOf(answer.result)
        const run = history.runsOf(call.no).find((one) => one.ended?.identity === identity)
        if (!run) history.violate('V4', `#${call.no} received ${identity}, the result of no run`)
        else values.push(run.process)
      } else if (ranOf(answer.error) === 'no') this.#notRun(call, process)
    }
    this.#end(call, { kind: 'value', identity: values.sort((one, other) => one - other).join(' ') })
  }

  /** An answer to a broadcast says that one process has not run it. */
  #notRun({ no }: ServiceCall, process: number | undefined): void {
    const { history } = this.#world
    if (history.runsOf(no).some((run) => run.process === process))
      history.violate('V1', `#${no} was not run by p${process}, it is said`)
  }

  #end(call: ServiceCall, ending: CallEnding): void {
    const { history } = this.#world
    history.say(() => `p${call.process} has #${call.no}: ${JSON.stringify(ending)}`)
    if (call.ended) history.violate('V1', `#${call.no} is settled twice`)
    call.ended = { ...history.moment(), ending }
  }

  /** Registers a service, however often that takes. */
  async serve(actor: ServicesActor, service: string): Promise<void> {
    const { random, plan, history } = this.#world
    const capacity = random.pick([1, 2, 5, NEVER])
    const backlog = random.pick([0, 0, 2, NEVER])
    while (!actor.closing) {
      const registration: Registration = {
        ...{ process: actor.process.id, service, capacity, running: 0, closing: undefined },
      }
      try {
        const served = await actor.services.register(service, { capacity, backlog })
        history.say(() => `p${registration.process} serves ${service}, ${capacity} at once, ${backlog} wait`)
        actor.serving.set(service, registration)
        history.registrations.push(registration)
        addHandlers(this.#world, actor, registration, served)
        return
      } catch (error) {
        if (!(error instanceof SoloflightError))
          history.violate('V1', `register rejected with ${String(error)}`)
      }
      await actor.process.sleep(plan.lease / 2)
    }
  }

  async #reregister(actor: ServicesActor): Promise<void> {
    const { random, plan, history } = this.#world
    const [service] = actor.serving.keys()
    if (service === undefined) return
    this.#closing(actor.serving.get(service))
    actor.serving.delete(service)
    history.say(() => `p${actor.process.id} unregisters ${service}`)
    await actor.services.unregister(service, { grace: plan.lease * random.between(0, 2) })
    await actor.process.sleep(plan.lease * random.between(0, 1))
    await this.serve(actor, service)
  }

  #closing(registration: Registration | undefined): void {
    if (registration) registration.closing = this.#world.history.moment()
  }

  async close(actor: ServicesActor, grace: number): Promise<void> {
    const { history, plan, scheduler } = this.#world
    actor.closing = true
    for (const registration of actor.serving.values()) this.#closing(registration)
    // Unregistration, the last message about each service, the last reports and messages.
    const deadline = scheduler.now + grace + 4 * plan.unavailableAfter + 500
    const closing = { process: actor.process.id, begun: history.moment(), deadline, ended: undefined }
    history.closings.push(closing)
    history.say(() => `p${closing.process} closes within ${grace}`)
    for (const call of history.calls) {
      if (call.process === closing.process && !call.ended) call.deadline = Math.min(call.deadline, deadline)
    }
    await actor.services.close({ grace })
    Object.assign(closing, { ended: history.moment() })
    history.say(() => `p${closing.process} is closed`)
  }
}

function ranOf(error: unknown): string | undefined {
  return error instanceof SoloflightError ? error.ran : undefined
}

function endingOf(error: unknown): CallEnding {
  const known = error instanceof SoloflightError
  const identity = known ? error.message : error instanceof Error ? `${error.stack}` : String(error)
  return { kind: 'error', code: known ? error.code : 'E_FOREIGN', identity, ran: ranOf(error) }
}
