import { OUTCOME_RETENTION } from '../../../src/queue/options.ts'
import type { AttemptRecord, OutcomeRecord, QueueCall, QueueHistory } from './history.ts'
import { short } from './recorder.ts'
import type { QueueWorld } from './world.ts'

/** Tolerance of time bounds, ms. */
const EPSILON = 10

const STALLED = 'The job lost its worker too often'

/** Checks Q1, Q2, Q3 and S5 on a history. (Checks during the run: recorder.ts and handlers.ts.) */
export class QueueSafetyCheck {
  readonly #history: QueueHistory
  readonly #world: QueueWorld
  readonly #outcomes = new Map<string, OutcomeRecord[]>()

  constructor(world: QueueWorld) {
    this.#world = world
    this.#history = world.history
    for (const outcome of world.history.outcomes) {
      const same = this.#outcomes.get(outcome.id)
      if (same) same.push(outcome)
      else this.#outcomes.set(outcome.id, [outcome])
    }
  }

  check(): void {
    for (const call of this.#history.jobCalls) this.#received(call)
    this.#run()
    for (const outcome of this.#history.unwanted) this.#unwanted(outcome)
    const byGeneration = new Map<string, AttemptRecord[]>()
    for (const attempt of this.#history.attempts) {
      this.#stopped(attempt)
      this.#returned(attempt)
      const name = `${attempt.id} ${attempt.generation}`
      byGeneration.set(name, [...(byGeneration.get(name) ?? []), attempt])
    }
    for (const attempts of byGeneration.values()) this.#counts(attempts)
  }

  #violate(guarantee: string, what: string): void {
    this.#history.violate(guarantee, what)
  }

  /** Q2: a call receives the outcome of its generation or of a later one. */
  #received(call: QueueCall): void {
    const { ended, id, no } = call
    if (!ended || call.kind === 'enqueue') return
    const { ending } = ended
    if (ending.kind === 'lease') return
    const generation = this.#generationOf(call)
    const outcomes = (this.#outcomes.get(id) ?? []).filter(
      (one) => one.tick < ended.tick && one.generation >= generation,
    )
    if (ending.kind === 'error' && ending.code !== 'E_REMOTE')
      return this.#failed(call, ending.code, outcomes)
    const kind = ending.kind === 'value' ? 'value' : 'error'
    if (!outcomes.some((one) => one.kind === kind && one.identity === ending.identity))
      this.#violate('Q2', `#${no} received ${ending.identity} for ${short(id)}, no outcome of its generation`)
    if (ending.identity === STALLED && this.#world.plan.calm)
      this.#violate('Q1', `#${no} received ${ending.identity}, and nothing went wrong`)
  }

  /** Generation that a call waited for; the lowest, if its submission was executed several times. */
  #generationOf({ generation, nonce }: QueueCall): number {
    const effects = nonce === undefined ? [] : (this.#history.effects.get(nonce) ?? [])
    const known = effects.map((effect) => effect.generation).filter((number) => number > 0)
    return known.length > 0 ? Math.min(...known) : generation
  }

  #failed(call: QueueCall, code: string, outcomes: OutcomeRecord[]): void {
    const { no, id, deadline, begun, ended, process } = call
    const over = ended?.at ?? 0
    const calm = this.#world.plan.calm && !this.#world.actors[process]?.closing
    const mayBe: Record<string, boolean> = {
      E_TIMEOUT: over >= deadline - 1,
      E_ABORTED: over >= deadline - 1,
      E_UNAVAILABLE: !calm,
      E_CLOSED: this.#world.actors[process]?.closing === true,
      E_CONFLICT: call.conflict,
      E_REMOVED:
        outcomes.some(({ kind, at }) => kind === 'removed' || at + OUTCOME_RETENTION <= over) ||
        this.#history.wipes.some(({ tick }) => tick < (ended?.tick ?? 0)),
    }
    if (!mayBe[code])
      this.#violate('Q2', `#${no} for ${short(id)}, begun at ${begun.at.toFixed(1)}, has ${code}`)
  }

