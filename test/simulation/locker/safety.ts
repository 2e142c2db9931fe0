import type { Moment } from '../history.ts'
import { DETECTED_WITHIN } from '../subscription.ts'
import type { Acceptance, CallRecord, GrantRecord, LockerHistory, WorkRecord } from './history.ts'
import type { World } from './world.ts'

/** Checks S3, S4 and S5 on a history. recorder.ts checks S1, S2 and S6 during the run. */
export class SafetyCheck {
  readonly #history: LockerHistory
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

  /** S3: the result of a call was accepted. S4: it was not too old for the call. */
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
    if (this.#passed(call, identity)) return
    if (accepted.length === 0) {
      this.#history.violate('S3', `#${call.id} received ${identity}, which was never accepted`)
      return
    }
    const complaints = accepted.map((one) => this.#complaint(call, one))
    if (complaints.every((complaint) => complaint !== undefined))
      this.#history.violate('S4', `#${call.id} received ${identity}: ${complaints[0]}`)
  }

  /** Published unshared in its process. (By key: it may be the value of a former holder.) */
  #unshared(call: CallRecord, identity: string): boolean {
    return this.#history.works.some(
      (work) => work.process === call.process && work.identities.includes(identity),
    )
  }

  /** Whether it is the result of the call's own work, in a bypass. */
  #passed(call: CallRecord, identity: string): boolean {
    return this.#history.works.some(
      (work) =>
        !work.shared &&
        work.process === call.process &&
        work.key === call.key &&
        work.begun.tick > call.begun.tick &&
        work.identities.includes(identity),
    )
  }

  /** When the work of the result began: under that grant, or in a bypass and stored afterwards. */
  #begunOf(accepted: Acceptance): Moment | undefined {
    const beside = () =>
      this.#history.works.findLast(
        (work) =>
          !work.shared &&
          work.key === accepted.key &&
          work.begun.tick < accepted.tick &&
          work.identities.includes(accepted.identity),
      )
    return (this.#workOf(accepted) ?? beside())?.begun
  }

  /** Why a call must not have received the result. Undefined: it may. */
  #complaint(call: CallRecord, accepted: Acceptance): string | undefined {
    const begun = this.#begunOf(accepted)
    if (call.refresh && begun && begun.tick < call.begun.tick) return 'it asked for a work that begins later'
    const invalidated = this.#history.invalidations.find(
      ({ what, key, effect, acknowledged }) =>
        (what === 'key' ? key === call.key : accepted.tags.includes(key)) &&
        effect &&
        begun &&
        begun.tick < effect.tick &&
        acknowledged &&
        this.#precedes(acknowledged, call),
    )
    if (invalidated)
      return `p${invalidated.process} had invalidated it at ${invalidated.acknowledged?.at.toFixed(1)}`
    if (this.#history.disasters.length === 0 && !this.#timely(call, accepted, call))
      return `it had been over since ${(accepted.at + accepted.ttl).toFixed(1)}, which was too long for it`
    // A record that was lost does not know that it replaced a result: caches are not notified.
    const { evicts } = this.#world.plan
    if (!call.strict && (evicts || this.#history.disasters.length > 0)) return undefined
    const newer = this.#history.acceptances.find(
      (one) =>
        one.key === call.key &&
        one.kind === 'value' &&
        one.kept &&
        one.fence > accepted.fence &&
        call.serverNow < one.serverNow + one.ttl &&
        this.#precedes(one, call),
    )
    return newer && `${newer.identity} had been accepted before at ${newer.at.toFixed(1)}`
  }

  /**
   * Whether a call that ended as `for_` did may have received the result: it was accepted after the call began, or was
   * fresh, or not stale for longer than the call accepts; or the call joined a call of which this is true.
   */
  #timely(call: CallRecord, accepted: Acceptance, { ended }: CallRecord): boolean {
    if (accepted.tick > call.begun.tick || !ended) return true
    const past = call.serverNow - accepted.serverNow - accepted.ttl - this.#slack(call)
    if (past < 0 || this.#content(call, accepted, past, ended)) return true
    // Its process learns of the acceptance from the reply.
    const grant = this.#world.grant(accepted.key, accepted.fence)
    const learned = grant?.process === call.process ? (grant.settled?.tick ?? Infinity) : 0
    if (learned > call.begun.tick) return true
    return this.#joined(call).some((other) => this.#timely(other, accepted, { ...other, ended }))
  }

  /** Earlier calls whose flight a call may have joined: they waited, or had left while the flight went on. */
  #joined({ process: id, key, begun }: CallRecord): CallRecord[] {
    const since = begun.at - this.#world.plan.unavailableAfter - this.#slowest
    const stood = this.#world.actors[id]?.process.pausedWithin(since, begun.at)
    return this.#history.calls.filter(
      (other) =>
        other.process === id &&
        other.key === key &&
        other.begun.tick < begun.tick &&
        (stood || (other.ended?.at ?? Infinity) > since),
    )
  }

  /** With a cache, a call may join a flight whose callers have all left. */
  #slack({ strict, begun, process: id }: CallRecord): number {
    if (strict) return 0
    const slack = DETECTED_WITHIN + this.#slowest + this.#world.plan.unavailableAfter
    const process = this.#world.actors[id]?.process
    return process?.pausedWithin(begun.at - slack, begun.at) ? Infinity : slack
  }

  /** Whether a call accepts a value of this staleness, ms, by its options and what had happened. */
  #content(call: CallRecord, accepted: Acceptance, past: number, ended: Moment): boolean {
    if (past >= accepted.stale) return false
    if (past < call.staleWhileRevalidate) return true
    if (ended.at - call.begun.at > call.softTimeout - 1) return true
    return past < call.staleIfError && this.#failedBefore(call, accepted, ended)
  }

  /** Whether a later work had failed that the call could know of: it was accepted, or shown in the process of the call. */
  #failedBefore(call: CallRecord, accepted: Acceptance, { tick }: Moment): boolean {
    const { acceptances, works } = this.#history
    return (
      acceptances.some(
        (one) =>
          one.key === call.key && one.kind === 'error' && one.fence > accepted.fence && one.tick < tick,
      ) ||
      works.some(
        (one) =>
          one.failed &&
          one.process === call.process &&
          one.key === call.key &&
          one.ended !== undefined &&
          one.ended.tick < tick &&
          (one.shared
            ? call.local && one.fence > accepted.fence && this.#unpublished(one)
            : Math.max(accepted.tick, call.begun.tick) < one.ended.tick),
      )
    )
  }

  /** Whether a process sent what its work came to, and received no reply. */
  #unpublished({ key, fence }: WorkRecord): boolean {
    const grant = this.#world.grant(key, fence)
    return grant?.settling !== undefined && grant.settled === undefined
  }

  /** Whether an event came so long before a call that the call's process must know of it. */
  #precedes(moment: { at: number; tick: number }, call: CallRecord): boolean {
    if (call.strict) return moment.tick < call.begun.tick
    // With a cache it may hear of it this much later, not counting the time for which the process stands still.
    const since = call.begun.at - DETECTED_WITHIN - this.#slowest
    const process = this.#world.actors[call.process]?.process
    return moment.at < since && !process?.pausedWithin(since, call.begun.at)
  }

  /** S5: one processor per grant. */
  #once(works: WorkRecord[]): void {
    const [first, second] = works
    if (first?.shared && second) this.#history.violate('S5', `two works on ${first.key} under ${first.fence}`)
  }

  /** S5: a replaced holder knew it before, unless it stood still. */
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
