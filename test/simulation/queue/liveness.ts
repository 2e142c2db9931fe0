import { OUTCOME_POLL_INTERVAL, OUTCOME_RETENTION } from '../../../src/queue/submitting/outcome-waits.ts'
import type { SimProcess } from '../locker/process.ts'
import type { Order, QueueDriver } from './driver.ts'
import type { QueueCall } from './history.ts'
import { short } from './recorder.ts'
import type { QueueActor, QueueWorld } from './world.ts'

/** What is allowed for in bounds of time, ms. */
const EPSILON = 100

/** A worker says what it can take after so long at the latest, whatever was lost, ms. */
const OFFERED_AGAIN = 5 * 60_000 * 1.1

/** A worker that says nothing is forgotten after so long, ms. */
const KEEP_WORKERS = 15 * 60_000

/** Demands, when the faults have stopped, that everything comes to its end: Q1, Q3, L1, L3 and L5. */
export class QueueLivenessCheck {
  readonly #world: QueueWorld
  readonly #driver: QueueDriver
  /** Messages were lost alone, or overtaken: a place may then be missed until its worker says so by itself. */
  readonly #lossy: boolean

  constructor(world: QueueWorld, driver: QueueDriver, lossy: boolean) {
    this.#lossy = lossy
    this.#world = world
    this.#driver = driver
  }

