import { SoloflightError } from '../../../src/errors.ts'
import type { TakenJob } from '../../../src/queue/taking/taken-job.ts'
import { type Ending, endingOf, identityOf } from '../history.ts'
import type { AttemptRecord, OutcomeRecord, TakeCall } from './history.ts'
import { LONG_LEASE } from './plan.ts'
import { short } from './recorder.ts'
import type { QueueActor, QueueWorld } from './world.ts'

const NEVER = Number.POSITIVE_INFINITY

type Use = 'complete' | 'fail' | 'release' | 'forget'

/** Takes jobs, holds them by their tokens, and ends them in any process. Checks what `take` and the calls of a job say. */
export class TakerDriver {
  readonly #world: QueueWorld

  constructor(world: QueueWorld) {
    this.#world = world
  }

  /** One call of `take`, and all that is done with its job. */
  async take(actor: QueueActor): Promise<void> {
    const { random, plan, history, scheduler } = this.#world
    const { lease, unavailableAfter, mix } = plan
    const kind = random.weighted({ none: 4, short: 3, long: 2, endless: mix.leave > 0 ? 1 : 0 })
    const wait =
      { none: 0, short: lease / 10, long: lease * 3, endless: NEVER }[kind] * random.between(0.5, 1)
    const aborts = kind === 'endless' || random.chance(mix.leave)
    const abortAfter = aborts ? random.between(0, kind === 'none' ? lease / 10 : lease * 3) : NEVER
    // It asks first; a delivery at the end of its wait is accepted or given back.
    const deadline = scheduler.now + Math.min(wait + 4 * unavailableAfter, abortAfter)
    const call: TakeCall = {
      ...{ no: history.takes.length, process: actor.process.id, command: random.pick(plan.commands) },
      ...{ wait, aborts, begun: history.moment(), deadline, ended: undefined },
    }
    history.takes.push(call)
    history.say(() => `p${call.process} takes ${call.command} (${call.no}), waits ${wait.toFixed(1)}`)
    const controller = new AbortController()
    if (aborts) void actor.process.sleep(abortAfter).then(() => controller.abort(new Error('enough')))
    const taking = actor.queue.take(call.command, {
      ...{ wait: kind === 'none' ? 0 : wait, lease: random.pick(plan.takenLeases) },
      signal: controller.signal,
    })
    try {
      const job = await taking
      this.#end(call, { kind: 'value', identity: job?.id ?? '' })
      if (job) await this.#use(actor, job)
      else this.#checkNone(actor, call)
    } catch (error) {
      this.#end(call, endingOf(error))
      this.#checkError(actor, call, error)
    }
  }

