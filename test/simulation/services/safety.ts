import { EPSILON } from './deadline.ts'
import type { Deal, Run, ServiceCall, ServicesHistory } from './history.ts'
import type { ServicesWorld } from './world.ts'

/** How often callers look at leases, and how long a process is asked after its record is gone, ms. */
const SWEEP = 250
const ASKED_FOR = 1000
/** How long a process that closes waits for its last calls, ms. */
const LAST_CALLS = 500
/** Replies are kept so long, ms. */
const REPLIES_KEPT = 14_000

/** Checks V1 to V4 on a history. (Checks during the run: handlers.ts, driver.ts and world.ts.) */
export class ServicesSafetyCheck {
  readonly #world: ServicesWorld
  readonly #history: ServicesHistory
  /** The longest latency, ms. */
  readonly #slowest: number
  readonly #runs = new Map<number, Run[]>()

  constructor(world: ServicesWorld, slowest: number) {
    this.#world = world
    this.#history = world.history
    this.#slowest = slowest
    for (const run of world.history.runs) this.#runs.set(run.no, [...this.#runsOf(run.no), run])
  }

  #runsOf(no: number): Run[] {
    return this.#runs.get(no) ?? []
  }

  check(): void {
    for (const call of this.#history.calls) {
      this.#ending(call)
      this.#lost(call)
      for (const deal of call.deals) this.#handedBack(call, deal)
      for (const run of this.#runsOf(call.no)) {
        this.#recovered(call, run)
        this.#stopped(call, run)
      }
    }
  }

  #violate(guarantee: string, what: string): void {
    this.#history.violate(guarantee, what)
  }

  /** Whether nothing disturbs the messages between these processes in that time, and all live. */
  #quiet(processes: readonly number[], from: number, until: number): boolean {
    return this.#quietFrom(processes, from, until - from) === from
  }

  /** The earliest time at which processes are undisturbed and alive for `ms`. */
  #quietFrom(processes: readonly number[], from: number, ms: number): number {
    const quiet = this.#history.quietFrom(processes, from, ms)
    const alive = processes.every((id) => (this.#world.actors[id]?.process.diedAt ?? 0) > quiet + ms)
    return alive ? quiet : Number.POSITIVE_INFINITY
  }

  /** V1: the error is one that may be, and `ran` is right. The result is that of a run. */
  #ending(call: ServiceCall): void {
    const { no, ended, mode } = call
    if (!ended) return
    const { ending } = ended
    const runs = this.#runsOf(no)
    if (ending.kind === 'value') {
      const mine = runs.some((run) => run.ended?.identity === ending.identity && run.ended.tick < ended.tick)
      if ((mode === 'emit' || mode === 'pemit') && !mine)
        this.#violate('V4', `#${no} received ${ending.identity}, the result of no run`)
      if (mode === 'notify' && call.deals.length === 0) this.#violate('V4', `#${no} was given to nobody`)
      return
    }
    if (ending.kind === 'left') return
    const { code, ran, identity } = ending
    if (!this.#mayFail(call, code, identity)) this.#violate('V1', `#${no} has ${code}: ${identity}`)
    const missing = ran === undefined && mode !== 'broadcast'
    if (missing) this.#violate('V1', `${code} of #${no} does not say whether it ran`)
    if (ran === 'no' && runs.length > 0)
      this.#violate('V1', `${code} of #${no} says that it did not run, and p${runs[0]?.process} ran it`)
    if (ran === 'yes' && !runs.some(({ begun }) => begun.tick < ended.tick))
      this.#violate('V1', `${code} of #${no} says that it ran`)
  }

  #mayFail(call: ServiceCall, code: string, identity: string): boolean {
    const { actors, plan } = this.#world
    const { abortsAt, ended, deals } = call
    const at = ended?.at ?? 0
    const closing = deals.some(({ process }) => this.#closedAt(process, call.service) <= at)
    const disturbed = !plan.calm || actors[call.process]?.closing === true
    const mayBe: Record<string, boolean> = {
      E_TIMEOUT: at >= call.begun.at + call.timeout - 1,
      E_ABORTED: at >= abortsAt - 1,
      E_UNAVAILABLE: disturbed,
      E_CLOSED: actors[call.process]?.closing === true,
      E_REMOTE: this.#runsOf(call.no).some(({ ended }) => ended && identity.includes(ended.identity)),
      E_NO_SERVICE: true,
      E_BUSY: true,
      E_PROCESS_LOST: disturbed || closing,
    }
    return mayBe[code] ?? false
  }

  /** When a process began to close, or to unregister the service, for the first time. */
  #closedAt(process: number, service: string): number {
    const times = this.#history.registrations
      .filter((one) => one.process === process && one.service === service)
      .map(({ closing }) => closing?.at ?? Number.POSITIVE_INFINITY)
    const closed = this.#history.closings.find((closing) => closing.process === process)
    return Math.min(closed?.begun.at ?? Number.POSITIVE_INFINITY, ...times)
  }

  /** V4: the result of a run reaches its caller: at once, or some time after a gap. */
  #recovered({ no, mode, process, begun, ended, service }: ServiceCall, run: Run): void {
    if ((mode !== 'emit' && mode !== 'pemit') || !run.ended) return
    const { how, at } = run.ended
    // A failure after the deadline of the try is not reported.
    if (how !== 'over' && (how !== 'failed' || run.aborted || !run.watched)) return
    const { lease, unavailableAfter } = this.#world.plan
    const time = lease + unavailableAfter + 8 * this.#slowest + EPSILON
    const processes = [process, run.process]
    const atOnce = at + 4 * this.#slowest + EPSILON
    const due = this.#quiet(processes, begun.at, atOnce)
      ? atOnce
      : this.#quietFrom(processes, at, time) + time
    if ((ended?.at ?? Number.POSITIVE_INFINITY) <= due || due - at > REPLIES_KEPT) return
    if (this.#world.scheduler.now < due) return
    if (Math.min(this.#closedAt(process, ''), this.#closedAt(run.process, service)) <= due) return
    this.#violate('V4', `#${no} has not received ${run.ended.identity} by ${due.toFixed(1)}`)
  }

  /** V1: the handler is told when nobody waits for it any more. */
  #stopped({ no, mode, process, begun, ended }: ServiceCall, run: Run): void {
    if (!ended || !run.watched || (mode !== 'emit' && mode !== 'stream')) return
    const { ending, at } = ended
    const unwanted =
      ending.kind === 'left' ||
      (ending.kind === 'error' && (ending.code === 'E_ABORTED' || ending.code === 'E_TIMEOUT'))
    if (!unwanted) return
    const due = Math.max(at, run.begun.at) + 6 * this.#slowest + EPSILON
    const told = Math.min(
      run.aborted?.at ?? Number.POSITIVE_INFINITY,
      run.ended?.at ?? Number.POSITIVE_INFINITY,
    )
    if (told <= due || !this.#quiet([process, run.process], begun.at, due)) return
    this.#violate('V1', `p${run.process} was not told by ${due.toFixed(1)} that nobody waits for #${no}`)
  }

  /** V3: a caller is told that a process was killed, or calls another, within the lease of that. */
  #lost(call: ServiceCall): void {
    const deal = call.deals.at(-1)
    const victim = this.#world.actors[deal?.process ?? -1]?.process
    if (!deal || !victim?.dead || call.slow || call.mode === 'broadcast' || call.mode === 'notify') return
    const { lease } = this.#world.plan
    const since = Math.max(victim.diedAt, deal.at)
    const due = since + lease + 2 * SWEEP + ASKED_FOR + 6 * this.#slowest + EPSILON
    if (!this.#quiet([call.process], deal.at, due)) return
    if ((call.ended?.at ?? Number.POSITIVE_INFINITY) <= due || call.sent.some(({ tick }) => tick > deal.tick))
      return
    this.#violate('V3', `#${call.no} was not told by ${due.toFixed(1)} that p${deal.process} is dead`)
  }

  /** V3: a caller is told when the process closes before it has run the call. */
  #handedBack(call: ServiceCall, deal: Deal): void {
    if (
      call.mode === 'broadcast' ||
      call.slow ||
      this.#runsOf(call.no).some(({ process }) => process === deal.process)
    )
      return
    const { unavailableAfter } = this.#world.plan
    const closing = this.#history.registrations.find(
      (one) =>
        one.process === deal.process && one.service === call.service && (one.closing?.at ?? 0) >= deal.at,
    )?.closing
    if (!closing) return
    const due = closing.at + unavailableAfter + LAST_CALLS + 6 * this.#slowest + EPSILON
    if (!this.#quiet([call.process, deal.process], deal.at, due)) return
    if ((call.ended?.at ?? Number.POSITIVE_INFINITY) <= due || call.sent.some(({ tick }) => tick > deal.tick))
      return
    this.#violate('V3', `#${call.no} was not told by ${due.toFixed(1)} that p${deal.process} closes`)
  }
}