  /** By when everything that a dead worker leaves behind has been run elsewhere, and who waits has heard of it, ms. */
  get #patience(): number {
    const { plan, actors, server } = this.#world
    const { lease, unavailableAfter, latency } = plan
    // The server may take a dead process for alive: what it hands to it comes back when it is not accepted.
    const dead = actors.filter(({ process }) => process.dead).length
    const draining = (server.book.state.jobs.size + 5) * 30 * latency
    return lease * (5 + 2 * dead) + unavailableAfter * 2 + draining + 10 * EPSILON
  }

  #violate(guarantee: string, what: string): void {
    this.#world.history.violate(guarantee, what)
  }

  /** Runs a world to its end. */
  async check(): Promise<void> {
    const { random, scheduler, plan } = this.#world
    for (const { process } of this.#world.actors) process.wake(2)
    this.#driver.resumeAll(random.pick(this.#world.awake()))
    // What was put off comes due meanwhile.
    await scheduler.runUntil(scheduler.now + 2 * plan.lease)
    await this.#within(() => this.#allOver())
    this.#jobsOver()
    await scheduler.runUntil(
      scheduler.now + 2 * Math.min(plan.lease, OUTCOME_POLL_INTERVAL) + EPSILON + 10 * plan.latency,
    )
    this.#deadlines()
    await this.#fresh()
    for (const command of plan.commands) await this.#burst(command)
    await this.#close()
    await this.#leftovers()
  }

  #allOver(): boolean {
    const { server, history, actors } = this.#world
    const jobs = [...server.book.state.jobs.values()]
    return (
      jobs.every(({ over }) => over) &&
      history.jobCalls.every(({ ended, process }) => ended || actors[process]?.process.dead)
    )
  }

  /** Q1, Q3: whatever was handed in has been run. */
  #jobsOver(): void {
    for (const job of this.#world.server.book.state.jobs.values()) {
      if (job.over) continue
      const where =
        job.worker === '' ? (job.due === undefined ? 'waits' : 'is delayed') : 'is in the hands of a worker'
      this.#violate('Q1', `${short(job.id)} is not over, and ${where}`)
    }
  }

  /** L1: every call of a process that lives is settled, by its deadline. */
  #deadlines(): void {
    const { history, actors, scheduler } = this.#world
    for (const call of history.jobCalls) {
      const process = actors[call.process]?.process
      if (process) this.#deadline(call, process, scheduler.now)
    }
    for (const { process: id, ended, deadline } of history.closings) {
      const process = actors[id]?.process
      if (!process) continue
      // What it waits for has ended by now.
      if (deadline === Number.POSITIVE_INFINITY && !ended && !process.dead)
        this.#violate('L1', `p${id} is never closed`)
      if (process.diedAt < process.actsAt(deadline) + EPSILON) continue
      // What stood still has that long more.
      if ((ended?.at ?? scheduler.now) <= process.actsAt(deadline) + EPSILON) continue
      if (ended && process.pausedWithin(0, ended.at)) continue
      this.#violate(
        'L1',
        `p${id} is ${ended ? `closed ${(ended.at - deadline).toFixed(1)} ms late` : 'never closed'}`,
      )
    }
  }

  #deadline(call: QueueCall, process: SimProcess, now: number): void {
    const due = process.actsAt(call.deadline)
    const { ended } = call
    const late =
      due === Number.POSITIVE_INFINITY ? !ended && !process.dead : (ended?.at ?? now) > due + EPSILON
    if (!late || process.diedAt <= due + EPSILON) return
    // After a pause, what fixes its end may only begin.
    if (ended && process.pausedWithin(call.begun.at, ended.at) && call.kind !== 'submit') return
    const how = ended ? `${(ended.at - due).toFixed(1)} ms late` : 'not at all'
    this.#violate('L1', `#${call.no} of p${call.process} for ${short(call.id)} was settled ${how}`)
  }

  /** Everything can be done, from everywhere, now that nothing is in the way. */
  async #fresh(): Promise<void> {
    const { plan } = this.#world
    const calls = this.#world
      .awake()
      .flatMap((actor) =>
        plan.commands.map((command) =>
          this.#driver.submit(actor, order(command, { n: 1000 }, { timeout: Number.POSITIVE_INFINITY })),
        ),
      )
    let settled = 0
    for (const call of calls)
      void call.then(({ ended, no }) => {
        settled++
        if (ended?.ending.kind !== 'value') this.#violate('Q1', `fresh #${no} has ${JSON.stringify(ended)}`)
      })
    await this.#within(() => settled === calls.length)
    if (settled < calls.length) this.#violate('Q1', `${calls.length - settled} fresh calls are not settled`)
  }

  /** No place is lost: so many at once as there are places. */
  async #burst(command: string): Promise<void> {
    const { random } = this.#world
    const workers = this.#world.awake().filter(({ concurrency }) => concurrency.has(command))
    const places = workers.reduce((sum, { concurrency }) => sum + (concurrency.get(command) ?? 0), 0)
    const running = () => workers.reduce((sum, actor) => sum + (actor.running.get(command) ?? 0), 0)
    let release = () => {}
    this.#world.burst = new Promise((resolve) => {
      release = resolve
    })
    const producer = random.pick(this.#world.awake())
    for (let n = 0; n < places; n++)
      void this.#driver.enqueue(producer, order(command, { n, burst: true }, { dedupe: false }))
    await this.#within(() => running() === places)
    if (running() !== places) this.#violate('Q1', `${running()} of ${places} places of ${command} are used`)
    release()
    await this.#within(() => this.#allOver())
    this.#jobsOver()
  }

  /** Waits for something for as long as it may take. */
  async #within(enough: () => boolean): Promise<void> {
    const { scheduler } = this.#world
    await scheduler.runUntil(scheduler.now + this.#patience, enough)
    if (enough() || !this.#mayTakeLong()) return
    this.#world.history.say(() => '--- until all workers have said again what they can take')
    await scheduler.runUntil(scheduler.now + OFFERED_AGAIN + this.#patience, enough)
  }

  /** Whether a worker may have missed that the store forgot it: a message was lost alone, or everything was. */
  #mayTakeLong(): boolean {
    return this.#lossy || this.#world.history.wipes.length > 0
  }

  async #close(): Promise<void> {
    const { scheduler, history } = this.#world
    for (const actor of this.#world.awake()) void this.#driver.close(actor, 1000)
    await scheduler.runUntil(scheduler.now + this.#patience, () =>
      history.closings.every(({ ended }) => ended),
    )
    this.#deadlines()
  }

  /** L5: nothing is left of what was, neither in the store nor in a process. */
  async #leftovers(): Promise<void> {
    const { server, plan, actors, scheduler } = this.#world
    await scheduler.runUntil(
      scheduler.now + Math.max(...plan.ttls, OUTCOME_RETENTION, plan.retained) + OUTCOME_POLL_INTERVAL,
    )
    server.sweep()
    const { state } = server.book
    const { jobs, times, delayed } = state
    const left = { jobs: jobs.size, times: times.size, delayed: delayed.size }
    this.#left('the store', left)
    await scheduler.runUntil(scheduler.now + KEEP_WORKERS + 1)
    server.sweep()
    // A last offer may have been overtaken by the withdrawal.
    if (!state.empty && plan.ordered)
      this.#violate('L5', 'the store still knows of workers, or of what waits')
    for (const actor of actors) if (!actor.process.dead) this.#leftIn(actor)
  }

  #leftIn({ queue, endpoint, process, running }: QueueActor): void {
    const { waiting, running: held } = queue.stats()
    const { listening } = endpoint
    const handlers = [...running.values()].reduce((sum, count) => sum + count, 0)
    this.#left(`p${process.id}`, { waiting, held, listening, handlers, timers: process.timers })
  }

  #left(where: string, counts: Record<string, number>): void {
    const what = Object.entries(counts).filter(([, count]) => count !== 0)
    if (what.length === 0) return
    this.#violate('L5', `${where} has left ${what.map(([name, count]) => `${name} ${count}`).join(', ')}`)
  }
}

function order(command: string, task: Order['task'], options: Order['options']): Order {
  return { command, task, options, abortAfter: Number.POSITIVE_INFINITY }
}