  #end(call: TakeCall, ending: Ending): void {
    const { history } = this.#world
    history.say(() => `p${call.process} has take ${call.no}: ${JSON.stringify(ending)}`)
    call.ended = { ...history.moment(), ending }
  }

  /** L1: documented errors only. */
  #checkError(actor: QueueActor, { no }: TakeCall, error: unknown): void {
    const { history, plan } = this.#world
    const code = error instanceof SoloflightError ? error.code : 'none'
    const mayBe: Record<string, boolean> = {
      E_ABORTED: true,
      E_UNAVAILABLE: !plan.calm,
      E_CLOSED: actor.closing,
    }
    if (!mayBe[code]) history.violate('L1', `take ${no} rejected with ${String(error)}`)
  }

  /** Q1: no job was ready all the while, and no more slots are left in the store than takers wait. */
  #checkNone(actor: QueueActor, { no, command, wait, begun }: TakeCall): void {
    const { history, recorder, server, plan } = this.#world
    const ready = recorder.readySince(command, begun.tick)
    if (ready !== undefined && wait === 0)
      history.violate('Q1', `take ${no} has found none, and ${short(ready)} was ready`)
    const { ordered, faults, mix } = plan
    // A call that is sent again may set a capacity that has changed since.
    if (wait === 0 || !ordered || faults.cut > 0 || mix.leave > 0) return
    const waiting = history.takes.filter(
      (one) => one.process === actor.process.id && one.command === command && one.wait > 0 && !one.ended,
    )
    const { freeSlots } = server.model.state.command(command)
    const ofTakers = freeSlots.filter((slot) => actor.endpoint.isTakers(slot))
    if (ofTakers.length > waiting.length)
      history.violate(
        'Q1',
        `take ${no} has left: ${ofTakers.length} slots are left for ${waiting.length} takers that wait`,
      )
  }

  async #use(actor: QueueActor, job: TakenJob): Promise<void> {
    const { random, plan, history, healed } = this.#world
    const { id, fence } = job
    const record = history.attempt(id, fence)
    if (!record)
      return history.violate('Q3', `p${actor.process.id} has ${short(id)} under ${fence}, not granted`)
    if (record.begun) history.violate('S5', `${short(id)} is taken twice under ${fence}`)
    record.begun = history.moment()
    const weights = { complete: 5, fail: 1.5, release: 1, forget: plan.calm ? 0 : 1 }
    const use: Use = healed ? 'complete' : random.weighted(weights)
    const ms = random.between(0, plan.calm || random.chance(0.7) ? plan.lease / 2 : plan.lease * 2)
    for (let left = random.below(3); left > 0; left--) {
      await this.#sleep(record, ms / 3)
      await this.#call(record, job.token, (held) => held.renew(random.pick(plan.takenLeases)))
    }
    await this.#sleep(record, ms / 3)
    // A lease that is longer than the run would not end.
    if (use !== 'forget') await this.#finish(record, job.token, use)
    else if (plan.takenLeases.includes(LONG_LEASE)) await this.#finish(record, job.token, 'release')
  }

  /** Sleeps in the process that has the token. */
  async #sleep(record: AttemptRecord, ms: number): Promise<void> {
    await this.#world.actors[record.process]?.process.sleep(ms)
  }

  async #finish(record: AttemptRecord, token: string, use: Use): Promise<void> {
    const { history, plan } = this.#world
    const { id, fence } = record
    const value = { p: this.#world.novelty() }
    const failure = new Error(`failure ${this.#world.novelty()}`)
    record.released = use === 'release'
    const done = await this.#call(record, token, (job) => {
      if (use === 'complete') return job.complete(value)
      return use === 'fail' ? job.fail(failure) : job.release()
    })
    if (done === undefined) return
    history.say(() => `    ${short(id)} under ${fence}: ${use} is ${done}`)
    const outcomes = history.outcomes.filter((one) => one.id === id)
    const isValue = ({ identity }: OutcomeRecord) => identity === identityOf(value)
    // A repetition is told so as long as there is no other outcome.
    const isKept = done ? outcomes.some(isValue) : outcomes.slice(-1).some(isValue)
    if (use === 'complete' && done !== isKept && history.wipes.length === 0)
      history.violate('Q1', `${short(id)} under ${fence} is completed: ${done}, and kept: ${isKept}`)
    if (!done && plan.calm && record.over?.how !== 'settled')
      history.violate('Q3', `${short(id)} under ${fence} is ${record.over?.how}, and nothing went wrong`)
  }

  /** Calls a method of a taken job, by its token, until the store answers; here or in another process. */
  async #call<T>(
    record: AttemptRecord,
    token: string,
    call: (job: TakenJob<undefined>) => Promise<T>,
  ): Promise<T | undefined> {
    const { random, history, plan } = this.#world
    for (;;) {
      const awake = this.#world.awake()
      if (awake.length === 0) return undefined
      const last = awake.find(({ process }) => process.id === record.process)
      const actor = last && random.chance(0.7) ? last : random.pick(awake)
      record.process = actor.process.id
      try {
        return await call(actor.queue.taken(token))
      } catch (error) {
        if (!(error instanceof SoloflightError))
          history.violate('L1', `a call of ${short(record.id)} rejected with ${String(error)}`)
        await actor.process.sleep(plan.lease / 10)
      }
    }
  }
}
