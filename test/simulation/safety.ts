import type { Acceptance, CallRecord, GrantRecord, History, WorkRecord } from './history.ts'
import { DETECTED_WITHIN } from './subscription.ts'
import type { World } from './world.ts'

/** Reads S3, S4 and S5 off a history. (S1, S2 and S6 are seen while it happens, see recorder.ts.) */
export class SafetyCheck {
  readonly #history: History
  readonly #world: World
  readonly #works = new Map<string, WorkRecord[]>()
  /** A message takes no longer than this. */
  readonly #slowest: number

  constructor(world: World, slowest: number) {
    this.#world = world
    this.#history = world.history
    this.#slowest = slowest
    for (const work of world.history.works) {
      const name = `${work.key} ${work.fence}`
      const same = this.#works.get(name)
      if (same) same.push(work)
      else this.#works.set(name, [work])
    }
  }

  check(): void {
    if (this.#history.repeats) return
    for (const call of this.#history.calls) this.#delivered(call)
    for (const works of this.#works.values()) this.#once(works)
    this.#overlaps()
  }

  #workOf({ key, fence }: { key: string; fence: number }): WorkRecord | undefined {
    return this.#works.get(`${key} ${fence}`)?.[0]
  }

  /** S3: what a call received was accepted. S4: and it was not too old for it. */
  #delivered(call: CallRecord): void {
    const { ended } = call
    if (!ended || ended.ending.kind === 'lease') return
    const { ending } = ended
    if (ending.kind === 'error' && ending.code !== 'E_REMOTE') return
    const kind = ending.kind === 'error' ? 'error' : 'value'
    const { identity } = ending
    const accepted = this.#history.acceptances.filter(
      (one) =>
        one.key === call.key && one.kind === kind && one.identity === identity && one.tick < ended.tick,
    )
    if (call.local && this.#unshared(call, identity)) return
    if (accepted.length === 0) {
      this.#history.violate('S3', `#${call.id} received ${identity}, which was never accepted`)
      return
    }
    const complaints = accepted.map((one) => this.#complaint(call, one))
    if (complaints.every((complaint) => complaint !== undefined))
      this.#history.violate('S4', `#${call.id} received ${identity}: ${complaints[0]}`)
  }

  /** Published in its process alone. (By key, that may be the value of one who once held a lease.) */
  #unshared(call: CallRecord, identity: string): boolean {
    return this.#history.works.some(
      (work) => work.process === call.process && work.identities.includes(identity),
    )
  }

  /** Why a call must not have received it. */
  #complaint(call: CallRecord, accepted: Acceptance): string | undefined {
    const begun = this.#workOf(accepted)?.begun
    if (call.refresh && begun && begun.tick < call.begun.tick) return 'it asked for a work that begins later'
    const invalidated = this.#history.invalidations.find(
      ({ key, effect, acknowledged }) =>
        key === call.key &&
        effect &&
        begun &&
        begun.tick < effect.tick &&
        acknowledged &&
        this.#precedes(acknowledged, call),
    )
    if (invalidated)
      return `p${invalidated.process} had invalidated it at ${invalidated.acknowledged?.at.toFixed(1)}`
    // Whoever has lost its record does not know that it has replaced a result, and tells no cache.
    const { evicts } = this.#world.plan
    if (!call.strict && (evicts || this.#history.disasters.length > 0)) return undefined
    const newer = this.#history.acceptances.find(
      (one) =>
        one.key === call.key &&
        one.kind === 'value' &&
        one.fence > accepted.fence &&
        call.serverNow < one.serverNow + one.ttl &&
        this.#precedes(one, call),
    )
    return newer && `${newer.identity} had been accepted before at ${newer.at.toFixed(1)}`
  }

  /** Whether something came before a call, so that the call's process must know. */
  #precedes(moment: { at: number; tick: number }, call: CallRecord): boolean {
    if (call.strict) return moment.tick < call.begun.tick
    // With a cache it may take this long to hear of it, not counting the time in which the process stands still.
    const since = call.begun.at - DETECTED_WITHIN - this.#slowest
    const process = this.#world.actors[call.process]?.process
    return moment.at < since && !process?.pausedWithin(since, call.begun.at)
  }

  /** S5: one processor per grant. */
  #once(works: WorkRecord[]): void {
    const [first, second] = works
    if (first?.shared && second) this.#history.violate('S5', `two works on ${first.key} under ${first.fence}`)
  }

  /** S5: whoever was replaced knew it before, unless it stood still. */
  #overlaps(): void {
    const last = new Map<string, GrantRecord>()
    for (const grant of this.#history.grants) {
      const former = last.get(grant.key)
      last.set(grant.key, grant)
      if (!former || this.#disasterBetween(former, grant)) continue
      const work = this.#workOf(former)
      if (!work || (former.over && former.over.tick < grant.tick)) continue
      const process = this.#world.actors[work.process]?.process
      if (!process || process.diedAt <= grant.at) continue
      if (work.begun.tick < grant.tick) {
        const stopped = Math.min(work.aborted?.tick ?? Infinity, work.ended?.tick ?? Infinity)
        if (stopped > grant.tick && !process.pausedWithin(grant.at, grant.at))
          this.#history.violate(
            'S5',
            `p${work.process} was not told that it lost ${work.key} under ${work.fence}`,
          )
      } else if (
        (work.aborted?.at ?? Infinity) > work.begun.at + 1 &&
        !process.pausedWithin(work.begun.at, work.begun.at + 1)
      )
        this.#history.violate(
          'S5',
          `p${work.process} began ${work.key} under ${work.fence}, which was granted anew`,
        )
    }
  }

  #disasterBetween(former: GrantRecord, later: GrantRecord): boolean {
    return this.#history.disasters.some(({ tick }) => former.tick < tick && tick < later.tick)
  }
}
