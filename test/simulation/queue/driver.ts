import { SoloflightError } from '../../../src/errors.ts'
import type { Job } from '../../../src/queue/job.ts'
import type { SubmitOptions } from '../../../src/queue/options.ts'
import { dedupeId, encodePayload } from '../../../src/queue/submitting/submission.ts'
import { type Ending, endingOf, identityOf } from '../history.ts'
import type { Task } from './handlers.ts'
import type { QueueCall } from './history.ts'
import { short } from './recorder.ts'
import { TakerDriver } from './takers.ts'
import type { QueueActor, QueueWorld } from './world.ts'

/** A submission: command, payload and options. */
export interface Order {
  command: string
  task: Task
  options: SubmitOptions
  /** The caller aborts after this time, ms. */
  abortAfter: number
}

const NEVER = Number.POSITIVE_INFINITY

/** Calls the queues of a world, and records the results. */
export class QueueDriver {
  readonly #world: QueueWorld
  readonly #takers: TakerDriver

  constructor(world: QueueWorld) {
    this.#world = world
    this.#takers = new TakerDriver(world)
  }

  #order(): Order {
    const { random, plan } = this.#world
    const { mix, lease } = plan
    const options: SubmitOptions = {
      timeout: random.chance(0.5) ? NEVER : Math.ceil(lease * random.between(0, 5)),
    }
    if (random.chance(0.4)) options.ttl = random.pick(plan.ttls)
    if (plan.attempts > 1) options.attempts = 1 + random.below(plan.attempts)
    if (random.chance(mix.delay)) options.delay = random.between(0, 2 * lease)
    if (random.chance(0.2)) options.priority = 1 + random.below(3)
    if (random.chance(0.1)) options.lifo = true
    if (random.chance(0.2)) options.onProgress = () => {}
    if (random.chance(0.15)) options.abortUnwanted = true
    if (random.chance(mix.rerun)) {
      options.dedupe = `key ${random.below(2)}`
      const isExclusive = random.chance(mix.exclusive)
      options.conflict = isExclusive
        ? 'exclusive'
        : random.pick(['rerun', 'rerun', 'reject', 'join'] as const)
    } else if (random.chance(0.3)) options.dedupe = false
    const task: Task = { n: random.below(plan.payloads) }
    if (random.chance(mix.poison)) task.poison = true
    const abortAfter = random.chance(mix.abort) ? lease * random.between(0, 3) : NEVER
    return { command: random.pick(plan.commands), task, options, abortAfter }
  }

  #begin(actor: QueueActor, kind: QueueCall['kind'], { command, task, options }: Order): QueueCall {
    const { history } = this.#world
    const { dedupe, conflict, abortUnwanted } = options
    const id =
      typeof dedupe === 'string'
        ? dedupeId(command, 'key', dedupe)
        : dedupeId(command, 'payload', encodePayload(task, 1000, true))
    const call: QueueCall = {
      ...{ no: history.jobCalls.length, process: actor.process.id, kind, id, command },
      ...{ nonce: undefined, generation: 0, single: dedupe === false },
      conflict: conflict === 'reject' || conflict === 'exclusive',
      isExclusive: conflict === 'exclusive',
      keeps: abortUnwanted !== true,
      ...{ begun: history.moment(), deadline: NEVER, ended: undefined },
    }
    history.jobCalls.push(call)
    return call
  }

  #end(call: QueueCall, ending: Ending): void {
    const { history } = this.#world
    history.say(() => `p${call.process} has ${short(call.id)} (#${call.no}): ${JSON.stringify(ending)}`)
    if (call.ended) history.violate('L1', `#${call.no} is settled twice`)
    call.ended = { ...history.moment(), ending }
  }

  #abortLater(actor: QueueActor, call: QueueCall, { options, abortAfter }: Order): void {
    const { scheduler } = this.#world
    const { timeout = NEVER } = options
    call.deadline = scheduler.now + Math.min(timeout, abortAfter)
    if (abortAfter === NEVER) return
    const controller = new AbortController()
    options.signal = controller.signal
    actor.process.at(scheduler.now + abortAfter, () => controller.abort(new Error('enough')))
  }

  /** Links a call to the submission that the store received for it: its own, or the one that it joined. */
  #tie(actor: QueueActor, call: QueueCall): void {
    const { endpoint } = actor
    const sent = endpoint.submitted ?? endpoint.latest.get(call.id)
    if (call.isExclusive && !endpoint.submitted)
      this.#world.history.violate('Q1', `#${call.no} is exclusive, and joins another call`)
    call.nonce = sent?.nonce
    call.id = sent?.id ?? call.id
    this.#world.history.say(
      () =>
        `p${call.process} asks by ${call.kind} for ${short(call.id)} (#${call.no})` +
        `${endpoint.submitted ? '' : ', joining'} ${endpoint.submitted?.payload}`,
    )
  }

  async submit(actor: QueueActor, given?: Order): Promise<QueueCall> {
    const order = given ?? this.#order()
    const call = this.#begin(actor, 'submit', order)
    this.#abortLater(actor, call, order)
    actor.endpoint.submitted = undefined
    const promise = actor.queue.submit(order.command, order.task, order.options)
    this.#tie(actor, call)
    await this.#settle(call, promise)
    return call
  }

  async #settle(call: QueueCall, promise: Promise<unknown>): Promise<void> {
    try {
      this.#end(call, { kind: 'value', identity: identityOf(await promise) })
    } catch (error) {
      this.#end(call, endingOf(error))
    }
  }

  /** Enqueues a job. */
  async enqueue(actor: QueueActor, given?: Order): Promise<Job | undefined> {
    const { scheduler, plan } = this.#world
    const order = given ?? this.#order()
    const call = this.#begin(actor, 'enqueue', order)
    call.deadline = scheduler.now + plan.unavailableAfter
    actor.endpoint.submitted = undefined
    const promise = actor.queue.enqueue(order.command, order.task, order.options)
    this.#tie(actor, call)
    try {
      const job = await promise
      call.generation = job.generation
      this.#end(call, { kind: 'value', identity: job.disposition ?? '' })
      return job
    } catch (error) {
      this.#end(call, endingOf(error))
      return undefined
    }
  }

  async #enqueueAndWait(actor: QueueActor): Promise<void> {
    const { random, plan } = this.#world
    const order = this.#order()
    const job = await this.enqueue(actor, order)
    if (!job || random.chance(0.3)) return
    await actor.process.sleep(random.between(0, plan.lease))
    if (actor.closing) return
    const call = this.#begin(actor, 'result', order)
    Object.assign(call, { id: job.id, generation: job.generation })
    this.#abortLater(actor, call, order)
    const { timeout, signal } = order.options
    await this.#settle(call, job.result({ timeout, signal }))
  }

  /** Any other call. It may reject only with documented errors. */
  #other(actor: QueueActor, name: string, run: () => Promise<unknown>): void {
    const { history } = this.#world
    history.say(() => `p${actor.process.id} ${name}`)
    run().catch((error: unknown) => {
      if (!(error instanceof SoloflightError)) history.violate('L1', `${name} rejected with ${String(error)}`)
    })
  }

  #manage(actor: QueueActor): void {
    const { random, history } = this.#world
    const ids = history.jobCalls.map(({ id }) => id).filter((id) => id !== '')
    if (ids.length === 0) return
    const id = random.pick(ids)
    const { queue } = actor
    const what = random.weighted({ cancel: 3, remove: 2, retry: 2, status: 1 })
    this.#other(actor, `asks to ${what} ${short(id)}`, () => queue[what](id))
  }

  /** Pauses or resumes a command, or all commands. */
  #halt(actor: QueueActor): void {
    const { random, plan } = this.#world
    const command = random.chance(0.3) ? undefined : random.pick(plan.commands)
    const what = random.pick(['pause', 'resume'] as const)
    this.#other(actor, `${what}s ${command ?? 'all'}`, () => actor.queue[what](command))
  }

  resumeAll(actor: QueueActor): void {
    for (const command of [undefined, ...this.#world.plan.commands])
      this.#other(actor, `resumes ${command ?? 'all'}`, () => actor.queue.resume(command))
  }

  async close(actor: QueueActor, grace: number): Promise<void> {
    const { history, plan, scheduler } = this.#world
    actor.closing = true
    // Removal of the worker with deliveries on their way, requeues, a search for what was taken, removal of nonces from records.
    const deadline = scheduler.now + grace + 4 * plan.unavailableAfter + 500
    const closing = { process: actor.process.id, begun: history.moment(), deadline, ended: undefined }
    history.closings.push(closing)
    history.say(() => `p${closing.process} closes within ${grace}`)
    for (const call of [...history.jobCalls, ...history.takes]) {
      if (call.process === closing.process && !call.ended) call.deadline = Math.min(call.deadline, deadline)
    }
    await actor.queue.close({ grace })
    Object.assign(closing, { ended: history.moment() })
    history.say(() => `p${closing.process} is closed`)
  }

  /** A random call, by the seed. */
  act(actor: QueueActor): void {
    const { random, plan } = this.#world
    if (this.#world.posts.act(actor)) return
    if (random.chance(plan.mix.take)) void this.#takers.take(actor)
    else if (random.chance(plan.mix.end)) this.#manage(actor)
    else if (random.chance(plan.mix.pause)) this.#halt(actor)
    else if (random.chance(plan.mix.enqueue)) void this.#enqueueAndWait(actor)
    else void this.submit(actor)
  }
}
