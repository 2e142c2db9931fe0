import { OUTCOME_RETENTION } from '../../../src/queue/options.ts'
import { OUTCOME_POLL_INTERVAL } from '../../../src/queue/submitting/outcome-waits.ts'
import { checkDeadlines, EPSILON } from '../deadlines.ts'
import type { Order, QueueDriver } from './driver.ts'
import { short } from './recorder.ts'
import type { QueueActor, QueueWorld } from './world.ts'

/** A worker announces its capacity at least this often, ms. */
const ANNOUNCE_INTERVAL = 5 * 60_000 * 1.1

/** The store forgets a silent worker after this time, ms. */
const KEEP_WORKERS = 15 * 60_000

/** Checks that everything ends once the faults have stopped: Q1, Q3, L1, L3 and L5. */
export class QueueLivenessCheck {
  readonly #world: QueueWorld
  readonly #driver: QueueDriver
  /** Messages may be lost or reordered: a free slot may be missed until its worker announces it again. */
  readonly #lossy: boolean

  constructor(world: QueueWorld, driver: QueueDriver, lossy: boolean) {
    this.#lossy = lossy
    this.#world = world
    this.#driver = driver
  }

  /** Time in which all jobs of dead workers have run elsewhere and their waiters are settled, ms. */
  get #patience(): number {
    const { plan, actors, server } = this.#world
    const { lease, unavailableAfter, latency } = plan
    // The server may deliver to a dead process: such a job is requeued when it is not accepted.
    const dead = actors.filter(({ process }) => process.dead).length
    const draining = (server.model.state.jobs.size + 5) * 30 * latency
    return lease * (5 + 2 * dead) + unavailableAfter * 2 + draining + 10 * EPSILON
  }

  #violate(guarantee: string, what: string): void {
    this.#world.history.violate(guarantee, what)
  }

  /** Runs the world to its end. */
  async check(): Promise<void> {
    const { random, scheduler, plan } = this.#world
    for (const { process } of this.#world.actors) process.wake(2)
    this.#endForgottenLeases()
    this.#driver.resumeAll(random.pick(this.#world.awake()))
    // Delayed jobs become due meanwhile.
    await scheduler.runUntil(scheduler.now + 2 * plan.lease)
    await this.#runUntil(() => this.#allOver())
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

  /** Ends the leases that a process took, and did not live to give back: they may be longer than the run. */
  #endForgottenLeases(): void {
    const { server, history, actors } = this.#world
    const { deadlines, jobs } = server.model.state
    for (const { id, fence, isHeld, over, process } of history.attempts) {
      const actor = actors[process]
      const isForgotten = isHeld && !over && (actor?.process.dead || actor?.closing)
      if (isForgotten && jobs.get(id)?.state.kind === 'active' && jobs.get(id)?.fence === fence)
        deadlines.set(id, server.now)
    }
  }

  #allOver(): boolean {
    const { server, history, actors } = this.#world
    const jobs = [...server.model.state.jobs.values()]
    return (
      jobs.every(({ finished: over }) => over) &&
      [...history.jobCalls, ...history.takes].every(
        ({ ended, process }) => ended || actors[process]?.process.dead,
      )
    )
  }

  /** Q1, Q3: every submitted job has ended. */
  #jobsOver(): void {
    for (const job of this.#world.server.model.state.jobs.values()) {
      if (job.finished) continue
      this.#violate('Q1', `${short(job.id)} has not ended, and is ${job.state.kind}`)
    }
  }

  #deadlines(): void {
    checkDeadlines(
      this.#world,
      this.#world.history.jobCalls,
      ({ no, process, id }) => `#${no} of p${process} for ${short(id)}`,
      // The call that determines the deadline may start only after a pause.
      ({ kind, begun, ended }, process) =>
        kind !== 'submit' && ended !== undefined && process.pausedWithin(begun.at, ended.at),
    )
    checkDeadlines(
      this.#world,
      this.#world.history.takes,
      ({ no, process }) => `take ${no} of p${process}`,
      // What it asks the store after its wait has passed begins after the pause.
      ({ begun, ended }, process) => ended !== undefined && process.pausedWithin(begun.at, ended.at),
    )
  }

  /** Q1: without faults, every process gets a result of every command. */
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
    await this.#runUntil(() => settled === calls.length)
    if (settled < calls.length) this.#violate('Q1', `${calls.length - settled} fresh calls are not settled`)
  }

  /** Q1: no slot is lost. As many handlers run at once as there are slots. */
  async #burst(command: string): Promise<void> {
    const { random } = this.#world
    const workers = this.#world.awake().filter(({ concurrency }) => concurrency.has(command))
    const slots = workers.reduce((sum, { concurrency }) => sum + (concurrency.get(command) ?? 0), 0)
    const running = () => workers.reduce((sum, actor) => sum + (actor.running.get(command) ?? 0), 0)
    let release = () => {}
    this.#world.burst = new Promise((resolve) => {
      release = resolve
    })
    const producer = random.pick(this.#world.awake())
    for (let n = 0; n < slots; n++)
      void this.#driver.enqueue(producer, order(command, { n, burst: true }, { dedupe: false }))
    await this.#runUntil(() => running() === slots)
    if (running() !== slots) this.#violate('Q1', `${running()} of ${slots} slots of ${command} are used`)
    release()
    await this.#runUntil(() => this.#allOver())
    this.#jobsOver()
  }

  /** Runs the world until `enough`, or for as long as that may take. */
  async #runUntil(enough: () => boolean): Promise<void> {
    const { scheduler } = this.#world
    await scheduler.runUntil(scheduler.now + this.#patience, enough)
    if (enough() || !this.#mayTakeLong()) return
    this.#world.history.say(() => '--- until all workers have announced their capacity again')
    await scheduler.runUntil(scheduler.now + ANNOUNCE_INTERVAL + this.#patience, enough)
  }

  /** Whether a worker may not know that the store forgot it: a message was lost, or all records were. */
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

  /** L5: nothing is left, neither in the store nor in a process. */
  async #leftovers(): Promise<void> {
    const { server, plan, actors, scheduler } = this.#world
    await scheduler.runUntil(
      scheduler.now + Math.max(...plan.ttls, OUTCOME_RETENTION, plan.retained) + OUTCOME_POLL_INTERVAL,
    )
    server.sweep()
    const { state } = server.model
    const { jobs, deadlines: times, delayed } = state
    const left = { jobs: jobs.size, times: times.size, delayed: delayed.size }
    this.#left('the store', left)
    await scheduler.runUntil(scheduler.now + KEEP_WORKERS + 1)
    server.sweep()
    // These are known for a day.
    for (const { key } of state.posts.values()) state.forgetPost(key)
    // The last announcement may arrive after the removal of the worker.
    if (!state.isEmpty && plan.ordered)
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
