import { setTimeout as sleep } from 'node:timers/promises'
import { type Contender, numberIn, numberOf } from './contenders/contender.ts'
import { now } from './statistics.ts'

/** What came of asking for everything in one tick, in one process. */
export interface Burst {
  /** Milliseconds from asking to the answer, one per caller who got one. */
  latencies: number[]
  /** When the last caller had the answer, on the shared clock. */
  settledAt: number
  /** How often the work ran here, ms from its first start to its last, and when it last ended, on the shared clock. */
  runs: number
  startedOver: number
  workedUntil: number
  /** Never answered, or answered by an error. */
  lost: number
  wrong: number
}

/** A caller who has no answer after this is lost, ms. */
export const BURST_DEADLINE = 15_000

/** What works do in a burst. */
export interface WorkKind {
  /** Waits so long, ms, as for I/O … */
  waits?: number
  /** … and computes so many steps. */
  steps?: number
}

/** The work of a process, and what it tells of itself. */
export class Work {
  kind: WorkKind = {}
  runs = 0
  firstStart = 0
  lastStart = 0
  workedUntil = 0

  async do(): Promise<void> {
    this.runs++
    this.lastStart = performance.now()
    this.firstStart ||= this.lastStart
    const { waits = 0, steps = 0 } = this.kind
    if (waits > 0) await sleep(waits)
    compute(steps)
    this.workedUntil = now()
  }
}

/** Keeps a core busy: by steps and not by the clock, which goes on while another process has the core. */
function compute(steps: number): number {
  let state = 1
  for (let step = 0; step < steps; step++) state = (Math.imul(state, 1_664_525) + 1_013_904_223) | 0
  return state
}

/** How many steps a core does in a millisecond. */
export function stepsPerMs(): number {
  const STEPS = 2_000_000
  let best = Number.POSITIVE_INFINITY
  for (let round = 0; round < 12; round++) {
    const startedAt = performance.now()
    compute(STEPS)
    best = Math.min(best, performance.now() - startedAt)
  }
  return Math.round(STEPS / best)
}

/** So many callers of each key, all in one tick that begins at `at` of the shared clock. */
export async function burst(
  { get }: Contender,
  keys: readonly string[],
  callers: number,
  at: number,
  work: Work,
): Promise<Burst> {
  const result = { latencies: [] as number[], settledAt: 0, lost: 0, wrong: 0 }
  const runsBefore = work.runs
  Object.assign(work, { firstStart: 0, lastStart: 0, workedUntil: 0 })
  await sleep(Math.max(0, at - now()))
  const ask = async (key: string) => {
    const askedAt = performance.now()
    try {
      const answer = await get(key)
      result.latencies.push(performance.now() - askedAt)
      if (numberIn(answer) !== numberOf(key)) result.wrong++
    } catch {
      result.lost++
    }
    result.settledAt = now()
  }
  const asked = keys.flatMap((key) => Array.from({ length: callers }, () => ask(key)))
  const timer = new AbortController()
  await Promise.race([
    Promise.all(asked),
    sleep(BURST_DEADLINE, undefined, { signal: timer.signal }).catch(() => {}),
  ])
  timer.abort()
  result.lost = asked.length - result.latencies.length
  return {
    ...result,
    runs: work.runs - runsBefore,
    startedOver: work.lastStart - work.firstStart,
    workedUntil: work.workedUntil,
  }
}

/** Lets every turn of the event loop take so long, as in a server that is busy. Returns how to end that. */
export function busyTurns(ms: number): () => void {
  let busy = true
  const turn = () => {
    const end = performance.now() + ms
    while (performance.now() < end);
    if (busy) setImmediate(turn)
  }
  setImmediate(turn)
  return () => {
    busy = false
  }
}