  /** Q1: every accepted submission has an outcome. S6: one without deduplication runs once. */
  #run(): void {
    const { jobCalls, posts } = this.#history
    const singles = new Set(jobCalls.filter(({ single }) => single).map(({ id }) => id))
    for (const { ids } of posts) for (const id of ids) singles.add(id)
    for (const effects of this.#history.effects.values()) {
      for (const { id, status, generation, tick } of effects) {
        if (status !== 'created' && status !== 'joined') continue
        if (this.#history.wipedSince(tick)) continue
        const outcomes = (this.#outcomes.get(id) ?? []).filter((one) => one.generation >= generation)
        if (outcomes.length === 0) this.#violate('Q1', `${short(id)} as ${generation} has no outcome`)
        const runs = outcomes.filter(({ kind }) => kind !== 'removed').length
        if (runs > 1 && singles.has(id) && !this.#history.retried.has(id))
          this.#violate('S6', `${short(id)} was submitted once, and has ${runs} outcomes`)
      }
    }
  }

  /** Q1: a job with a submitter without `abortUnwanted` is not cancelled when its waiters leave. */
  #unwanted({ id, generation, tick }: OutcomeRecord): void {
    const before = (this.#outcomes.get(id) ?? []).filter((one) => one.tick < tick)
    const last = before.at(-1)?.generation ?? 0
    const counted = this.#history.jobCalls.find(({ keeps, nonce, begun }) => {
      const effects = keeps && begun.tick < tick ? (this.#history.effects.get(nonce ?? '') ?? []) : []
      return effects.some((one) => one.id === id && one.tick < tick && one.generation > last)
    })
    if (counted && !this.#history.wipedSince(counted.begun.tick))
      this.#violate(
        'Q1',
        `${short(id)} as ${generation} was ended unwanted, and #${counted.no} counted on it`,
      )
  }

  /** S5: the signal aborts before an attempt is replaced. Q3: it aborts within a lease after a cancellation. */
  #stopped({ id, fence, process: number, isHeld, begun, aborted, ended, over }: AttemptRecord): void {
    const process = this.#world.actors[number]?.process
    // The holder of a taken job asks for its state.
    if (!begun || !over || !process || isHeld) return
    const stopped = Math.min(aborted?.tick ?? Infinity, ended?.tick ?? Infinity)
    const stoppedAt = Math.min(aborted?.at ?? Infinity, ended?.at ?? Infinity)
    if (over.how === 'replaced') {
      if (begun.tick > over.tick || stopped < over.tick) return
      if (process.diedAt <= over.at || process.pausedWithin(over.at, over.at)) return
      this.#violate(
        'S5',
        `p${number} was not told that it lost ${short(id)} under ${fence} at ${over.at.toFixed(1)}`,
      )
    } else if (over.how === 'settled' || over.how === 'wiped') {
      const due = process.actsAt(over.at + this.#world.plan.lease) + EPSILON
      if (stoppedAt <= due || process.diedAt <= due) return
      this.#violate(
        'Q3',
        `p${number} was not told that ${short(id)} under ${fence} is over since ${over.at.toFixed(1)}`,
      )
    }
  }

  /** Q3: a job goes back from its holder, or from a taker that has left. */
  #returned({ id, fence, process, toTaker, begun, isHeld, released, over }: AttemptRecord): void {
    const { calm, mix } = this.#world.plan
    if (over?.how !== 'requeue') return
    if (begun && isHeld && !released)
      this.#violate('Q3', `${short(id)} was given back under ${fence}, and its holder has it`)
    if (!begun && toTaker && calm && mix.leave === 0)
      this.#violate('Q3', `p${process} gave ${short(id)} back under ${fence}, and no taker had left`)
  }

  /** A generation starts once, and once more for each failure and each lost worker. */
  #counts(attempts: AttemptRecord[]): void {
    const { plan } = this.#world
    const [first] = attempts
    const begun = attempts.filter((one) => one.begun)
    const of = (how: string) => begun.filter(({ over }) => over?.how === how)
    const name = `${short(first?.id ?? '')} as ${first?.generation}`
    const retries = of('retry').length
    if (retries >= Math.max(plan.attempts, 1))
      this.#violate('Q1', `${name} was tried ${retries + 1} times, of ${plan.attempts}`)
    const lost = of('replaced').length
    if (lost > plan.maxStalls) this.#violate('Q1', `${name} lost its worker ${lost} times, and was run again`)
    const replaced = attempts.some(({ over }) => over?.how === 'replaced')
    if (plan.calm && replaced) this.#violate('Q2', `${name} was run again, and nothing went wrong`)
    if (plan.calm && begun.length > retries + of('requeue').length + 1)
      this.#violate('Q2', `${name} was begun ${begun.length} times after ${retries} failures`)
  }
}
